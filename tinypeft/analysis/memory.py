"""What the firmware of a compiled model needs of RAM and flash, part by part, each marked with how it is known."""

from __future__ import annotations

from tinypeft.analysis.report import ESTIMATE, EXACT, MEASURED, ArenaPart, Memory, Part, Usage
from tinypeft.codegen import GeneratedSources
from tinypeft.compiler import CompiledModel
from tinypeft.fitting import runtime_ram
from tinypeft.planner import runs
from tinypeft.project import ElfSizes
from tinypeft.resources import resource_path

#: Code of an estimate, in bytes: start-up, runtime and console; for every result of an operation, which is computed and
#: traced; for a byte of a kernel's source; for keeping adapters. Fitted to -O2 on a Cortex-M4.
_RUNTIME_CODE, _CODE_PER_RESULT, _CODE_PER_SOURCE_BYTE, _KEEPING_CODE = 10_870, 53, 0.265, 16_300

_CERTAINTY = (EXACT, MEASURED, ESTIMATE)


def memory_usage(
    model: CompiledModel, sources: GeneratedSources, stack_bytes: int, measured: ElfSizes | None
) -> Memory:
    """RAM and flash of the firmware; of `measured`, its ELF, where it was built."""
    planned = [
        Part("arena", model.arena.arena_bytes, EXACT),
        Part("adapter", model.adapter_bytes, EXACT),
        Part("optimizer", model.training_bytes, EXACT),
        Part("target", model.target_bytes, EXACT),
        Part("replay", model.replay_bytes, EXACT),
        Part("adapters", model.kept_bytes, EXACT),
        Part("stack", stack_bytes, EXACT),
    ]
    constants = Part("constants", sources.flash_tables, EXACT)
    if measured is None:
        runtime, code = Part("runtime", runtime_ram(model), ESTIMATE), Part("code", _code(model), ESTIMATE)
    else:
        runtime = Part("runtime", measured.ram_bytes - sum(part.bytes for part in planned), MEASURED)
        code = Part("code", measured.flash_bytes - constants.bytes, MEASURED)
    arena = tuple(ArenaPart(part.name, part.start, part.size) for part in model.arena.parts)
    return Memory(_usage(*(part for part in planned if part.bytes), runtime), _usage(constants, code), arena)


def _usage(*parts: Part) -> Usage:
    basis = max((part.basis for part in parts), key=_CERTAINTY.index)
    return Usage(sum(part.bytes for part in parts), basis, parts)


def _code(model: CompiledModel) -> int:
    """An estimate from how much the graphs compute and how long the sources of their kernels are."""
    results = sum(len(op.outputs) for graph in model.graphs for op in graph.operations)
    length = sum(resource_path("firmware", "kernels", name).stat().st_size for name in _portable(model))
    keeping = _KEEPING_CODE if model.kept is not None else 0
    chosen = _RUNTIME_CODE + _CODE_PER_RESULT * results + _CODE_PER_SOURCE_BYTE * length + keeping
    return round(chosen + _target_code(model))


def _portable(model: CompiledModel) -> set[str]:
    """The sources of portable kernels that firmware calls."""
    names: set[str] = set()
    for op in (op for graph in model.graphs for op in graph.operations if runs(op)):
        names |= set(op.op.sources(op) if op.kernel is None else (n for n in op.kernel.sources if "/" not in n))
    return names


def _target_code(model: CompiledModel) -> int:
    """Bytes of the code of kernels for the target: each generated routine once, and each function that calls them."""
    routines: dict[str, int] = {}
    functions: dict[str, int] = {}
    for kernel in (op.kernel for graph in model.graphs for op in graph.operations if op.kernel is not None):
        routines |= {routine.name: routine.nbytes for routine in kernel.routines}
        own = kernel.code_bytes - sum(routine.nbytes for routine in kernel.routines)
        functions[kernel.call.function] = max(own, functions.get(kernel.call.function, 0))
    return sum(routines.values()) + sum(functions.values())

"""Render the C sources of a compiled model; every number is computed here, templates only format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tinypeft.arithmetic import float_exponent
from tinypeft.codegen.functions import graph_function, part_name, place_of, shared_functions, start_up_checks
from tinypeft.codegen.masters import MasterTable, master_table
from tinypeft.codegen.tables import CTYPES, Constants, number, rows
from tinypeft.compiler import CompiledModel
from tinypeft.ir import Purpose, Tensor
from tinypeft.kernels import BACKENDS
from tinypeft.planner import WHOLE, runs
from tinypeft.resources import template

_TEMPLATES = ("model.h", "model.c", "model_params.h", "model_weights.h", "model_weights.c", "model_device.c")
#: of models that switch between adapters
_BASE_ADAPTER = "model_base_adapter.c"
#: of models that take signed packages alone
_KEY = "model_key.h"
#: of models with assembly that was generated for them
_ROUTINES = "model_kernels.S"
#: starts that a candidate on test survives without being confirmed
_TEST_BOOTS = 3


@dataclass(frozen=True)
class GeneratedSources:
    """`files`: name under src/ -> text. `kernels`: C files under firmware/kernels/ that they call.

    `flash_tables`: bytes of constant tables. `defines`: macros, NAME=VALUE, of all files of a build, kernels included.
    `target_defines`: those of firmware alone.
    """

    files: dict[str, str]
    kernels: list[str]
    flash_tables: int
    defines: tuple[str, ...] = ()
    target_defines: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArenaPartSource:
    """A part of the arena in C: its pointer's name, the macro of its size, and the linker's section for its memory.

    `size` is what the graphs use of it, `room` what firmware reserves, in which it can receive a package; `section` is
    empty for ordinary data; `ram_bytes`, where known, is what the memory has.
    """

    name: str
    macro: str
    size: int
    room: int
    section: str
    ram_bytes: int | None


def generate_sources(
    model: CompiledModel, ram_bytes: Mapping[str, int] | None = None, weights_section: str = "", verify_key: bytes = b""
) -> GeneratedSources:
    """The sources of `model`; the same model gives the same bytes.

    ram_bytes        by the name of each RAM what it has, the one of ordinary data first; the sources assert it
    weights_section  the linker's section for the constant tables, empty for that of other constants
    verify_key       the 32 bytes of the Ed25519 key with which packages must be signed; empty: they need no signature
    """
    constants = Constants(model.name)
    shared = shared_functions(model.graphs, model.arena, constants)
    functions = {g.name: graph_function(g, model.arena, constants, shared) for g in model.graphs}
    operations = [op for g in model.graphs for op in g.operations if runs(op)]
    chosen = [op.kernel for op in operations if op.kernel is not None]
    kernels = sorted({s for op in operations for s in op.op.sources(op)} | {s for k in chosen for s in k.sources})
    checks = start_up_checks(model.graphs, model.arena, constants)
    flash_tables = sum(t.nbytes for t in (*constants.shared_tables, *constants.tables_for(on_target=True)))
    parts = _arena_parts(model, ram_bytes)
    values = {
        "name": model.name,
        "upper": model.name.upper(),
        "model": model,
        "functions": functions,
        "shared": shared.values(),
        "constants": constants,
        "flash_tables": flash_tables,
        "checks": checks,
        "fingerprint": ", ".join(f"0x{byte:02x}" for byte in model.fingerprint),
        "package": model.package_info,
        "package_tensors": _package_tensors(model),
        "adapter": _members(model.adapter_weights),
        "adapter_bytes": model.adapter_bytes,
        "training": _members(model.training_state),
        "training_bytes": model.training_bytes,
        "arena_bytes": model.arena.arena_bytes,
        "arena_map": _arena_map(model),
        "input": model.inference.inputs[0],
        "output": model.output,
        "arena_parts": parts,
        "used_bytes": sum(part.size for part in parts),
        "staging": max(parts, key=lambda part: part.room),
        "input_place": place_of(model.arena, "inference", model.inference.inputs[0].name),
        "output_place": place_of(model.arena, "inference", model.output.name),
        "logits": model.logits,
        "logits_place": place_of(model.arena, "inference", model.logits.name) if model.logits else "",
        "logit_exponent": _logit_exponent(model),
        "target": model.target.name if model.target else "",
        "target_parameter": _target_parameter(model.target),
        "target_check": _target_check(model.target, f"{model.name.upper()}_CLASSES"),
        "weights_section": weights_section,
        "output_shift": _output_shift(model),
        "scale_text": number(model.output.scale[0]) if model.output.scale is not None else "",
        "classes": max(model.output.shape[-1:], default=1),
        "ctypes": CTYPES,
        "store": model.store,
        "masters": [t for t in model.training_state if t.purpose is Purpose.MASTER],
        "batch_size": model.training_config.batch_size,
        "latents": _latents(model),
        "latent_room": model.latent_room,
        "gradient_bits": model.training_config.grad_bits,
        "kept": model.kept,
        "summed": _summed(model),
        "merged": _members(model.merged.weights) if model.merged is not None else [],
        "merged_layers": ", ".join(model.merged.layers) if model.merged is not None else "",
        "merged_output": place_of(model.arena, "merged", model.output.name) if model.merged is not None else "",
        "merged_logits": _merged_logits(model),
        "base_adapter": _base_adapter(model) if model.kept is not None else [],
        "target_headers": list(dict.fromkeys(h for k in chosen for h in BACKENDS[k.backend].headers)),
        "verify_key": [f"0x{byte:02x}" for byte in verify_key],
    }
    names = [*_TEMPLATES, *([_BASE_ADAPTER] if model.kept is not None else []), *([_KEY] if verify_key else [])]
    names += [_ROUTINES] if constants.routines else []
    files = {name.replace("model", model.name, 1): template(f"model/{name}.j2").render(**values) for name in names}
    target_defines = ("TP_TARGET_KERNELS=1",) if chosen else ()
    return GeneratedSources(files, kernels, flash_tables, _defines(model), target_defines)


def _defines(model: CompiledModel) -> tuple[str, ...]:
    """What the firmware's headers do not assume of themselves."""
    if model.training is None:
        return ()
    bits = model.training_config.grad_bits
    defines = [] if bits == 16 else [f"TP_GRADIENT_BITS={bits}"]
    defines += [] if model.latent is None else ["TP_LATENTS=1"]
    if (kept := model.kept) is not None:
        defines += ["TP_STORE=1", f"TP_STORE_ADAPTERS={kept.adapters}", f"TP_RESIDENT={kept.resident}"]
        defines += [f"TP_DEVICE_SLOT_BYTES={kept.slot_bytes}", f"TP_DEVICE_TEST_BOOTS={_TEST_BOOTS}"]
    return tuple(defines)


def _base_adapter(model: CompiledModel) -> list[tuple[str, list[str]]]:
    """(member, lines of its values) of an adapter that changes nothing: a fresh one."""
    state = model.fresh_state(0)
    return [(t.name, rows(CTYPES[t.dtype], state[t.name].reshape(-1))) for t in model.adapter_weights]


def _merged_logits(model: CompiledModel) -> str:
    both = model.merged is not None and model.logits is not None
    return place_of(model.arena, "merged", model.logits.name) if both else ""  # type: ignore[union-attr]


def _summed(model: CompiledModel) -> MasterTable | None:
    """Of the sums of adapters, which lie in the part of the arena that receives packages."""
    return master_table(model, max(model.arena.parts, key=lambda part: part.size))


def _logit_exponent(model: CompiledModel) -> int:
    """Of the power of two that one step of the logits is."""
    scale = model.logits.scale if model.logits is not None else None
    return 0 if scale is None else float_exponent(scale[0])


def _target_parameter(target: Tensor | None) -> str:
    """The parameter that a training step takes of what it compares with."""
    if target is None:
        return ""
    return f"const int32_t *{target.name}, " if target.shape else f"int32_t {target.name}, "


def _target_check(target: Tensor | None, classes: str) -> str:
    """The rest of a condition that is true where that parameter is no valid one."""
    if target is None:
        return ""
    return f" || {target.name} == NULL" if target.shape else f" || {target.name} < 0 || {target.name} >= {classes}"


@dataclass(frozen=True)
class LatentSource:
    """A latent in C: where it lies among a sample's, and in the arena behind `encode` and in front of training."""

    text: str
    offset: int
    nbytes: int
    encoded: str
    trained: str


def _latents(model: CompiledModel) -> list[LatentSource]:
    sources: list[LatentSource] = []
    for tensor in model.latent.latents if model.latent is not None else []:
        offset = sum(source.nbytes for source in sources)
        text = f"{tensor.name} ({','.join(map(str, tensor.shape))}) {tensor.dtype}"
        places = (place_of(model.arena, graph, tensor.name) for graph in ("encode", "latent_training"))
        sources.append(LatentSource(text, offset, tensor.nbytes, *places))
    return sources


def _arena_parts(model: CompiledModel, ram_bytes: Mapping[str, int] | None) -> list[ArenaPartSource]:
    known = ram_bytes or {}
    ordinary = (next(iter(known), ""), WHOLE)
    parts = []
    for part in model.arena.parts:
        name = part_name(model.arena, part)
        section = "" if part.name in ordinary else f".arena_{part.name}"
        macro, used = f"{model.name}_{name}".upper(), model.arena.used_bytes(part)
        parts.append(ArenaPartSource(name, macro, used, part.size, section, known.get(part.name)))
    return parts


def _members(tensors: list[Tensor]) -> list[tuple[str, str, int, str]]:
    """(C type, name, elements, shape) of the struct members."""
    return [(CTYPES[t.dtype], t.name, t.nbytes if t.packed else t.size, ",".join(map(str, t.shape))) for t in tensors]


def _package_tensors(model: CompiledModel) -> list[tuple[str, str]]:
    """(name, the fields of its tp_package_tensor) of the adapter's tensors."""
    rows = zip(model.adapter_weights, model.package_info.tensors, strict=True)
    return [(t.name, f"{p.outer}, {p.rank}, {p.inner}, {p.ranked:d}, {p.fixed:d}") for t, p in rows]


def _output_shift(model: CompiledModel) -> str | None:
    """The adapter tensor whose power of two scales the output, where the output comes from a retrained classifier."""
    producer = model.inference.producer(model.output)
    shift = producer.attributes.get("output_shift") if producer is not None else None
    return shift.name if shift is not None else None


def _arena_map(model: CompiledModel) -> list[tuple[str, list[tuple[int, int, int, int, str]]]]:
    """Graph name -> (offset, end, first op, last op, tensors) by offset."""
    result = []
    for graph in model.graphs:
        plan = model.arena.plans[graph.name]
        rows = [
            (offset, offset + b.size, b.first, b.last, ", ".join(t.name for t in b.tensors) or b.name)
            for b, offset in zip(plan.buffers, plan.offsets, strict=True)
        ]
        if rows:
            result.append((graph.name, sorted(rows)))
    return result

"""Choose a kernel for every operation: graphs and what the user prefers in, operations with kernels and reasons out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tinypeft.errors import KernelError
from tinypeft.ir import Graph, Operation, Tensor
from tinypeft.kernels.base import BACKENDS, Kernel, Target
from tinypeft.kernels.config import ARENA_GROWTH, PORTABLE, KernelConfig
from tinypeft.planner import live_buffers, lower_bound, runs

#: what balanced gives for speed: so many times the bytes for so many times fewer cycles count the same
_WEIGHT_OF_BYTES = {"size": 4.0, "balanced": 0.5, "speed": 0.0}


@dataclass(frozen=True)
class Choice:
    """What computes an operation on the target, None: the portable kernel; and why not something else."""

    operation: str
    kernel: Kernel | None
    reason: str


def choose_kernels(graphs: Sequence[Graph], target: Target, config: KernelConfig) -> dict[str, Choice]:
    """Set `kernel` of the operations of `graphs`, whose first is inference; returns the choices by operation name.

    The arena of inference grows by no more than `config.optimize` allows. Raises KernelError where an override names no
    operation, or its backend has no kernel for it.
    """
    _check_library(config)
    operations = {id(op): op for graph in graphs for op in graph.operations if runs(op)}
    _check_overrides(config, {op.name for op in operations.values()})
    limit = int(lower_bound(live_buffers(graphs[0]))[0] * ARENA_GROWTH[config.optimize])
    candidates: dict[int, list[Kernel]] = {}
    reasons: dict[int, str] = {}
    for key, op in operations.items():
        candidates[key], reasons[key] = _candidates(op, target, config)
        op.kernel = next(iter(candidates[key]), None)
    for key, op in operations.items():
        _count_what_goes(op, candidates[key], operations.values(), _WEIGHT_OF_BYTES[config.optimize])
    while _give_way(graphs[0], candidates, reasons, limit):
        pass
    return {op.name: Choice(op.name, op.kernel, reasons[key]) for key, op in operations.items()}


def _check_library(config: KernelConfig) -> None:
    """Raise KernelError where a backend is asked for whose library nobody gave."""
    asked = {*config.backends, *(backend for _, backend in config.overrides)}
    for name in asked & set(BACKENDS):
        if BACKENDS[name].needs_library and not config.cmsis_nn:
            raise KernelError(f"{name} needs a library, and no folder of it is given", "give --cmsis-nn FOLDER")


def _check_overrides(config: KernelConfig, names: set[str]) -> None:
    for name, _ in config.overrides:
        if name not in names:
            raise KernelError(f"there is no operation {name!r} to choose a kernel for", "tinypeft analyze lists them")


def _candidates(op: Operation, target: Target, config: KernelConfig) -> tuple[list[Kernel], str]:
    """The kernels that may compute `op`, the best first, and why others may not."""
    wanted = config.override(op.name)
    if wanted == PORTABLE:
        return [], "asked for"
    found: list[Kernel] = []
    reasons = []
    for name, backend in BACKENDS.items():
        if not (wanted == name or (wanted is None and config.allows(name))):
            continue
        if target.core not in backend.cores:
            reasons.append(f"{name} is not for {target.core}")
            continue
        offered = backend.offers(op, target)
        if isinstance(offered, str):
            reasons.append(f"{name}: {offered}")
        else:
            found += offered
    if wanted is not None and not found:
        raise KernelError(f"{op.name} cannot be computed by {wanted}: {'; '.join(reasons)}", "leave it to the compiler")
    weight = _WEIGHT_OF_BYTES[config.optimize]
    found.sort(key=lambda kernel: _cost(kernel, weight))
    return found, "; ".join(reasons)


def _cost(kernel: Kernel, weight: float, gone: int = 0) -> float:
    """The smaller the better; `gone` bytes leave flash for the kernel's."""
    return max(kernel.cycles, 1) * max(kernel.code_bytes + kernel.table_bytes - gone, 1) ** weight


def _count_what_goes(op: Operation, found: list[Kernel], operations: Iterable[Operation], weight: float) -> None:
    """Choose again where a table may stand for an operand that no other operation's call takes."""
    instead = next((kernel.instead for kernel in found if kernel.instead is not None), None)
    if instead is not None and not any(_takes(other, instead) for other in operations if other is not op):
        found.sort(key=lambda kernel: _cost(kernel, weight, instead.nbytes if kernel.instead is instead else 0))
        op.kernel = found[0]


def _takes(op: Operation, tensor: Tensor) -> bool:
    """Whether the call of `op` on the target has `tensor` among its arguments."""
    arguments = list(op.inputs.values()) if op.kernel is None else op.kernel.call.arguments
    return any(argument is tensor for argument in arguments)


def _give_way(inference: Graph, candidates: dict[int, list[Kernel]], reasons: dict[int, str], limit: int) -> bool:
    """Where more than `limit` bytes are live, take another kernel there, or near by; whether there was one to take.

    Near by: one that keeps its output apart from its input may be why what is live elsewhere cannot share.
    """
    peak, time = lower_bound(live_buffers(inference))
    chosen = {position: op.kernel for position, op in enumerate(inference.operations) if op.kernel is not None}
    if peak <= limit or not chosen:
        return False
    at = min(chosen, key=lambda position: (position != time, chosen[position].in_order, abs(position - time)))
    op = inference.operations[at]
    assert op.kernel is not None
    left = candidates[id(op)]
    left.remove(op.kernel)
    op.kernel = next(iter(left), None)
    reasons[id(op)] = f"others need more scratch than the arena of {limit:,} B has room for"
    return True

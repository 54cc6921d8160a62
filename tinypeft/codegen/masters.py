"""The table of masters from which firmware sums adapters: a compiled model in, tp_masters' numbers out."""

from __future__ import annotations

from dataclasses import dataclass

from tinypeft.adapters.sums import summands, unsummed
from tinypeft.compiler import CompiledModel
from tinypeft.planner import ArenaPart


@dataclass(frozen=True)
class MasterTable:
    """rows: (member of the training struct, the other fields of its tp_master).

    elements      of all masters
    arena_offset  bytes of the part of the arena up to which graphs that run meanwhile use it
    logit_range   the member with the range of logits, empty without one
    """

    rows: list[tuple[str, str]]
    elements: int
    arena_offset: int
    logit_range: str


def master_table(model: CompiledModel, part: ArenaPart) -> MasterTable | None:
    """The table where firmware has memory to sum adapters in, and they can be summed; sums lie in `part`."""
    if model.kept is None or model.kept.resident < 2 or model.requantize is None:
        return None
    if unsummed(model.adapter, {kind for kinds in model.adapted_by.values() for kind in kinds}):
        return None
    found = summands(model.parameters)
    ranges = [op.inputs["logit_range"].name for op in model.requantize.operations if "logit_range" in op.inputs]
    return MasterTable(
        [(s.master.name, f"{s.outer}, {s.inner}, {s.rank}, TP_MASTER_{s.role.name}") for s in found],
        sum(s.master.size for s in found),
        _used_of(model, part),
        next(iter(ranges), ""),
    )


def _used_of(model: CompiledModel, part: ArenaPart) -> int:
    """How much of the part, from its start, restoring and resetting an adapter use."""
    used = 0
    for graph in ("restore", "reset"):
        plan = model.arena.plans[graph]
        for buffer, offset in zip(plan.buffers, plan.offsets, strict=True):
            if part.start <= offset < part.end and buffer.name != model.inference.inputs[0].name:
                used = max(used, offset - part.start + buffer.size)
    return (used + 7) // 8 * 8

"""Instructions of a graph, estimated: its work by sorts in, a count for a Cortex-M4 out.

Work is what an operator does in its inner loop, its multiply-accumulates, and what it does once a result. The costs
were fitted to counts under QEMU (`benchmarks/instructions.py`), which they meet within a tenth.
"""

from __future__ import annotations

from collections import Counter

from tinypeft.ir import Graph, Operation
from tinypeft.ops.window import Window

#: sort of work -> instructions
COSTS: dict[str, float] = {}


def graph_work(graph: Graph) -> dict[str, int]:
    """The work of `graph` by sort: multiply-accumulates and results of each family of operators."""
    work: Counter[str] = Counter()
    for op in graph.operations:
        if op.op.call(op) is None:
            continue
        family, macs = _family(op), op.op.macs(op)
        if macs:
            work[f"{family} mac"] += macs
        work[f"{'weighted' if macs else family} result"] += sum(t.size for t in op.outputs.values())
    return dict(work)


def estimated_instructions(graph: Graph) -> int:
    """What one run of `graph` costs."""
    return round(sum(COSTS[sort] * amount for sort, amount in graph_work(graph).items()))


def _family(op: Operation) -> str:
    """Operators whose inner loops are alike."""
    window, kind = op.attributes.get("window"), op.kind
    spatial = isinstance(window, Window) and window.kernel_h * window.kernel_w > 1
    if "DEPTHWISE" in kind:
        return "depthwise backward" if "BACKWARD" in kind else "depthwise"
    if kind == "CONV_2D_BACKWARD_INPUT":
        return "spatial backward" if spatial else "pointwise backward"
    if kind in ("UPDATE_ROWS", "DENSE_RETRAIN", "UPDATE_FROM_SUMS"):
        return "update"
    if kind.endswith(("QUANTIZE", "QUANTIZE_INT4")):
        return "quantizing"
    if op.op.macs(op):
        return "spatial" if spatial else "pointwise"
    return "elementwise"

"""Instructions of a graph, estimated: its work by sorts in, a count for a Cortex-M4 out.

Work is what an operator does in its inner loop, its multiply-accumulates, and what it does once a result. The costs
are fitted to 22 counts of whole graphs under QEMU by `benchmarks/instructions.py`: most are met within 5 %, all
within 12 %.
"""

from __future__ import annotations

from collections import Counter

from tinypeft.ir import Graph, Operation
from tinypeft.ops.window import Window

#: sort of work -> instructions
COSTS = {
    "depthwise backward mac": 2.74,
    "depthwise mac": 5.79,
    "elementwise result": 33.49,
    "pointwise backward mac": 1.69,
    "pointwise mac": 2.80,
    "quantizing result": 301.77,
    "sparse mac": 5.98,
    "spatial backward mac": 5.58,
    "spatial mac": 3.23,
    "update mac": 8.30,
    "update result": 25.16,
    "weighted result": 64.62,
}


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
    if kind == "SPARSE_ROWS":
        return "sparse"
    if op.op.macs(op):
        return "spatial" if spatial else "pointwise"
    return "elementwise"

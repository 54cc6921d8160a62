"""Instructions of a graph, estimated: its work by sorts and what computes it in, a count out.

Work is what an operator does in its inner loop, its multiply-accumulates, and what it does once a result. The costs
of each backend's kernels are fitted to counts of 24 whole graphs under QEMU by `benchmarks/instructions.py`: most are
met within 20 %, of the portable kernels alone within 6 %.
"""

from __future__ import annotations

from collections import Counter

from tinypeft.ir import Graph, Operation
from tinypeft.kernels.config import PORTABLE
from tinypeft.ops.window import Window

#: backend -> sort of work -> instructions
COSTS = {
    PORTABLE: {
        "depthwise backward mac": 1.60,
        "depthwise mac": 0.19,
        "elementwise result": 28.65,
        "pointwise backward mac": 3.69,
        "pointwise mac": 2.67,
        "quantizing result": 94.29,
        "sparse mac": 6.74,
        "spatial backward mac": 5.97,
        "spatial mac": 2.47,
        "update mac": 10.28,
        "update result": 27.72,
        "weighted result": 32.25,
    },
    "dsp": {
        "depthwise backward mac": 1.28,
        "depthwise mac": 0.00,
        "elementwise result": 0.00,
        "pointwise backward mac": 1.38,
        "pointwise mac": 1.27,
        "spatial backward mac": 2.57,
        "spatial mac": 0.99,
        "update mac": 4.21,
        "weighted result": 0.00,
    },
    "mve": {
        "depthwise backward mac": 0.00,
        "depthwise mac": 0.00,
        "elementwise result": 12.16,
        "pointwise backward mac": 0.00,
        "pointwise mac": 0.52,
        "spatial backward mac": 0.49,
        "spatial mac": 0.20,
        "update mac": 5.74,
        "weighted result": 0.00,
    },
}


def graph_work(graph: Graph) -> dict[str, dict[str, int]]:
    """The work of `graph` by backend and sort: multiply-accumulates and results of each family of operators."""
    work: dict[str, Counter[str]] = {}
    for op in graph.operations:
        if op.op.call(op) is None:
            continue
        family, macs = _family(op), op.op.macs(op)
        mine = work.setdefault(op.kernel.backend if op.kernel is not None else PORTABLE, Counter())
        if macs:
            mine[f"{family} mac"] += macs
        mine[f"{'weighted' if macs else family} result"] += sum(t.size for t in op.outputs.values())
    return {backend: dict(each) for backend, each in work.items()}


def estimated_instructions(graph: Graph) -> int:
    """What one run of `graph` costs: of operations without a kernel, by the portable ones."""
    return round(
        sum(
            COSTS.get(backend, {}).get(sort, COSTS[PORTABLE][sort]) * amount
            for backend, work in graph_work(graph).items()
            for sort, amount in work.items()
        )
    )


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

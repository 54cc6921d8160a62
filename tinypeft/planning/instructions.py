"""Instructions of a graph, estimated: its work by sorts and what computes it in, a count out.

Work is what an operator does in its inner loop, its multiply-accumulates, and what it does once a result. The costs
are fitted to 24 counts of whole graphs under QEMU by `benchmarks/instructions.py`.
"""

from __future__ import annotations

from collections import Counter

from tinypeft.ir import Graph, Operation
from tinypeft.kernels import BACKENDS, KernelConfig
from tinypeft.kernels.config import PORTABLE
from tinypeft.ops.window import Window

#: backend -> sort of work -> instructions
COSTS = {
    PORTABLE: {
        "depthwise backward mac": 0.26,
        "depthwise mac": 7.61,
        "elementwise result": 28.68,
        "pointwise backward mac": 3.33,
        "pointwise mac": 2.97,
        "quantizing result": 80.37,
        "sparse mac": 7.16,
        "spatial backward mac": 5.80,
        "spatial mac": 3.34,
        "update mac": 8.53,
        "update result": 32.68,
        "weighted result": 51.04,
    },
}


def cost_table(core: str, kernels: KernelConfig) -> dict[str, float]:
    """What a unit of each sort of work costs on `core` by those of `kernels` that suit it."""
    names = [name for name in COSTS if name != PORTABLE and kernels.allows(name) and core in BACKENDS[name].cores]
    return COSTS[names[0] if names else PORTABLE]


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


def estimated_instructions(graph: Graph, costs: dict[str, float]) -> int:
    """What one run of `graph` costs by a table of `cost_table`."""
    return round(sum(costs[sort] * amount for sort, amount in graph_work(graph).items()))


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

"""Schedule: the same operations in an order whose peak of live memory is smaller, where one is found."""

from __future__ import annotations

from tinypeft.ir import Graph, Operation
from tinypeft.planner import live_buffers, lower_bound


def schedule(graph: Graph) -> Graph:
    """`graph` in the better of two orders: as given, or greedily by what each operation frees and allocates.

    Persistent tensors keep their order of reads and writes.
    """
    before = _dependencies(graph)
    candidates = [graph, Graph(graph.name, graph.inputs, graph.outputs, _greedy(graph, before))]
    return min(candidates, key=lambda g: lower_bound(live_buffers(g))[0])


def _dependencies(graph: Graph) -> list[set[int]]:
    """For each operation the indices of those that must run before it."""
    before: list[set[int]] = [set() for _ in graph.operations]
    producer: dict[int, int] = {}
    readers: dict[int, list[int]] = {}
    for index, op in enumerate(graph.operations):
        for tensor in op.inputs.values():
            if id(tensor) in producer:
                before[index].add(producer[id(tensor)])
            readers.setdefault(id(tensor), []).append(index)
        for tensor in op.outputs.values():
            if tensor.persistent:  # written in place: after every earlier reader and writer
                before[index].update(i for i in readers.get(id(tensor), []) if i != index)
                if id(tensor) in producer:
                    before[index].add(producer[id(tensor)])
            producer[id(tensor)] = index
    return before


def _greedy(graph: Graph, before: list[set[int]]) -> list[Operation]:
    remaining = set(range(len(graph.operations)))
    uses: dict[int, set[int]] = {}
    for index, op in enumerate(graph.operations):
        for tensor in op.inputs.values():
            uses.setdefault(id(tensor), set()).add(index)
    kept = {id(t) for t in graph.outputs}
    order: list[Operation] = []

    def growth(index: int) -> tuple[int, int]:
        op = graph.operations[index]
        allocated = sum(t.nbytes for t in op.outputs.values() if t.in_arena)
        inputs = {id(t): t for t in op.inputs.values() if t.in_arena}
        freed = sum(t.nbytes for t in inputs.values() if id(t) not in kept and not (uses[id(t)] & remaining) - {index})
        return allocated - freed, index

    while remaining:
        ready = [i for i in remaining if not before[i] & remaining]
        chosen = min(ready, key=growth)
        remaining.remove(chosen)
        order.append(graph.operations[chosen])
    return order

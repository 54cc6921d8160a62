"""Schedule: the same operations in the order whose peak of live memory is smallest, or the smallest found."""

from __future__ import annotations

from dataclasses import dataclass

from tinypeft.ir import Graph
from tinypeft.planner import live_buffers, lower_bound
from tinypeft.planner.order_model import OrderModel, dependencies
from tinypeft.planner.order_search import STATES, beam_order, exact_order


@dataclass(frozen=True)
class Schedule:
    """An order of a graph's operations; `peak` is the most that is live at once, no order has less than `bound`."""

    graph: Graph
    peak: int
    bound: int

    @property
    def proved(self) -> bool:
        """Whether no order has a smaller peak."""
        return self.peak == self.bound


#: what `schedule_quickly` may look at
FEW_STATES = 400


def schedule(graph: Graph) -> Graph:
    """`graph` in the order of `best_schedule`."""
    return best_schedule(graph).graph


def schedule_quickly(graph: Graph) -> Graph:
    """The same with a shorter search, for one of many graphs."""
    return best_schedule(graph, FEW_STATES).graph


def best_schedule(graph: Graph, states: int = STATES) -> Schedule:
    """`graph` in the best order found, the given one where none is better; persistent tensors keep reads and writes.

    `states`: how many sets of operations the exact search may look at before a beam takes over.
    """
    given = _peak(graph)
    if _is_only_order(graph):
        return Schedule(graph, given, given)
    model = OrderModel(graph)
    bound = min(model.bound(), given)
    if bound == given:
        return Schedule(graph, given, bound)
    order, reached = exact_order(model, bound, states)
    bound = min(max(bound, reached), given)
    found = Graph(
        graph.name,
        graph.inputs,
        graph.outputs,
        [graph.operations[i] for i in (order if order is not None else beam_order(model, bound))],
    )
    peak = _peak(found)
    return Schedule(found, peak, bound) if peak < given else Schedule(graph, given, bound)


def _peak(graph: Graph) -> int:
    return lower_bound(live_buffers(graph))[0]


def _is_only_order(graph: Graph) -> bool:
    """Whether each operation needs the one before it."""
    return all(index - 1 in before for index, before in enumerate(dependencies(graph)) if index)

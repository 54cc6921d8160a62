"""Unread: all graphs of a model in; what their operations can do without, and no graph reads, is not computed."""

from __future__ import annotations

from collections.abc import Sequence

from tinypeft.ir import Graph


def leave_out_unread(graphs: Sequence[Graph]) -> None:
    """Take the results that are `dispensable` from operations, in place, where no operation of any graph reads them.

    The first layer's gradient ends at its weights, for example: the backward pass needs no scales of its channels.
    """
    read = {id(t) for graph in graphs for op in graph.operations for t in op.inputs.values()}
    read |= {id(t) for graph in graphs for t in graph.outputs}
    for graph in graphs:
        for op in graph.operations:
            spare = {name for name, t in op.outputs.items() if name in op.op.dispensable and id(t) not in read}
            op.outputs = {name: t for name, t in op.outputs.items() if name not in spare}

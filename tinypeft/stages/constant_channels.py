"""Constant channels: a graph in; the same without the channels that have one value whatever the input, or no reader.

What a constant channel adds to those that read it goes into their biases, so that every bit that is left is the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from tinypeft.ir import Graph, Narrowed, Operation, Purpose, Tensor
from tinypeft.ops.activation import INT8_MAX, INT8_MIN
from tinypeft.ops.base import Bounds
from tinypeft.ops.channels import has_padding, mixing_filters


def drop_constant_channels(graph: Graph, multiple: int = 1) -> Graph:
    """`graph` with fewer channels, `graph` itself where all have to stay.

    A tensor that loses some keeps a `multiple` of channels, so that kernels find them where they read whole words, if
    it has so many that this costs little: four times as many or more.

    A channel goes from the layer that computes it up to those that mix channels. Layers whose weights may change, as
    those with an adapter, keep what they read and give; so do operators that do not tell channels apart, and outputs.
    """
    bounds = channel_bounds(graph)
    kept = _Fates(graph, bounds).kept(multiple)
    if all(mask.all() for mask in kept.values()):
        return graph
    return _Narrowing(graph, bounds, kept).graph()


def channel_bounds(graph: Graph) -> dict[int, Bounds]:
    """By the tensor's id, the bounds of every int8 activation's channels over all inputs and all adapters."""
    found = {id(t): _any(t) for t in graph.inputs if _has_channels(t)}
    for op in graph.operations:
        operands = {n: _constant(t) if t.data is not None else found.get(id(t)) for n, t in op.inputs.items()}
        known = op.op.channel_bounds(op, {name: b for name, b in operands.items() if b is not None})
        found.update({id(t): _any(t) for t in op.outputs.values() if _has_channels(t)})
        if known is not None:
            found[id(op.output)] = known
    return found


def _has_channels(tensor: Tensor) -> bool:
    return tensor.dtype == "int8" and tensor.shape != ()


def _any(tensor: Tensor) -> Bounds:
    channels = tensor.shape[-1]
    return Bounds(np.full(channels, INT8_MIN, np.int64), np.full(channels, INT8_MAX, np.int64))


def _constant(tensor: Tensor) -> Bounds | None:
    if tensor.data is None or tensor.dtype != "int8":
        return None
    channels = tensor.data.reshape(-1, *(tensor.shape[-1:] or (1,))).astype(np.int64)
    return Bounds(channels.min(0), channels.max(0))


def _suffices(mask: np.ndarray, multiple: int) -> bool:
    return bool(mask.all() or (mask.any() and (len(mask) < 4 * multiple or mask.sum() % multiple == 0)))


@dataclass(frozen=True)
class _Reader:
    """A layer that mixes the channels of `x` into those of `y` by filters (Cout, taps, Cin).

    foldable (Cin,): the channels that are constant and add the same at every position.
    """

    x: Tensor
    y: Tensor
    filters: np.ndarray
    foldable: np.ndarray


class _Fates:
    """Which channels go. Those that only go together are one group; a group is named by its smallest member."""

    def __init__(self, graph: Graph, bounds: dict[int, Bounds]):
        self.bounds = bounds
        self.tensors = {id(t): t for t in graph.tensors() if id(t) in bounds}
        self.first: dict[int, int] = {}
        count = 0
        for key, tensor in self.tensors.items():
            self.first[key] = count
            count += tensor.shape[-1]
        self.parent = list(range(count))
        self.readers: list[_Reader] = []
        stay = [*graph.inputs, *graph.outputs]
        for op in graph.operations:
            stay += self._tie(op)
        self.group = np.array([self._find(member) for member in range(count)], np.int64)
        self.pinned = np.zeros(count, bool)
        for tensor in stay:
            if id(tensor) in self.tensors:
                self.pinned[self._groups(tensor)] = True

    def kept(self, multiple: int) -> dict[int, np.ndarray]:
        """By the tensor's id, which channels stay, bool (C,): all of a tensor, or a `multiple`, at least one."""
        while True:
            gone = self._gone()
            kept = {key: ~gone[self._groups(tensor)] for key, tensor in self.tensors.items()}
            lacking = next((key for key, mask in kept.items() if not _suffices(mask, multiple)), None)
            if lacking is None:
                return kept
            left_out = np.flatnonzero(~kept[lacking])
            constant = self.bounds[lacking].constant[left_out]  # those first: what they read may be gone as well
            back = left_out[np.argsort(~constant, kind="stable")][0]
            self.pinned[self._groups(self.tensors[lacking])[back]] = True

    def _gone(self) -> np.ndarray:
        """bool, of each group: constant or without weight for all that stays. Grows from none until nothing changes."""
        gone = np.zeros(len(self.parent), bool)
        while True:
            stays = self.pinned.copy()
            for reader in self.readers:
                read = reader.filters[~gone[self._groups(reader.y)]].any((0, 1))
                stays[self._groups(reader.x)[read & ~reader.foldable]] = True
            if (stays == ~gone).all():
                return gone
            gone = ~stays

    def _tie(self, op: Operation) -> list[Tensor]:
        """Join the channels that `op` makes of each other; the tensors of which it needs all."""
        filters, x = mixing_filters(op), op.inputs.get("input")
        if filters is not None and x is not None and id(x) in self.tensors:
            known = self.bounds[id(x)]
            foldable = known.constant & (not has_padding(op) or (known.low == x.zero_point))
            self.readers.append(_Reader(x, op.output, filters, foldable))
            return []
        sources = op.op.channel_sources(op)
        if sources is None or id(op.output) not in self.tensors or len(op.outputs) > 1:
            return [*op.inputs.values(), *op.outputs.values()]
        for name, channels in sources.items():
            if id(op.inputs[name]) in self.tensors:
                for output_channel, channel in enumerate(channels):
                    if channel >= 0:
                        self._join(op.output, output_channel, op.inputs[name], int(channel))
        return [tensor for name, tensor in op.inputs.items() if name not in sources]

    def _groups(self, tensor: Tensor) -> np.ndarray:
        first = self.first[id(tensor)]
        return self.group[first : first + tensor.shape[-1]]

    def _find(self, member: int) -> int:
        while self.parent[member] != member:
            self.parent[member] = self.parent[self.parent[member]]
            member = self.parent[member]
        return member

    def _join(self, a: Tensor, channel_a: int, b: Tensor, channel_b: int) -> None:
        one, other = self._find(self.first[id(a)] + channel_a), self._find(self.first[id(b)] + channel_b)
        self.parent[max(one, other)] = min(one, other)


class _Narrowing:
    """Writes the graph anew with the channels that are kept."""

    def __init__(self, given: Graph, bounds: dict[int, Bounds], kept: dict[int, np.ndarray]):
        self.given, self.bounds, self.kept = given, bounds, kept
        self.readers = Counter(id(t) for op in given.operations for t in op.inputs.values())
        self.tensors = {id(t): self._activation(t) for t in given.tensors() if id(t) in kept}

    def graph(self) -> Graph:
        """The narrowed graph."""
        operations = [self._operation(op) for op in self.given.operations]
        return Graph(self.given.name, self.given.inputs, self.given.outputs, operations)

    def _activation(self, tensor: Tensor) -> Tensor:
        mask, known = self.kept[id(tensor)], self.bounds[id(tensor)]
        if mask.all():
            return tensor
        constant = {int(c): int(known.low[c]) for c in np.flatnonzero(~mask & known.constant)}
        shape = (*tensor.shape[:-1], int(mask.sum()))
        return replace(tensor, shape=shape, narrowed=Narrowed(tensor, np.flatnonzero(mask), constant))

    def _operation(self, op: Operation) -> Operation:
        inputs = {name: self.tensors.get(id(t), t) for name, t in op.inputs.items()}
        outputs = {name: self.tensors.get(id(t), t) for name, t in op.outputs.items()}
        if inputs == op.inputs and outputs == op.outputs:
            return op
        filters = mixing_filters(op)
        weights = self._channelwise(op) if filters is None else self._mixing(op, filters)
        attributes = dict(op.attributes)
        if "window" in attributes:
            channels = {"input_c": inputs["input"].shape[-1], "output_c": outputs["output"].shape[-1]}
            attributes["window"] = replace(attributes["window"], **channels)
        for name in ("shape", "output_shape"):
            if name in attributes:
                attributes[name] = outputs["output"].shape
        return replace(op, inputs=inputs | weights, outputs=outputs, attributes=attributes)

    def _channelwise(self, op: Operation) -> dict[str, Tensor]:
        """The constant operands, without the channels that the output has lost."""
        sources, mask = op.op.channel_sources(op), self.kept[id(op.output)]
        assert sources is not None
        weights = {}
        for name, channels in sources.items():
            tensor, read = op.inputs[name], np.unique(channels[mask & (channels >= 0)])
            if tensor.data is not None and len(read) < tensor.shape[-1]:
                weights[name] = self._weight(op, name, tensor.data[..., read], read)
        return weights

    def _mixing(self, op: Operation, filters: np.ndarray) -> dict[str, Tensor]:
        """Filter and bias of the channels that are kept; what constant ones add is in the bias, which still fits."""
        x, rows = op.inputs["input"], np.flatnonzero(self.kept[id(op.output)])
        columns = self.kept[id(x)]
        shape = op.inputs["filter"].shape
        width = shape[-1] // len(columns) * int(columns.sum())
        data = filters[rows][:, :, columns].reshape(len(rows), *shape[1:-1], width)
        added = filters[rows][:, :, ~columns].astype(np.int64).sum(1) @ (
            self.bounds[id(x)].low[~columns] - x.zero_point
        )
        weights = {"filter": self._weight(op, "filter", data, rows)}
        bias = op.inputs.get("bias")
        if bias is not None or added.any():
            values = added + (0 if bias is None or bias.data is None else bias.data[rows].astype(np.int64))
            weights["bias"] = self._weight(op, "bias", values.astype(np.int32), rows)
        return weights

    def _weight(self, op: Operation, operand: str, data: np.ndarray, channels: np.ndarray) -> Tensor:
        """A constant operand that holds `data` instead, of these of its output channels."""
        tensor = op.inputs.get(operand)
        if tensor is None:
            return Tensor(f"{op.name}_{operand}", data.shape, str(data.dtype), Purpose.FROZEN_WEIGHT, data=data)
        name = tensor.name if self.readers[id(tensor)] == 1 else f"{op.name}_{operand}"
        scale = tensor.scale if tensor.scale is None or len(tensor.scale) == 1 else tensor.scale[channels]
        return replace(tensor, name=name, shape=data.shape, data=np.ascontiguousarray(data), scale=scale, source=-1)

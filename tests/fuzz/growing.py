"""A graph that grows layer by layer by random choices; `graph_layers` has the layers."""

from __future__ import annotations

from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from choices import Choices
from random_operators import shaped
from tflite_builder import Node, build_model, fully_connected, int8_tensor, int32_constant

from tinypeft.ir import Tensor

#: The most elements that a tensor may have
LARGEST = 4000
#: LiteRT's SOFTMAX aborts where exponentials sum to 512 or more.
SOFTMAX_WIDTH = 511


class Grower:
    """Nodes so far and the tensors that layers may read. Tensors are named by their number."""

    def __init__(self, choices: Choices, shape: tuple[int, ...]):
        self.choices = choices
        self.rng = choices.generator()
        self.nodes: list[Node] = []
        self.tensors: list[Tensor] = []
        self.tensor("x", shape, *self.quantisation())

    # Tensors

    def tensor(self, name: str, shape: Any, scale: Any, zero_point: int) -> Tensor:
        """A new activation."""
        made = int8_tensor(f"{name}_{len(self.tensors)}", [int(n) for n in shape], scale, zero_point)
        self.tensors.append(made)
        return made

    def like(self, name: str, x: Tensor, shape: Any) -> Tensor:
        """A new activation in the quantisation of `x`."""
        return self.tensor(name, shape, x.scale, x.zero_point)

    def constant(self, values: Any) -> Tensor:
        """An int32 constant."""
        return int32_constant(f"constant_{len(self.nodes)}_{len(self.tensors)}", values)

    def pick(self) -> Tensor:
        """A tensor to read: the last, or one before it."""
        number = self.choices.integer(0, min(len(self.tensors), 6) - 1) if self.choices.chance(35) else 0
        return self.tensors[-1 - number]

    def unread(self) -> list[Tensor]:
        """The tensors that nothing reads, in order."""
        read = {id(t) for node in self.nodes for t in node.inputs}
        return [t for t in self.tensors if id(t) not in read]

    def add(self, node: Node) -> Tensor:
        """A node; returns its first output."""
        self.nodes.append(node)
        return node.outputs[0]

    def build(self) -> bytes:
        """The file."""
        return build_model(*self.nodes)

    # Quantisation

    def quantisation(self, near: Tensor | None = None) -> tuple[float, int]:
        """(scale, zero point): near those of a tensor, or any; powers of two and the extreme zero points at times."""
        style = self.choices.integer(0, 9)
        zero_point = int(self.choices.choose([0, -128, 127])) if style >= 8 else self.choices.integer(-110, 110)
        if near is not None and near.scale is not None and style < 9:
            return float(near.scale[0]) * float(np.exp(self.choices.real(-1, 1))), zero_point
        if style == 3:
            return 2.0 ** -self.choices.integer(0, 9), zero_point
        return float(np.exp(self.choices.real(-6, 0))), zero_point

    def requantised(self, x: Tensor) -> Tensor:
        """QUANTIZE to another scale."""
        return self.as_quantised(x, *self.quantisation(x))

    def as_quantised(self, x: Tensor, scale: float, zero_point: int) -> Tensor:
        """`x` in this quantisation, by a QUANTIZE where it is another."""
        assert x.scale is not None
        if x.scale[0] == np.float32(scale) and x.zero_point == zero_point:
            return x
        y = self.tensor("requantised", x.shape, scale, zero_point)
        return self.add(Node("QUANTIZE", schema.QuantizeOptionsT(), [x], [y]))

    # Layers that others are made of

    def view(self, x: Tensor, shape: Any) -> Tensor:
        """RESHAPE."""
        return x if tuple(shape) == x.shape else self.add(shaped(x, self.like("view", x, shape)))

    def flat(self, x: Tensor) -> Tensor:
        """`x` as (1, elements)."""
        return self.view(x, (1, x.size))

    def concatenated(self, pieces: list[Tensor], axis: int) -> Tensor:
        """CONCATENATION of pieces of one quantisation."""
        shape = list(pieces[0].shape)
        shape[axis] = sum(piece.shape[axis] for piece in pieces)
        y = self.like("joined", pieces[0], shape)
        return self.add(Node("CONCATENATION", schema.ConcatenationOptionsT(axis=axis), pieces, [y]))

    def mean(self, x: Tensor, axes: list[int]) -> Tensor:
        """MEAN, its axes dropped."""
        shape = [n for axis, n in enumerate(x.shape) if axis not in axes]
        y = self.tensor("mean", shape, *self.quantisation(x))
        return self.add(Node("MEAN", schema.ReducerOptionsT(keepDims=False), [x, self.constant(axes)], [y]))

    def softmax(self, x: Tensor) -> Tensor:
        """SOFTMAX."""
        y = self.tensor("softmax", x.shape, 1 / 256, -128)
        return self.add(Node("SOFTMAX", schema.SoftmaxOptionsT(beta=1.0), [x], [y]))

    def dense(self, x: Tensor, units: int, activation: int | None = None) -> Tensor:
        """FULLY_CONNECTED, per channel or per tensor."""
        keep = len(x.shape) > 2
        weights, scales, scale, zero_point = self.weights(x, (units, x.shape[-1]), units, 0, self.choices.chance(60))
        y = self.tensor("dense", (*x.shape[:-1], units), scale, zero_point)
        options = {"keepNumDims": keep, "fusedActivationFunction": self.activation(activation)}
        bias = self.bias(x, scales, units) if self.choices.chance(70) else None
        return self.add(fully_connected(x, weights, bias, y, **options))

    # Weights

    def activation(self, given: int | None = None) -> int:
        """None, ReLU, ReLU of -1 to 1, ReLU6."""
        return int(self.choices.choose([0, 0, 0, 1, 1, 3, 2])) if given is None else given

    def weights(
        self, x: Tensor, shape: tuple[int, ...], channels: int, axis: int, per_channel: bool = True
    ) -> tuple[Tensor, np.ndarray, float, int]:
        """(filters, their scales, the output's scale, its zero point); saturating by far now and then."""
        assert x.scale is not None
        style = self.choices.integer(0, 9)
        values = self.rng.integers(-127, 128, shape).astype(np.int8)
        if style == 8:
            values = self.rng.choice(np.array([-127, 127], np.int8), shape)
        elif style == 9:
            values = (values * (self.rng.random(shape) < 0.15)).astype(np.int8)
        spread = 3.0 if self.choices.chance(25) else 0.5
        scales = np.exp(self.rng.uniform(-spread, spread, channels if per_channel else 1) - 5).astype(np.float32)
        fan_in = max(1, values.size // channels)
        scale = float(x.scale[0] * scales.mean() * np.sqrt(fan_in) * 130)
        extreme = self.choices.integer(0, 19)
        scale *= 2.0 ** -self.choices.integer(2, 9) if extreme == 19 else 30.0 if extreme == 18 else 1.0
        zero_point = int(self.choices.choose([0, -128, 127])) if style in (7, 8) else self.choices.integer(-90, 90)
        return int8_tensor(f"weights_{len(self.nodes)}", shape, scales, 0, values), scales, max(scale, 1e-6), zero_point

    def bias(self, x: Tensor, scales: np.ndarray, channels: int) -> Tensor:
        """A bias, small or large."""
        assert x.scale is not None
        reach = self.choices.choose([1000, 1, 100000])
        values = self.rng.integers(-reach, reach + 1, channels)
        return int32_constant(f"bias_{len(self.nodes)}", values, x.scale[0] * scales)

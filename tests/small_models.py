"""Small int8 .tflite models with random weights, by name, and samples for them: MODELS["residual"]() are its bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from tflite_builder import (
    Node,
    build_model,
    conv_2d,
    depthwise_conv_2d,
    float_tensor,
    fully_connected,
    int8_tensor,
    int32_constant,
    transpose_conv,
)

from tinypeft.data import Dataset
from tinypeft.frontend import LoadedModel, load_tflite
from tinypeft.ir import Tensor

SAME, VALID = 0, 1
#: A bias that takes any accumulator to its limit
CLAMPED = 4_000_000
RELU = 1

MODELS: dict[str, Callable[[], bytes]] = {}


class Net:
    """Grows a model layer by layer; each method returns the layer's output. Layers are called as given."""

    def __init__(self, shape: tuple[int, ...], seed: int, *, float_input: bool = False, dense_bias: bool = True):
        self.dense_bias = dense_bias
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Node] = []
        self.last = float_tensor("x", shape) if float_input else int8_tensor("x", shape, 0.02, -5)

    def _append(self, node: Node) -> Tensor:
        self.nodes.append(node)
        self.last = node.outputs[0]
        return self.last

    def _weights(
        self, x: Tensor, shape: tuple[int, ...], channels: int, fan_in: int
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Values, scales a channel, and the output's scale that spreads the results over int8."""
        assert x.scale is not None
        scales = self.rng.uniform(0.002, 0.008, channels).astype(np.float32)
        values = self.rng.integers(-127, 128, shape).astype(np.int8)
        return values, scales, float(x.scale[0] * scales.mean() * np.sqrt(fan_in) * 50 * 70 / 45)

    def conv(
        self,
        name: str,
        channels: int,
        kernel: int = 3,
        stride: int = 1,
        padding: int = SAME,
        relu: bool = True,
        groups: int = 1,
        dilation: int = 1,
    ) -> Tensor:
        """CONV_2D."""
        x = self.last
        _, h, w, c = x.shape
        shape = (channels, kernel, kernel, c // groups)
        values, scales, out_scale = self._weights(x, shape, channels, kernel * kernel * c // groups)
        reach = (kernel - 1) * dilation + 1
        out = _extent(h, reach, stride, padding), _extent(w, reach, stride, padding)
        y = int8_tensor(f"m/{name}/Conv2D", (1, *out, channels), out_scale, -128 if relu else 3)
        options = {"strideH": stride, "strideW": stride, "padding": padding, "fusedActivationFunction": RELU * relu}
        options |= {"dilationHFactor": dilation, "dilationWFactor": dilation}
        filters = int8_tensor(f"m/{name}/Conv2D_k", shape, scales, 0, values)
        return self._append(conv_2d(x, filters, self._bias(name, channels, x, scales), y, **options))

    def transposed(self, name: str, channels: int, kernel: int = 3, stride: int = 2) -> Tensor:
        """TRANSPOSE_CONV with padding SAME."""
        x = self.last
        _, h, w, c = x.shape
        shape = (channels, kernel, kernel, c)
        values, scales, out_scale = self._weights(x, shape, channels, kernel * kernel * c // stride**2)
        y = int8_tensor(f"m/{name}/conv2d_transpose", (1, h * stride, w * stride, channels), out_scale, 3)
        filters = int8_tensor(f"m/{name}/conv2d_transpose_k", shape, scales, 0, values)
        bias = self._bias(name, channels, x, scales)
        return self._append(transpose_conv(x, filters, bias, y, strideH=stride, strideW=stride, padding=SAME))

    def reduce(self, name: str, kind: str, axes: list[int]) -> Tensor:
        """A reduction that keeps the scale and drops the axes."""
        x = self.last
        out = [n for axis, n in enumerate(x.shape) if axis not in axes]
        y = int8_tensor(f"m/{name}/{kind}", out, x.scale, x.zero_point)
        return self._append(
            Node(kind, schema.ReducerOptionsT(keepDims=False), [x, int32_constant(f"m/{name}/axes", axes)], [y])
        )

    def depthwise(self, name: str, kernel: int = 3, stride: int = 1) -> Tensor:
        """DEPTHWISE_CONV_2D with a ReLU."""
        x = self.last
        _, h, w, c = x.shape
        shape = (1, kernel, kernel, c)
        values, scales, out_scale = self._weights(x, shape, c, kernel * kernel)
        y = int8_tensor(f"m/{name}/depthwise", (1, -(-h // stride), -(-w // stride), c), out_scale, -128)
        options = {
            "strideH": stride,
            "strideW": stride,
            "padding": SAME,
            "depthMultiplier": 1,
            "fusedActivationFunction": RELU,
        }
        filters = int8_tensor(f"m/{name}/depthwise_k", shape, scales, 0, values)
        return self._append(depthwise_conv_2d(x, filters, self._bias(name, c, x, scales), y, **options))

    def dense(self, name: str, units: int, relu: bool = False) -> Tensor:
        """FULLY_CONNECTED, one scale a channel."""
        x = self.last
        fan_in = x.shape[-1]
        values, scales, out_scale = self._weights(x, (units, fan_in), units, fan_in)
        y = int8_tensor(f"m/{name}/MatMul", (1, units), out_scale, -128 if relu else 7)
        weights = int8_tensor(f"m/{name}/MatMul_k", (units, fan_in), scales, 0, values)
        bias = self._bias(name, units, x, scales) if self.dense_bias else None
        return self._append(fully_connected(x, weights, bias, y, fusedActivationFunction=RELU * relu))

    def _bias(self, name: str, channels: int, x: Tensor, scales: np.ndarray) -> Tensor:
        assert x.scale is not None
        return int32_constant(f"m/{name}/bias", self.rng.integers(-2000, 2000, channels), x.scale[0] * scales)

    def add(self, name: str, other: Tensor) -> Tensor:
        """ADD of the last output and `other`, with a ReLU."""
        x = self.last
        assert x.scale is not None and other.scale is not None
        y = int8_tensor(f"m/{name}/add", x.shape, float(max(x.scale[0], other.scale[0])) * 1.2, -128)
        return self._append(Node("ADD", schema.AddOptionsT(fusedActivationFunction=RELU), [x, other], [y]))

    def pool(self, name: str, kind: str = "MAX_POOL_2D", kernel: int = 2) -> Tensor:
        """MAX_POOL_2D or AVERAGE_POOL_2D, stride as the kernel."""
        x = self.last
        _, h, w, c = x.shape
        options = schema.Pool2DOptionsT(
            padding=VALID, strideH=kernel, strideW=kernel, filterHeight=kernel, filterWidth=kernel
        )
        y = int8_tensor(f"m/{name}/MaxPool", (1, h // kernel, w // kernel, c), x.scale, x.zero_point)
        return self._append(Node(kind, options, [x], [y]))

    def mean(self, name: str) -> Tensor:
        """MEAN over height and width, (1,C)."""
        x = self.last
        assert x.scale is not None
        y = int8_tensor(f"m/{name}/Mean", (1, x.shape[3]), float(x.scale[0]) * 0.6, -100)
        axes = int32_constant(f"m/{name}/axes", [1, 2])
        return self._append(Node("MEAN", schema.ReducerOptionsT(keepDims=False), [x, axes], [y]))

    def pad(self, name: str) -> Tensor:
        """PAD by one row and column behind."""
        x = self.last
        _, h, w, c = x.shape
        y = int8_tensor(f"m/{name}/Pad", (1, h + 1, w + 1, c), x.scale, x.zero_point)
        amounts = int32_constant(f"m/{name}/paddings", [[0, 0], [0, 1], [0, 1], [0, 0]])
        return self._append(Node("PAD", schema.PadOptionsT(), [x, amounts], [y]))

    def reshape(self, name: str, shape: tuple[int, ...] | None = None) -> Tensor:
        """RESHAPE, to a vector unless told."""
        x = self.last
        new = shape or (1, x.size)
        y = int8_tensor(f"m/{name}/Reshape", new, x.scale, x.zero_point)
        constant = int32_constant(f"m/{name}/shape", new)
        return self._append(Node("RESHAPE", schema.ReshapeOptionsT(newShape=list(new)), [x, constant], [y]))

    def move(self, name: str, kind: str, options: Any, shape: tuple[int, ...], *operands: Tensor) -> Tensor:
        """An operator that moves data: one output of `shape`, of the input's quantisation."""
        y = int8_tensor(f"m/{name}/{kind}", shape, self.last.scale, self.last.zero_point)
        return self._append(Node(kind, options, [self.last, *operands], [y]))

    def split(self, name: str, parts: int) -> list[Tensor]:
        """SPLIT of the channels."""
        x = self.last
        shape = (*x.shape[:-1], x.shape[-1] // parts)
        outputs = [int8_tensor(f"m/{name}/split_{i}", shape, x.scale, x.zero_point) for i in range(parts)]
        axis = int32_constant(f"m/{name}/axis", 3)
        self._append(Node("SPLIT", schema.SplitOptionsT(numSplits=parts), [axis, x], outputs))
        return outputs

    def join(self, name: str, axis: int, *pieces: Tensor) -> Tensor:
        """CONCATENATION of pieces that a QUANTIZE each brings to the last one's scale."""
        last = pieces[-1]
        inputs = []
        for i, piece in enumerate(pieces):
            inputs.append(piece)
            if piece is not last:
                inputs[-1] = int8_tensor(f"m/{name}/piece_{i}", piece.shape, last.scale, last.zero_point)
                self.nodes.append(Node("QUANTIZE", schema.QuantizeOptionsT(), [piece], [inputs[-1]]))
        shape = list(last.shape)
        shape[axis] = sum(piece.shape[axis] for piece in pieces)
        y = int8_tensor(f"m/{name}/concat", shape, last.scale, last.zero_point)
        return self._append(Node("CONCATENATION", schema.ConcatenationOptionsT(axis=axis), inputs, [y]))

    def function(self, name: str, kind: str, scale: float, zero_point: int = -20, options: Any = None) -> Tensor:
        """A function of one tensor, with the scale and zero point of its output."""
        y = int8_tensor(f"m/{name}/{kind}", self.last.shape, scale, zero_point)
        return self._append(Node(kind, options, [self.last], [y]))

    def merge(self, name: str, kind: str, other: Tensor, scale: float, zero_point: int = -20) -> Tensor:
        """An operator of the last output and `other`, with the scale and zero point of its output."""
        shape = np.broadcast_shapes(self.last.shape, other.shape)
        y = int8_tensor(f"m/{name}/{kind}", shape, scale, zero_point)
        return self._append(Node(kind, None, [self.last, other], [y]))

    def softmax(self, name: str) -> Tensor:
        """SOFTMAX."""
        y = int8_tensor(f"m/{name}/Softmax", self.last.shape, 1 / 256, -128)
        return self._append(Node("SOFTMAX", schema.SoftmaxOptionsT(beta=1.0), [self.last], [y]))

    def quantize(self) -> Tensor:
        """QUANTIZE of a float32 input."""
        y = int8_tensor("quantized", self.last.shape, 0.02, -5)
        return self._append(Node("QUANTIZE", schema.QuantizeOptionsT(), [self.last], [y]))

    def dequantize(self) -> Tensor:
        """DEQUANTIZE to a float32 output."""
        return self._append(
            Node("DEQUANTIZE", schema.DequantizeOptionsT(), [self.last], [float_tensor("y", self.last.shape)])
        )

    def fix(self, channels: list[int], value: int = -CLAMPED) -> None:
        """Have `channels` of the last layer give one value: by its clamp, or of no weight and the bias `value`."""
        _, filters, bias = self.nodes[-1].inputs
        assert filters is not None and filters.data is not None and bias is not None and bias.data is not None
        bias.data[channels] = value
        if abs(value) < CLAMPED:
            filters.data[(0, 0, 0, channels) if self.nodes[-1].kind == "DEPTHWISE_CONV_2D" else channels] = 0

    def ignore(self, channels: list[int]) -> None:
        """Have the last layer, no depthwise one, give `channels` of its input no weight."""
        filters = self.nodes[-1].inputs[1]
        assert filters is not None and filters.data is not None
        filters.data[..., channels] = 0

    def build(self) -> bytes:
        """The .tflite file."""
        return build_model(*self.nodes)


def _extent(size: int, kernel: int, stride: int, padding: int) -> int:
    return -(-size // stride) if padding == SAME else (size - kernel) // stride + 1


def model(make: Callable[[], bytes]) -> Callable[[], bytes]:
    """Decorator: put the function into MODELS under its name."""
    MODELS[make.__name__] = make
    return make


@model
def plain() -> bytes:
    """Conv, depthwise, pointwise, mean, dense."""
    net = Net((1, 8, 7, 2), 1)
    net.conv("stem", 6, stride=2)
    net.depthwise("dw")
    net.conv("pointwise", 8, kernel=1)
    net.mean("pool")
    net.dense("head", 5)
    return net.build()


@model
def residual() -> bytes:
    """Two branches that meet in an ADD, max pool, pad, reshape."""
    net = Net((1, 6, 6, 3), 2)
    entry = net.conv("stem", 6)
    net.conv("branch_a", 6)
    net.conv("branch_b", 6, relu=False)
    joined = net.add("join", entry)
    net.conv("again", 6, relu=False)
    net.add("join_again", joined)
    net.pad("pad")
    net.conv("down", 8, stride=2, padding=VALID)
    net.pool("pool")
    net.reshape("flat")
    net.dense("head", 4)
    return net.build()


@model
def softmax_end() -> bytes:
    """Average pooling, a hidden dense layer, and a SOFTMAX behind the classifier."""
    net = Net((1, 6, 5, 2), 3)
    net.conv("stem", 5, padding=VALID)
    net.pool("pool", "AVERAGE_POOL_2D")
    net.reshape("flat")
    net.dense("hidden", 9, relu=True)
    net.dense("head", 3)
    net.softmax("softmax")
    return net.build()


@model
def mlp() -> bytes:
    """Dense layers alone."""
    net = Net((1, 20), 4)
    net.dense("first", 16, relu=True)
    net.dense("second", 12, relu=True)
    net.dense("head", 6)
    return net.build()


@model
def float_edges() -> bytes:
    """float32 in and out: QUANTIZE and DEQUANTIZE at the edges."""
    net = Net((1, 5, 5, 2), 5, float_input=True)
    net.quantize()
    net.conv("stem", 6, stride=2)
    net.mean("pool")
    net.dense("head", 4)
    net.dequantize()
    return net.build()


@model
def conv_mean() -> bytes:
    """A fully convolutional classifier: its logits are a MEAN."""
    net = Net((1, 6, 6, 2), 6)
    net.conv("stem", 6)
    net.conv("classes", 4, kernel=1, relu=False)
    net.mean("pool")
    return net.build()


@model
def dense_reshape() -> bytes:
    """A RESHAPE behind the classifier, and one of the input in front."""
    net = Net((1, 3, 4, 2), 7)
    net.reshape("flat")
    net.dense("hidden", 10, relu=True)
    net.dense("head", 4)
    net.reshape("last", (1, 4))
    return net.build()


@model
def no_bias() -> bytes:
    """A classifier without a bias, as the converter leaves it where that is zero."""
    net = Net((1, 5, 5, 3), 8, dense_bias=False)
    net.conv("stem", 5)
    net.depthwise("dw")
    net.mean("pool")
    net.dense("head", 4)
    return net.build()


@model
def forms() -> bytes:
    """Convolutions in groups, dilated and transposed, and reductions over single axes."""
    net = Net((1, 6, 6, 4), 9)
    net.conv("stem", 6, groups=2)
    net.conv("dilated", 6, dilation=2, relu=False)
    net.transposed("transposed", 4)
    net.conv("grouped", 8, stride=2, groups=4, relu=False)
    net.reduce("highest", "REDUCE_MAX", [1])
    net.reduce("mean", "MEAN", [1])
    net.dense("head", 4)
    return net.build()


@model
def reductions() -> bytes:
    """A mean over channels and a minimum over rows, as a sequence would have them."""
    net = Net((1, 5, 6, 3), 10)
    net.conv("stem", 7, relu=False)
    net.reduce("channels", "MEAN", [3])
    net.reduce("lowest", "REDUCE_MIN", [2])
    net.dense("head", 3)
    return net.build()


@model
def layout() -> bytes:
    """Branches of parts of a tensor that are resized, joined, transposed, mirrored, sliced and rearranged."""
    net = Net((1, 6, 6, 3), 11)
    net.conv("stem", 6)
    net.last, right = net.split("parts", 2)
    net.conv("left", 4, stride=2)
    smooth = schema.ResizeBilinearOptionsT(halfPixelCenters=True)
    larger = net.move("larger", "RESIZE_BILINEAR", smooth, (1, 6, 6, 4), int32_constant("larger_size", [6, 6]))
    net.last = right
    both = net.join("wide", 3, larger, net.conv("right", 4, kernel=1, relu=False))
    net.move("turn", "TRANSPOSE", schema.TransposeOptionsT(), (1, 8, 6, 6), int32_constant("order", [0, 3, 1, 2]))
    net.conv("mixed", 8, relu=False)
    frame = int32_constant("frame", [[0, 0], [1, 0], [0, 1], [0, 0]])
    net.move("mirror", "MIRROR_PAD", schema.MirrorPadOptionsT(mode=0), (1, 9, 7, 8), frame)
    corners = [int32_constant(n, v) for n, v in (("b", [0, 8, 1, 0]), ("e", [0, 2, 7, 0]), ("s", [1, -1, 1, 1]))]
    net.move("part", "STRIDED_SLICE", schema.StridedSliceOptionsT(beginMask=9, endMask=9), (1, 6, 6, 8), *corners)
    net.join("long", 1, both, net.last)
    net.move("deep", "SPACE_TO_DEPTH", schema.SpaceToDepthOptionsT(2), (1, 6, 3, 32))
    nearest = schema.ResizeNearestNeighborOptionsT()
    net.move("double", "RESIZE_NEAREST_NEIGHBOR", nearest, (1, 6, 6, 32), int32_constant("double_size", [6, 6]))
    net.conv("down", 6, stride=2)
    net.mean("pool")
    net.dense("head", 4)
    return net.build()


@model
def autoencoder() -> bytes:
    """As many outputs as inputs, through a narrow middle."""
    net = Net((1, 12), 16)
    net.dense("encoder", 9, relu=True)
    net.dense("middle", 5)
    net.dense("decoder", 12)
    return net.build()


@model
def gated() -> bytes:
    """Squeeze and excite, slopes and constants a channel, a gate a position, the larger and the smaller of branches."""
    net = Net((1, 6, 5, 3), 12)
    stem = net.conv("stem", 6, relu=False)
    assert stem.scale is not None
    scale = float(stem.scale[0])
    slopes = int8_tensor("slopes", (1, 1, 6), 0.004, 3, [[[-100, -20, 10, 50, 90, 127]]])
    body = net.merge("slope", "PRELU", slopes, scale, -60)
    net.mean("squeeze")
    net.dense("less", 3, relu=True)
    net.dense("more", 6)
    net.function("gate", "LOGISTIC", 1 / 256, -128)
    gate = net.reshape("gate_shape", (1, 1, 1, 6))
    net.last = body
    excited = net.merge("excite", "MUL", gate, scale * 0.8)
    net.merge("centre", "SUB", int8_tensor("centres", (6,), 0.02, 3, [-90, 30, 60, -5, 100, 0]), scale)
    attention = net.conv("attention", 1, kernel=1, relu=False)
    assert attention.scale is not None
    net.function("swish", "HARD_SWISH", float(attention.scale[0]))
    net.function("squash", "TANH", 1 / 128, 0)
    positions = net.last
    net.last = excited
    attended = net.merge("attend", "MUL", positions, scale * 0.7)
    net.merge("ceiling", "MINIMUM", int8_tensor("c", (), attended.scale, attended.zero_point, 20), scale * 0.7)
    net.merge("either", "MAXIMUM", attended, scale * 0.7)
    net.merge("again", "ADD", gate, scale)
    net.function("leak", "LEAKY_RELU", scale, -60, schema.LeakyReluOptionsT(alpha=0.2))
    net.softmax("choice")
    net.mean("pool")
    net.dense("head", 4)
    return net.build()


@model
def normalised() -> bytes:
    """A normalisation over channels, as a converter expands it, between layers with a GELU and an ELU."""
    net = Net((1, 4, 5, 3), 13)
    x = net.conv("stem", 8, relu=False)
    assert x.scale is not None
    scale = float(x.scale[0])
    net.reduce("mean", "MEAN", [3])
    mean = net.reshape("means", (1, 4, 5, 1))
    net.last = x
    net.merge("deviation", "SQUARED_DIFFERENCE", mean, scale * scale * 40, -128)
    net.reduce("variance", "MEAN", [3])
    net.reshape("variances", (1, 4, 5, 1))
    net.merge("epsilon", "ADD", int8_tensor("e", (), scale * scale, 0, 40), scale * scale * 30, -128)
    inverse = net.function("inverse", "RSQRT", 0.008 / scale / 40, -128)
    net.last = x
    net.merge("centred", "SUB", mean, scale * 1.2)
    normal = net.merge("normal", "MUL", inverse, 0.02, 0)
    net.function("magnitude", "ABS", 0.02, -128)
    net.merge("both", "ADD", normal, 0.03, -20)
    net.function("gelu", "GELU", 0.03, -110, schema.GeluOptionsT(approximate=True))
    net.conv("pointwise", 6, kernel=1, relu=False)
    net.mean("pool")
    net.dense("head", 4)
    return net.build()


def learning_rate(name: str) -> float:
    """A rate at which MODELS[name] learns; the activations of `residual` and `forms` are large, gates small."""
    return {"residual": 0.002, "forms": 0.001, "gated": 0.5}.get(name, 0.05)


def binary_end() -> bytes:
    """A classifier of outputs that do not exclude each other: its end is a LOGISTIC, so that it is not retrained."""
    net = Net((1, 10), 14)
    net.dense("first", 8, relu=True)
    net.dense("head", 3)
    net.function("probability", "LOGISTIC", 1 / 256, -128)
    return net.build()


def constant() -> bytes:
    """Layers some of whose channels have one value whatever the input, and some of which nothing reads."""
    net = Net((1, 8, 7, 3), 15)
    net.conv("stem", 8)
    net.fix([1, 4])
    net.fix([6], 900)
    net.depthwise("dw")
    net.fix([2])
    entry = net.conv("entry", 6, kernel=1)
    net.fix([0, 5])
    net.conv("branch", 6, relu=False)
    net.fix([0], -700)
    net.add("join", entry)
    net.pool("pool")
    net.conv("down", 8, kernel=1)
    net.ignore([3])
    net.fix([2, 7])
    net.mean("mean")
    net.dense("hidden", 9, relu=True)
    net.fix([8])
    net.dense("head", 4)
    net.ignore([1])
    return net.build()


#: models that only some configurations can train, or that few tests need
SPECIAL: dict[str, Callable[[], bytes]] = {"binary_end": binary_end, "constant": constant}


def model_bytes(name: str) -> bytes:
    """The .tflite file of MODELS[name] or SPECIAL[name]."""
    return (MODELS | SPECIAL)[name]()


def load(name: str) -> LoadedModel:
    """The same as the compiler takes it."""
    return load_tflite(name, model_bytes(name), {})


def samples(source: LoadedModel, count: int, seed: int = 0) -> Dataset:
    """Random samples of the model's input, and labels."""
    rng = np.random.default_rng(seed)
    tensor = source.graph.inputs[0]
    shape = (count, *tensor.shape[1:])
    x = (
        rng.normal(0, 1, shape).astype(np.float32)
        if tensor.dtype == "float32"
        else rng.integers(-128, 128, shape, np.int8)
    )
    return Dataset(x, rng.integers(0, source.graph.outputs[0].shape[-1], count))

"""Small int8 .tflite models with random weights, by name, and samples for them: MODELS["residual"]() are its bytes."""

from __future__ import annotations

from collections.abc import Callable

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
)

from tinypeft.data import Dataset
from tinypeft.frontend import LoadedModel, load_tflite
from tinypeft.ir import Tensor

SAME, VALID = 0, 1
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
        self, name: str, channels: int, kernel: int = 3, stride: int = 1, padding: int = SAME, relu: bool = True
    ) -> Tensor:
        """CONV_2D."""
        x = self.last
        _, h, w, c = x.shape
        shape = (channels, kernel, kernel, c)
        values, scales, out_scale = self._weights(x, shape, channels, kernel * kernel * c)
        out = _extent(h, kernel, stride, padding), _extent(w, kernel, stride, padding)
        y = int8_tensor(f"m/{name}/Conv2D", (1, *out, channels), out_scale, -128 if relu else 3)
        options = {"strideH": stride, "strideW": stride, "padding": padding, "fusedActivationFunction": RELU * relu}
        filters = int8_tensor(f"m/{name}/Conv2D_k", shape, scales, 0, values)
        return self._append(conv_2d(x, filters, self._bias(name, channels, x, scales), y, **options))

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


def learning_rate(name: str) -> float:
    """A rate at which MODELS[name] learns; the activations of `residual` are large."""
    return 0.002 if name == "residual" else 0.05


def load(name: str) -> LoadedModel:
    """MODELS[name] as the compiler takes it."""
    return load_tflite(name, MODELS[name](), {})


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

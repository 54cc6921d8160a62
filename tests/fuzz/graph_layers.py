"""The layers of random graphs: each reads `x`, and others too; where `x` does not suit it, it does nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
from growing import LARGEST, SOFTMAX_WIDTH, Grower
from tflite_builder import Node, conv_2d, depthwise_conv_2d, int8_tensor, transpose_conv

from tinypeft.ir import Tensor

LAYERS: dict[str, Callable[[Grower, Tensor], Any]] = {}
#: How often layers are drawn, where not once
WEIGHTS = {
    "conv": 5,
    "depthwise": 3,
    "residual": 4,
    "arithmetic": 2,
    "concatenation": 3,
    "transposed": 2,
    "function": 2,
}
SAME = 0


def layer(make: Callable[[Grower, Tensor], Any]) -> Callable[[Grower, Tensor], Any]:
    LAYERS[make.__name__] = make
    return make


def _image(x: Tensor) -> bool:
    return len(x.shape) == 4 and x.shape[0] == 1


def _window(g: Grower, x: Tensor) -> tuple[tuple[int, int], dict[str, int], tuple[int, int]]:
    """(kernel, options, output size) of a convolution."""
    h, w = x.shape[1:3]
    kernel = tuple(g.choices.choose([1, 3, 2, 5]) for _ in range(2)) if g.choices.chance(40) else (3, 3)
    if g.choices.chance(25):
        kernel = (1, 1)
    stride = tuple(g.choices.integer(1, 3) for _ in range(2)) if g.choices.chance(35) else (1, 1)
    dilation = tuple(g.choices.integer(1, 3) for _ in range(2)) if g.choices.chance(20) else (1, 1)
    reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
    padding = g.choices.integer(0, 1) if reach[0] <= h and reach[1] <= w else SAME
    size = tuple(
        -(-n // s) if padding == SAME else (n - r) // s + 1 for n, s, r in zip((h, w), stride, reach, strict=True)
    )
    options = {
        "padding": padding, "strideH": stride[0], "strideW": stride[1],
        "dilationHFactor": dilation[0], "dilationWFactor": dilation[1], "fusedActivationFunction": g.activation(),
    }  # fmt: skip
    return kernel, options, size  # type: ignore[return-value]


@layer
def conv(g: Grower, x: Tensor) -> None:
    if not _image(x):
        return
    kernel, options, size = _window(g, x)
    channels, groups = g.choices.integer(1, 9), 1
    if x.shape[3] > 1 and g.choices.chance(20):
        groups = g.choices.choose([n for n in range(2, x.shape[3] + 1) if x.shape[3] % n == 0])
        channels = groups * g.choices.integer(1, 3)
    shape = (channels, *kernel, x.shape[3] // groups)
    filters, scales, scale, zero_point = g.weights(x, shape, channels, 0)
    y = g.tensor("conv", (1, *size, channels), scale, zero_point)
    g.add(conv_2d(x, filters, g.bias(x, scales, channels), y, **options))


@layer
def depthwise(g: Grower, x: Tensor) -> None:
    if not _image(x):
        return
    kernel, options, size = _window(g, x)
    multiplier = g.choices.choose([1, 1, 1, 2])
    channels = x.shape[3] * multiplier
    filters, scales, scale, zero_point = g.weights(x, (1, *kernel, channels), channels, 3)
    y = g.tensor("depthwise", (1, *size, channels), scale, zero_point)
    g.add(depthwise_conv_2d(x, filters, g.bias(x, scales, channels), y, depthMultiplier=multiplier, **options))


@layer
def transposed(g: Grower, x: Tensor) -> None:
    if not _image(x):
        return
    channels, stride = g.choices.integer(1, 6), tuple(g.choices.integer(1, 3) for _ in range(2))
    kernel = tuple(g.choices.integer(1, 4) for _ in range(2))
    padding = g.choices.integer(0, 1)
    size = tuple(
        n * s if padding == SAME else (n - 1) * s + k for n, k, s in zip(x.shape[1:3], kernel, stride, strict=True)
    )
    if channels * size[0] * size[1] > LARGEST:
        return
    filters, scales, scale, zero_point = g.weights(x, (channels, *kernel, x.shape[3]), channels, 0)
    y = g.tensor("transposed", (1, *size, channels), scale, zero_point)
    bias = g.bias(x, scales, channels)
    g.add(transpose_conv(x, filters, bias, y, padding=padding, strideH=stride[0], strideW=stride[1]))


@layer
def dense(g: Grower, x: Tensor) -> None:
    source = g.flat(x) if g.choices.chance(60) else x
    if len(source.shape) >= 2 and source.size // source.shape[-1] * 12 <= LARGEST:
        g.dense(source, g.choices.integer(1, 12))


@layer
def pool(g: Grower, x: Tensor) -> None:
    if not _image(x):
        return
    _, h, w, c = x.shape
    kernel = (h, w) if g.choices.chance(20) else (g.choices.integer(1, min(h, 4)), g.choices.integer(1, min(w, 4)))
    stride = g.choices.integer(1, 3), g.choices.integer(1, 3)
    padding = g.choices.integer(0, 1)
    size = tuple(
        -(-n // s) if padding == SAME else (n - k) // s + 1 for n, k, s in zip((h, w), kernel, stride, strict=True)
    )
    options = schema.Pool2DOptionsT(
        padding=padding, strideH=stride[0], strideW=stride[1], filterHeight=kernel[0], filterWidth=kernel[1],
        fusedActivationFunction=g.activation(),
    )  # fmt: skip
    kind = g.choices.choose(["MAX_POOL_2D", "AVERAGE_POOL_2D"])
    g.add(Node(kind, options, [x], [g.like("pool", x, (1, *size, c))]))


@layer
def reduction(g: Grower, x: Tensor) -> None:
    rank = len(x.shape)
    if rank < 2:
        return
    first = g.choices.integer(1, rank - 1)
    axes = list(range(first, g.choices.integer(first, rank - 1) + 1))
    keep = g.choices.chance(50)
    shape = [1 if i in axes else n for i, n in enumerate(x.shape) if keep or i not in axes]
    kind = g.choices.choose(["MEAN", "REDUCE_MAX", "REDUCE_MIN"])
    scale, zero_point = g.quantisation(x) if kind == "MEAN" else (x.scale, x.zero_point)
    y = g.tensor("reduced", shape, scale, zero_point)
    g.add(Node(kind, schema.ReducerOptionsT(keepDims=keep), [x, g.constant(axes)], [y]))


def _other(g: Grower, x: Tensor) -> Tensor:
    """A second operand: a tensor whose shape broadcasts, `x` itself or a constant."""
    if g.choices.chance(25):
        shape = tuple(n if g.choices.chance(60) else 1 for n in x.shape)[g.choices.integer(0, len(x.shape)) :]
        values = g.rng.integers(-128, 128, shape)
        return int8_tensor(f"operand_{len(g.nodes)}", shape, *g.quantisation(x), values)
    fitting = [t for t in g.tensors[::-1] if _broadcast(t.shape, x.shape) is not None]
    alike = [t for t in fitting if t is not x and t.shape == x.shape]
    return g.choices.choose(alike) if alike and g.choices.chance(60) else g.choices.choose(fitting)


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        shape = np.broadcast_shapes(a, b)
    except ValueError:
        return None
    return shape if int(np.prod(shape)) <= LARGEST else None


@layer
def arithmetic(g: Grower, x: Tensor) -> None:
    kind = g.choices.choose(["ADD", "SUB", "MUL", "SQUARED_DIFFERENCE"])
    other = _other(g, x)
    a, b = (x, other) if g.choices.chance(70) else (other, x)
    shape = _broadcast(a.shape, b.shape)
    assert shape is not None and a.scale is not None and b.scale is not None
    near = float(max(a.scale[0], b.scale[0])) * 1.3
    if kind == "MUL":
        near = float(a.scale[0] * b.scale[0]) * 60
    elif kind == "SQUARED_DIFFERENCE":
        near = near**2 * 60
    near = min(max(near * float(np.exp(g.choices.real(-0.5, 0.5))), 1e-5), 1e3)
    options = None
    if kind != "SQUARED_DIFFERENCE":
        options = getattr(schema, f"{kind.capitalize()}OptionsT")(fusedActivationFunction=g.activation())
    y = g.tensor(kind.lower(), shape, near, g.quantisation()[1])
    g.add(Node(kind, options, [a, b], [y]))


@layer
def residual(g: Grower, x: Tensor) -> None:
    """ADD of a tensor of the same shape, the shape that in-place addition is for."""
    alike = [t for t in g.tensors[::-1] if t.shape == x.shape]
    other = g.choices.choose(alike)
    assert x.scale is not None and other.scale is not None
    y = g.tensor("residual", x.shape, float(max(x.scale[0], other.scale[0])) * 1.4, g.quantisation()[1])
    g.add(Node("ADD", schema.AddOptionsT(fusedActivationFunction=g.activation()), [x, other], [y]))


@layer
def extremum(g: Grower, x: Tensor) -> None:
    other = _other(g, x)
    if other.data is not None:
        other.scale, other.zero_point = x.scale, x.zero_point
    else:
        assert x.scale is not None
        other = g.as_quantised(other, float(x.scale[0]), x.zero_point)
    shape = _broadcast(x.shape, other.shape)
    kind = g.choices.choose(["MAXIMUM", "MINIMUM"])
    g.add(Node(kind, schema.MaximumMinimumOptionsT(), [x, other], [g.like(kind.lower(), x, shape)]))


@layer
def concatenation(g: Grower, x: Tensor) -> None:
    rank = len(x.shape)
    axis = g.choices.integer(0, rank - 1) if g.choices.chance(30) else rank - 1
    if axis == 0 and rank > 1:
        axis = 1
    elsewhere = x.shape[:axis], x.shape[axis + 1 :]
    fitting = [
        t for t in g.tensors[::-1] if len(t.shape) == rank and (t.shape[:axis], t.shape[axis + 1 :]) == elsewhere
    ]
    pieces = [x, *(g.choices.choose(fitting) for _ in range(g.choices.integer(1, 3)))]
    if sum(t.size for t in pieces) > LARGEST:
        return
    assert x.scale is not None
    scale, zero_point = (float(x.scale[0]), x.zero_point) if g.choices.chance(60) else g.quantisation(x)
    g.concatenated([g.as_quantised(t, scale, zero_point) for t in pieces], axis)


@layer
def function(g: Grower, x: Tensor) -> None:
    """An activation function that is not fused."""
    assert x.scale is not None
    kind = g.choices.choose(
        ["RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "HARD_SWISH", "LOGISTIC", "TANH", "ABS", "GELU", "NEG"]
    )  # fmt: skip
    scale, zero_point = g.quantisation(x)
    options: Any = None
    if kind == "LEAKY_RELU":
        options = schema.LeakyReluOptionsT(alpha=g.choices.choose([0.1, 0.0, 0.3]))
    elif kind == "LOGISTIC":
        scale, zero_point = 1 / 256, -128
    elif kind == "TANH":
        scale, zero_point = 1 / 128, 0
    elif kind == "GELU":
        options = schema.GeluOptionsT(approximate=g.choices.chance(50))
    elif kind == "NEG":
        if x.zero_point == -128:
            return
        scale, zero_point = float(x.scale[0]), -x.zero_point
    g.add(Node(kind, options, [x], [g.tensor(kind.lower(), x.shape, scale, zero_point)]))


@layer
def prelu(g: Grower, x: Tensor) -> None:
    if not _image(x):
        return
    shape = g.choices.choose([(1, 1, x.shape[3]), x.shape[1:]])
    slopes = int8_tensor(f"slopes_{len(g.nodes)}", shape, 0.01, 0, g.rng.integers(-128, 128, shape))
    g.add(Node("PRELU", None, [x, slopes], [g.tensor("prelu", x.shape, *g.quantisation(x))]))


@layer
def softmax(g: Grower, x: Tensor) -> None:
    if 1 < x.shape[-1] <= SOFTMAX_WIDTH:
        g.softmax(x)


@layer
def requantised(g: Grower, x: Tensor) -> None:
    g.requantised(x)


@layer
def view(g: Grower, x: Tensor) -> None:
    """A RESHAPE that merges axes, or splits one into two."""
    shape = list(x.shape)
    if len(shape) == 1:
        shape.insert(0, 1)
    elif len(shape) > 2 and g.choices.chance(60):
        at = g.choices.integer(1, len(shape) - 2)
        shape[at : at + 2] = [shape[at] * shape[at + 1]]
    elif len(shape) < 5:
        at = g.choices.integer(1, len(shape) - 1)
        divisor = g.choices.choose([n for n in range(1, shape[at] + 1) if shape[at] % n == 0])
        shape[at : at + 1] = [divisor, shape[at] // divisor]
    g.view(x, shape)


@layer
def transpose(g: Grower, x: Tensor) -> None:
    axes = list(range(1, len(x.shape)))
    if len(axes) < 2:
        return
    order = [0]
    while axes:
        order.append(axes.pop(g.choices.integer(0, len(axes) - 1)))
    if order == sorted(order):
        order[-2:] = order[:-3:-1]
    y = g.like("turned", x, [x.shape[axis] for axis in order])
    g.add(Node("TRANSPOSE", schema.TransposeOptionsT(), [x, g.constant(order)], [y]))


@layer
def pad(g: Grower, x: Tensor) -> None:
    if len(x.shape) > 4:
        return
    amounts = np.array([[0, 0]] + [[g.choices.integer(0, 2), g.choices.integer(0, 2)] for _ in x.shape[1:]])
    shape = np.array(x.shape) + amounts.sum(axis=1)
    if np.prod(shape) > LARGEST:
        return
    if g.choices.chance(30) and (amounts < np.array(x.shape)[:, None]).all():
        options: Any = schema.MirrorPadOptionsT(mode=g.choices.integer(0, 1))
        g.add(Node("MIRROR_PAD", options, [x, g.constant(amounts)], [g.like("mirrored", x, shape)]))
    else:
        g.add(Node("PAD", schema.PadOptionsT(), [x, g.constant(amounts)], [g.like("padded", x, shape)]))


@layer
def part(g: Grower, x: Tensor) -> None:
    """STRIDED_SLICE; a view where it is of the first axis that is not 1."""
    begin, end, steps = [0], [x.shape[0]], [1]
    for n in x.shape[1:]:
        low = g.choices.integer(0, n - 1) if g.choices.chance(40) else 0
        begin.append(low)
        end.append(g.choices.integer(low + 1, n) if g.choices.chance(40) else n)
        steps.append(g.choices.choose([1, 1, 2, 3]))
    shape = [-(-(e - b) // s) for b, e, s in zip(begin, end, steps, strict=True)]
    if tuple(shape) == x.shape:
        return
    operands = [x, *(g.constant(values) for values in (begin, end, steps))]
    for i, operand in enumerate(operands[1:]):
        operand.name += f"_{i}"
    g.add(Node("STRIDED_SLICE", schema.StridedSliceOptionsT(), operands, [g.like("part", x, shape)]))


@layer
def split(g: Grower, x: Tensor) -> None:
    """SPLIT along an axis; each part is a tensor that others may read."""
    axis = g.choices.integer(1, len(x.shape) - 1) if len(x.shape) > 1 else 0
    counts = [n for n in (2, 3, 4) if x.shape[axis] % n == 0]
    if not counts:
        return
    count = g.choices.choose(counts)
    shape = list(x.shape)
    shape[axis] //= count
    outputs = [g.like("split", x, shape) for _ in range(count)]
    g.add(Node("SPLIT", schema.SplitOptionsT(numSplits=count), [g.constant(axis), x], outputs))


@layer
def stack(g: Grower, x: Tensor) -> None:
    """PACK of `x` and another of its shape and quantisation."""
    if len(x.shape) > 3 or 2 * x.size > LARGEST:
        return
    assert x.scale is not None
    alike = [t for t in g.tensors[::-1] if t.shape == x.shape]
    other = g.as_quantised(g.choices.choose(alike), float(x.scale[0]), x.zero_point)
    axis = g.choices.integer(1, len(x.shape))
    y = g.like("stacked", x, (*x.shape[:axis], 2, *x.shape[axis:]))
    g.add(Node("PACK", schema.PackOptionsT(valuesCount=2, axis=axis), [x, other], [y]))


@layer
def resize(g: Grower, x: Tensor) -> None:
    if not _image(x):
        return
    size = g.choices.integer(1, 2 * x.shape[1]), g.choices.integer(1, 2 * x.shape[2])
    if size[0] * size[1] * x.shape[3] > LARGEST:
        return
    kind, make = g.choices.choose(
        [
            ("RESIZE_NEAREST_NEIGHBOR", schema.ResizeNearestNeighborOptionsT),
            ("RESIZE_BILINEAR", schema.ResizeBilinearOptionsT),
        ]
    )
    align, half = g.choices.choose([(False, False), (True, False), (False, True)])
    y = g.like("resized", x, (1, *size, x.shape[3]))
    g.add(Node(kind, make(alignCorners=align, halfPixelCenters=half), [x, g.constant(size)], [y]))


@layer
def blocks(g: Grower, x: Tensor) -> None:
    """SPACE_TO_DEPTH or DEPTH_TO_SPACE."""
    if not _image(x):
        return
    _, h, w, c = x.shape
    if h % 2 == w % 2 == 0 and g.choices.chance(60):
        y = g.like("deep", x, (1, h // 2, w // 2, 4 * c))
        g.add(Node("SPACE_TO_DEPTH", schema.SpaceToDepthOptionsT(2), [x], [y]))
    elif c % 4 == 0:
        y = g.like("wide", x, (1, 2 * h, 2 * w, c // 4))
        g.add(Node("DEPTH_TO_SPACE", schema.DepthToSpaceOptionsT(2), [x], [y]))


@layer
def repeated(g: Grower, x: Tensor) -> None:
    """TILE or GATHER."""
    axis = g.choices.integer(1, len(x.shape) - 1) if len(x.shape) > 1 else 0
    shape = list(x.shape)
    if g.choices.chance(50) and 2 * x.size <= LARGEST:
        shape[axis] *= 2
        counts = [2 if i == axis else 1 for i in range(len(shape))]
        g.add(Node("TILE", schema.TileOptionsT(), [x, g.constant(counts)], [g.like("tiled", x, shape)]))
    else:
        indices = [g.choices.integer(0, shape[axis] - 1) for _ in range(g.choices.integer(1, 4))]
        shape[axis] = len(indices)
        if np.prod(shape) <= LARGEST:
            y = g.like("gathered", x, shape)
            g.add(Node("GATHER", schema.GatherOptionsT(axis=axis), [x, g.constant(indices)], [y]))


@layer
def in_batches(g: Grower, x: Tensor) -> None:
    """SPACE_TO_BATCH_ND, a function of the pixels, BATCH_TO_SPACE_ND, as dilated layers are written."""
    if not _image(x):
        return
    _, h, w, c = x.shape
    pads = np.array([[0, h % 2], [0, w % 2]])
    high, wide = h + h % 2, w + w % 2
    block = [2, 2]
    apart = g.like("apart", x, (4, high // 2, wide // 2, c))
    operands = [g.constant(block), g.constant(pads)]
    operands[1].name += "_pads"
    g.add(Node("SPACE_TO_BATCH_ND", schema.SpaceToBatchNDOptionsT(), [x, *operands], [apart]))
    changed = g.requantised(apart) if g.choices.chance(50) else apart
    y = g.like("together", changed, (1, h, w, c))
    operands = [g.constant(block), g.constant(pads)]
    operands[1].name += "_crops"
    g.add(Node("BATCH_TO_SPACE_ND", schema.BatchToSpaceNDOptionsT(), [changed, *operands], [y]))


def names() -> list[str]:
    """Every layer as often as it is to be drawn; failures shrink towards convolutions."""
    return [name for name in LAYERS for _ in range(WEIGHTS.get(name, 1))]

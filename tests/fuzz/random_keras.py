"""Random Keras models as lists of layers, drawn without Keras; `keras_models_of_layers` builds and converts them.

A specification is JSON: {"input": shape, "layers": [[class, arguments, operand]], "head": …, "seed": …, …}. `operand`
is how far back the second tensor of a merging layer lies. A layer that does not suit its input is left out there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from choices import Choices

Specification = dict[str, Any]
ACTIVATIONS = (
    None, "relu", "relu6", "sigmoid", "tanh", "hard_swish", "silu", "gelu", "leaky_relu", "hard_sigmoid",
)  # fmt: skip


def draw_keras(choices: Choices) -> Specification:
    """A random specification."""
    sequence = choices.chance(20)
    shape = [choices.integer(1, 24), choices.integer(1, 6)] if sequence else _image(choices)
    layers = []
    for _ in range(choices.integer(1, 12)):
        likely = _SEQUENCE if sequence else _IMAGE
        name = choices.choose(list(_LAYERS) if choices.chance(20) else likely)
        layers.append([name, _LAYERS[name](choices), choices.integer(1, 4)])
    head = choices.choose(["dense", "none", "pool", "softmax"])
    weights = choices.choose(["ordinary", "ordinary", "large", "small", "sparse"])
    return {
        "input": shape, "layers": layers, "head": head, "units": choices.integer(1, 6), "weights": weights,
        "range": choices.choose([1.0, 0.01, 100.0]), "offset": choices.choose([0.0, 1.0, -1.0]),
        "seed": choices.integer(0, 1 << 30),
        "trained": head in ("dense", "softmax") and choices.chance(40),
    }  # fmt: skip


def _image(choices: Choices) -> list[int]:
    return [choices.integer(1, 11), choices.integer(1, 11), choices.integer(1, 5)]


def _pair(choices: Choices, high: int, low: int = 1) -> list[int]:
    first = choices.integer(low, high)
    return [first, choices.integer(low, high) if choices.chance(40) else first]


def _window(choices: Choices, one: bool = False) -> dict[str, Any]:
    """Kernel, strides, padding and dilation; Keras takes strides or dilations, not both."""
    arguments: dict[str, Any] = {
        "kernel_size": choices.choose([3, 1, 2, 5]) if one else _pair(choices, 4),
        "padding": choices.choose(["same", "valid"]),
        "activation": choices.choose(ACTIVATIONS),
        "use_bias": not choices.chance(25),
    }
    kind = choices.integer(0, 3)
    if kind == 2:
        arguments["strides"] = choices.integer(2, 3)
    elif kind == 3:
        arguments["dilation_rate"] = choices.integer(2, 3)
    return arguments


def _conv(choices: Choices) -> dict[str, Any]:
    arguments = _window(choices) | {"filters": choices.integer(1, 8)}
    if choices.chance(25):
        groups = choices.choose([2, 3])
        arguments |= {"groups": groups, "filters": groups * choices.integer(1, 3)}
    return arguments


def _conv_1d(choices: Choices) -> dict[str, Any]:
    arguments = _window(choices, one=True) | {"filters": choices.integer(1, 8)}
    if arguments["padding"] == "same" and choices.chance(30):
        arguments["padding"] = "causal"
    return arguments


def _depthwise(choices: Choices) -> dict[str, Any]:
    return _window(choices) | {"depth_multiplier": choices.choose([1, 2])}


def _separable(choices: Choices) -> dict[str, Any]:
    return _window(choices) | {"filters": choices.integer(1, 8)}


def _transposed(choices: Choices) -> dict[str, Any]:
    arguments = _window(choices) | {"filters": choices.integer(1, 5)}
    arguments.pop("dilation_rate", None)
    return arguments


def _pool(choices: Choices) -> dict[str, Any]:
    return {
        "pool_size": choices.integer(1, 3),
        "strides": choices.choose([None, 1, 2]),
        "padding": choices.choose(["valid", "same"]),
    }


def _nothing(choices: Choices) -> dict[str, Any]:
    return {}


def _sides(choices: Choices) -> list[list[int]]:
    return [[choices.integer(0, 2), choices.integer(0, 2)] for _ in range(2)]


_LAYERS: dict[str, Callable[[Choices], dict[str, Any]]] = {
    "Conv2D": _conv,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv2D": _separable,
    "Conv2DTranspose": _transposed,
    "Conv1D": _conv_1d,
    "DepthwiseConv1D": lambda c: _window(c, one=True) | {"depth_multiplier": c.choose([1, 2])},
    "Dense": lambda c: {"units": c.integer(1, 8), "activation": c.choose(ACTIVATIONS), "use_bias": not c.chance(25)},
    "MaxPooling2D": _pool,
    "AveragePooling2D": _pool,
    "MaxPooling1D": _pool,
    "AveragePooling1D": _pool,
    "GlobalAveragePooling2D": lambda c: {"keepdims": c.chance(60)},
    "GlobalMaxPooling2D": lambda c: {"keepdims": c.chance(60)},
    "GlobalAveragePooling1D": lambda c: {"keepdims": c.chance(60)},
    "GlobalMaxPooling1D": lambda c: {"keepdims": c.chance(60)},
    "BatchNormalization": _nothing,
    "Activation": lambda c: {"activation": c.choose([*(a for a in ACTIVATIONS if a), "elu"])},
    "ReLU": lambda c: {"max_value": c.choose([None, 6.0, 1.0])},
    "LeakyReLU": lambda c: {"negative_slope": c.choose([0.3, 0.01])},
    "PReLU": lambda c: {"shared_axes": c.choose([None, [1], [1, 2]])},
    "Softmax": _nothing,
    "Add": _nothing,
    "Subtract": _nothing,
    "Multiply": _nothing,
    "Average": _nothing,
    "Maximum": _nothing,
    "Minimum": _nothing,
    "Concatenate": lambda c: {"axis": c.choose([-1, 1])},
    "ZeroPadding2D": lambda c: {"padding": _sides(c)},
    "ZeroPadding1D": lambda c: {"padding": [c.integer(0, 2), c.integer(0, 2)]},
    "Cropping2D": lambda c: {"cropping": _sides(c)},
    "Cropping1D": lambda c: {"cropping": [c.integer(0, 2), c.integer(0, 2)]},
    "UpSampling2D": lambda c: {"size": _pair(c, 3), "interpolation": c.choose(["nearest", "bilinear"])},
    "UpSampling1D": lambda c: {"size": c.integer(2, 3)},
    "Permute": lambda c: {"dims": c.choose([[2, 1], [2, 1, 3], [3, 1, 2], [1, 3, 2]])},
    "Reshape": lambda c: {"target_shape": c.choose([[-1, 1], [1, -1], [-1], [2, -1], [-1, 2, 1]])},
    "Flatten": _nothing,
    "RepeatVector": lambda c: {"n": c.integer(2, 3)},
    "LayerNormalization": _nothing,
}
_FLATTENING = ("Flatten", "RepeatVector", "Reshape")
#: What fits behind a sequence and behind an image; other layers are mostly left out there.
_OFTEN = ("Conv1D", "Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Add", "Concatenate")
_USUAL = [name for name in _LAYERS if "Global" not in name and name not in _FLATTENING]
_SEQUENCE = [name for name in _USUAL for _ in range(3 if name in _OFTEN else 1) if "2D" not in name]
_IMAGE = [name for name in _USUAL for _ in range(3 if name in _OFTEN else 1) if "1D" not in name]

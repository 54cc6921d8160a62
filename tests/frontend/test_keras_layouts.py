"""Keras models that move, split, join and resize data: all layers as LiteRT computes them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_lowering import compare_with_litert

from tinypeft.frontend import keras_process, read_tflite

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("TensorFlow is not installed", allow_module_level=True)

pytestmark = pytest.mark.slow


def joined(x: Any) -> Any:
    from keras import layers

    a = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x)
    up, smooth = layers.UpSampling2D(2)(a), layers.UpSampling2D((2, 4), interpolation="bilinear")(a)
    y = layers.Concatenate()([up, layers.Cropping2D(((0, 0), (2, 4)))(smooth)])
    y = layers.Concatenate(axis=1)([y, y])
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 1)(y)))


def cropped_and_padded(x: Any) -> Any:
    from keras import layers, ops

    y = layers.Conv2D(4, 2)(layers.Cropping2D(((1, 2), (0, 1)))(x))
    y = layers.Conv2D(3, 2)(layers.ZeroPadding2D(((0, 1), (2, 1)))(y))
    y = layers.Conv2D(3, 2)(ops.pad(y, ((0, 0), (1, 2), (2, 1), (0, 0)), mode="reflect"))
    y = ops.pad(y, ((0, 0), (1, 0), (0, 1), (0, 0)), mode="symmetric")
    y = layers.Conv2D(2, 2)(ops.pad(y, ((0, 0), (1, 0), (0, 1), (0, 0)), constant_values=0.5))
    return layers.Resizing(4, 7, interpolation="nearest")(layers.Resizing(9, 5)(y))


def reordered(x: Any) -> Any:
    from keras import layers, ops

    y = layers.Conv2D(4, 3)(layers.Permute((2, 1, 3))(x))
    y = layers.Dense(8)(layers.Reshape((4, -1))(layers.Permute((3, 1, 2))(y)))
    y = layers.Dense(24, activation="relu")(layers.Flatten()(y))
    y = layers.Conv2D(8, 2, padding="same")(layers.Reshape((2, 3, 4))(y))
    y = ops.transpose(ops.reshape(y, (1, 2, 3, 2, 2, 2)), (0, 1, 3, 2, 4, 5))
    return layers.Conv2D(3, 2)(ops.reshape(y, (1, 4, 6, 2)))


def parted(x: Any) -> Any:
    from keras import layers, ops

    y = layers.Conv2D(6, 3, activation="relu")(x)
    a, b, c = ops.split(y, 3, axis=-1)
    d, e = ops.split(ops.stack([c, a], axis=1)[:, 1], [1], axis=-1)
    y = ops.concatenate([d, b, e], axis=-1)
    y = ops.take(ops.take(y, [3, 0, 0, 2], axis=-1), [1, 1, 2], axis=1)
    f, g = y[:, ::2, 1:-1], y[:, ::-1, :, 1]
    return layers.Dense(3)(layers.Concatenate()([layers.Flatten()(f), layers.Flatten()(g)]))


def sequence(x: Any) -> Any:
    from keras import layers, ops

    y = layers.ZeroPadding1D(2)(layers.Cropping1D((1, 2))(x))
    y = layers.Conv1D(4, 3, activation="relu")(y)
    y = layers.Concatenate(axis=1)([layers.UpSampling1D(2)(y), layers.Conv1D(4, 1)(y)])
    y = ops.roll(ops.repeat(y[:, ::-1], 2, axis=1), 1, axis=1)
    steps = ops.unstack(y[:, :3], axis=1)
    last = layers.RepeatVector(2)(layers.Concatenate()([*steps[::-1], ops.squeeze(y[:, -1:], 1)]))
    return layers.Dense(2)(ops.tile(ops.expand_dims(last, 1), (1, 2, 1, 1)))


FORMS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...], set[str]]] = {
    "joined": (joined, (8, 6, 3), {"CONCATENATION", "TILE", "RESIZE_BILINEAR", "STRIDED_SLICE"}),
    "cropped_and_padded": (
        cropped_and_padded,
        (8, 8, 3),
        {"PAD", "PADV2", "MIRROR_PAD", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"},
    ),
    "reordered": (reordered, (6, 8, 2), {"TRANSPOSE", "RESHAPE"}),
    "parted": (parted, (6, 6, 2), {"SPLIT", "SPLIT_V", "PACK", "GATHER", "STRIDED_SLICE", "CONCATENATION"}),
    "sequence": (sequence, (9, 3), {"UNPACK", "TILE", "STRIDED_SLICE", "CONCATENATION", "RESHAPE"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_layers_equal_litert(form: str) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    from tinypeft.frontend import flatfile

    body, shape, kinds = FORMS[form]
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    entry = keras.Input(shape)
    model = keras.Model(entry, body(entry))
    rng = np.random.default_rng(0)
    function = keras_process._trace(model, shape)
    data = keras_process._quantise(function, rng.normal(0, 1, (16, *shape)).astype(np.float32))
    assert {operator.kind for operator in flatfile.parse(data).operators} >= kinds
    layers = dict(keras_process._leaves(model))
    graph = read_tflite(data, keras_layers=layers)
    weighted = {name for name, kind in layers.items() if kind in ("Conv1D", "Conv2D", "Dense")}
    assert {op.layer for op in graph.operations} >= weighted  # functions of keras.ops leave no layer's name
    compared = 0
    for _ in range(10):
        sample = rng.integers(-128, 128, graph.inputs[0].shape).astype(np.int8)
        compared += compare_with_litert(data, graph, sample)[1]
    assert compared >= 10 * len(kinds)

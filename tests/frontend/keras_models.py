"""Small Keras models for the tests, by name: good ones, and those that must be refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODELS: dict[str, Callable[[], Any]] = {}


def model(build: Callable[[], Any]) -> Callable[[], Any]:
    MODELS[build.__name__] = build
    return build


def save(name: str, folder: Path, suffix: str = ".keras") -> Path:
    """Write MODELS[name] into `folder`; its weights are drawn by a fixed seed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    keras.utils.set_random_seed(0)
    keras.backend.clear_session()
    path = folder / f"{name}{suffix}"
    MODELS[name]().save(path)
    return path


@model
def convolutions() -> Any:
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.ZeroPadding2D(((0, 1), (0, 1)), name="zero-padding"),
            layers.Conv2D(4, 3, strides=2, name="my-conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="re_lu"),
            layers.SeparableConv2D(6, 3, padding="same", activation="relu", name="separable"),
            layers.MaxPooling2D(name="int"),
            layers.Flatten(name="flatten"),
            layers.Dense(5, activation="softmax", name="dense_1"),
        ]
    )


@model
def nested() -> Any:
    import keras
    from keras import layers

    inner = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(3, 1, name="conv2d_1")], name="inner")
    x = entry = keras.Input((4, 4, 3))
    x = inner(x)
    x = layers.Conv2D(3, 1, name="conv2d")(x)
    x = layers.Add(name="sum")([x, entry])
    x = layers.Activation("relu", name="relu")(x)
    return keras.Model(entry, layers.Dense(2, name="dense")(layers.GlobalAveragePooling2D(name="pool")(x)))


@model
def two_inputs() -> Any:
    import keras

    a, b = keras.Input((4,)), keras.Input((4,))
    return keras.Model([a, b], keras.layers.Add()([a, b]))


@model
def two_outputs() -> Any:
    import keras

    a = keras.Input((4,))
    return keras.Model(a, [keras.layers.Dense(2)(a), keras.layers.Dense(3)(a)])


@model
def dynamic_shape() -> Any:
    import keras

    return keras.Sequential(
        [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    )


@model
def softsign() -> Any:
    import keras
    from keras import layers

    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="hidden"), layers.Activation("softsign", name="squash")]
    )


@model
def erfinv() -> Any:
    import keras
    from keras import layers

    x = keras.Input((4,))
    return keras.Model(x, keras.ops.erfinv(layers.Dense(3, name="hidden")(x) * 0.1))


@model
def recurrent() -> Any:
    import keras

    return keras.Sequential([keras.Input((5, 4)), keras.layers.LSTM(3, name="memory"), keras.layers.Dense(2)])


@model
def scripted() -> Any:
    import keras

    return keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x * 2)])

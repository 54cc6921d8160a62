"""The networks of trained base models: a name in, a Keras model that gives logits out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def build_network(name: str, sample_shape: tuple[int, ...], classes: int) -> Any:
    """The untrained Keras model NETWORKS[name], (N, *sample_shape) to logits (N, classes)."""
    return NETWORKS[name](sample_shape, classes)


def ds_cnn(sample_shape: tuple[int, ...], classes: int) -> Any:
    """The keyword spotter DS-CNN of MLPerf Tiny: 64 channels, four depthwise separable blocks, 23,050 parameters.

    Its moving averages are shorter than Keras' default, which a base of six hundred steps would not fill.
    """
    import keras
    from keras import layers

    entry = keras.Input(sample_shape, name="mfcc")
    x = _normalised(layers.Conv2D(64, (10, 4), 2, padding="same", use_bias=False, name="conv"), entry)
    for block in range(1, 5):
        x = _separable(x, block, 64, (3, 3), 1)
    return _classifier(entry, x, classes, dropout=0.3)


def ecg_cnn(sample_shape: tuple[int, ...], classes: int) -> Any:
    """A CNN over time, (128,1,1): 32 to 64 channels, four depthwise separable blocks, 10,373 parameters."""
    import keras
    from keras import layers

    entry = keras.Input(sample_shape, name="beat")
    x = _normalised(layers.Conv2D(32, (7, 1), (2, 1), padding="same", use_bias=False, name="conv"), entry)
    for block, (channels, stride) in enumerate(((32, 2), (48, 1), (48, 2), (64, 1)), start=1):
        x = _separable(x, block, channels, (7, 1), stride)
    return _classifier(entry, x, classes, dropout=0.3)


def _separable(x: Any, block: int, channels: int, size: tuple[int, int], stride: int) -> Any:
    from keras import layers

    depthwise = layers.DepthwiseConv2D(size, stride, padding="same", use_bias=False, name=f"depthwise_{block}")
    x = _normalised(depthwise, x)
    return _normalised(layers.Conv2D(channels, 1, use_bias=False, name=f"pointwise_{block}"), x)


def _normalised(layer: Any, x: Any) -> Any:
    from keras import layers

    x = layers.BatchNormalization(momentum=0.95, name=f"{layer.name}_bn")(layer(x))
    return layers.ReLU(name=f"{layer.name}_relu")(x)


def _classifier(entry: Any, x: Any, classes: int, dropout: float) -> Any:
    import keras
    from keras import layers

    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(entry, layers.Dense(classes, name="dense")(x))


NETWORKS: dict[str, Callable[[tuple[int, ...], int], Any]] = {"ds_cnn": ds_cnn, "ecg_cnn": ecg_cnn}

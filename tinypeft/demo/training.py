"""The process that trains the demo's model: `python -m tinypeft.demo.training FOLDER` writes its two files there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

SEED = 7
BASE_SAMPLES = 1100
CALIBRATION_SAMPLES = 300
#: How the device sees: its sensor is mounted turned, its image is flatter and darker.
ROTATION_DEGREES = 32.0
CONTRAST = 0.75
BRIGHTNESS = 0.12
#: What the base model is trained to bear: copies of every sample, turned and dimmed by chance up to this much.
COPIES = 4
BASE_ROTATION_DEGREES = 12.0
BASE_CONTRAST = 0.7


def main(folder: str) -> None:
    """Train and write both files."""
    import keras
    import tensorflow as tf
    from sklearn.datasets import load_digits

    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    digits = load_digits()
    order = np.random.RandomState(SEED).permutation(len(digits.target))
    x = (digits.images / 16.0).astype(np.float32)[order, ..., None]
    y = digits.target.astype(np.int64)[order]
    model = build_model()
    model.compile(
        keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    x_train, y_train = augment(x[:BASE_SAMPLES], y[:BASE_SAMPLES])
    model.fit(x_train, y_train, batch_size=64, epochs=12, verbose=0)
    model.save(Path(folder, "digits.keras"))
    np.savez_compressed(
        Path(folder, "digits.npz"),
        x_base=x[:CALIBRATION_SAMPLES],
        y_base=y[:CALIBRATION_SAMPLES],
        x=device_view(x[BASE_SAMPLES:]),
        y=y[BASE_SAMPLES:],
    )


def build_model() -> Any:
    """A depthwise separable CNN of about 6,000 parameters: (8,8,1) to 10 logits."""
    import keras
    from keras import layers

    def conv_block(name: str, layer: Any) -> list[Any]:
        return [layer, layers.BatchNormalization(name=f"{name}_bn"), layers.ReLU(name=f"{name}_relu")]

    def depthwise(name: str, strides: int) -> Any:
        return layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False, name=name)

    def conv(name: str, filters: int, size: int) -> Any:
        return layers.Conv2D(filters, size, padding="same", use_bias=False, name=name)

    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            *conv_block("conv", conv("conv", 24, 3)),
            *conv_block("depthwise_1", depthwise("depthwise_1", 1)),
            *conv_block("pointwise_1", conv("pointwise_1", 40, 1)),
            *conv_block("depthwise_2", depthwise("depthwise_2", 2)),
            *conv_block("pointwise_2", conv("pointwise_2", 64, 1)),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(10, name="dense"),
        ],
        name="digits",
    )


def augment(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """COPIES of the digits (N,8,8,1) and labels (N,), the digits turned and dimmed by chance."""
    random = np.random.RandomState(SEED)
    copies = [
        view(
            sample,
            random.uniform(-BASE_ROTATION_DEGREES, BASE_ROTATION_DEGREES),
            contrast := random.uniform(BASE_CONTRAST, 1.0),
            random.uniform(0.0, 1.0 - contrast),
        )
        for _ in range(COPIES)
        for sample in x
    ]
    return np.stack(copies), np.tile(y, COPIES)


def device_view(x: np.ndarray) -> np.ndarray:
    """Digits (N,8,8,1) from 0 to 1 as the device sees them."""
    return np.stack([view(sample, ROTATION_DEGREES, CONTRAST, BRIGHTNESS) for sample in x])


def view(sample: np.ndarray, degrees: float, contrast: float, brightness: float) -> np.ndarray:
    """A digit (8,8,1), turned, times `contrast`, plus `brightness`."""
    from scipy.ndimage import rotate  # type: ignore[import-untyped]

    turned = rotate(sample, degrees, axes=(1, 0), reshape=False, order=1, mode="constant")
    return np.clip(turned * contrast + brightness, 0, 1).astype(np.float32)


if __name__ == "__main__":
    main(*sys.argv[1:])

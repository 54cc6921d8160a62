"""A specification of `random_keras` into a Keras model and its .tflite, as tinypeft converts it. Needs TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tinypeft.errors import TinypeftError
from tinypeft.frontend import keras_process

MERGES = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate")
#: The most elements that a layer may give
LARGEST = 4000
CALIBRATION = 6


def convert(specification: dict[str, Any], folder: Path) -> tuple[bytes, dict[str, str], list[str]] | str:
    """(.tflite, Keras layers, classes of the layers built), or why tinypeft's converter refuses the model."""
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(specification["seed"])
    rng = np.random.default_rng(specification["seed"])
    model, built = build(specification)
    set_weights(model, specification["weights"], rng)
    path = folder / "model.keras"
    model.save(path)
    samples = rng.normal(specification["offset"], 1, (CALIBRATION, *specification["input"])) * specification["range"]
    np.save(folder / "calibration.npy", samples.astype(np.float32))
    try:
        layers = keras_process._convert(path, folder, False, lambda step: None)
    except TinypeftError as error:
        return error.message.replace(str(path), "the model")
    return (folder / "model.tflite").read_bytes(), layers, built


def build(specification: dict[str, Any]) -> tuple[Any, list[str]]:
    """The model, and the classes of its layers in order; those that Keras refuses behind their input are left out."""
    import keras
    from keras import layers

    entry = keras.Input(specification["input"])
    tensors, built = [entry], []

    def append(name: str, arguments: dict[str, Any], back: int = 1) -> None:
        x = tensors[-1]
        try:
            layer = getattr(layers, name)(**arguments)
            y = layer([x, second(x, back)]) if name in MERGES else layer(x)
        except (ValueError, TypeError):
            return
        if all(n is not None and n > 0 for n in y.shape[1:]) and np.prod(y.shape[1:]) <= LARGEST:
            tensors.append(y)
            built.append(name)

    def second(x: Any, back: int) -> Any:
        """A tensor of the same shape further back; without one, a branch of its own."""
        alike = [t for t in tensors[:-1] if t.shape == x.shape]
        return alike[-min(back, len(alike))] if alike else layers.Dense(x.shape[-1])(x)

    for name, arguments, back in specification["layers"]:
        append(name, arguments, back)
    if specification["head"] == "pool":
        append("GlobalAveragePooling2D", {})
    if specification["head"] in ("dense", "softmax"):
        append("Flatten", {})
        append("Dense", {"units": specification["units"]})
    if specification["head"] == "softmax":
        append("Softmax", {})
    if len(tensors) == 1:
        append("Dense", {"units": specification["units"]})
    return keras.Model(entry, tensors[-1]), built


def set_weights(model: Any, style: str, rng: np.random.Generator) -> None:
    """Random weights: as usual, so large that layers saturate, tiny, or mostly zero."""
    factor = {"ordinary": 1.0, "large": 8.0, "small": 0.003, "sparse": 1.0}[style]
    for weight in model.weights:
        shape = tuple(weight.shape)
        fan_in = max(1, int(np.prod(shape[:-1])))
        values = rng.normal(0, factor / np.sqrt(fan_in), shape)
        if style == "sparse":
            values *= rng.random(shape) < 0.2
        if "variance" in weight.path:
            values = np.abs(values) + 0.05
        elif "gamma" in weight.path:
            values = values + 1
        weight.assign(values.astype(np.float32))

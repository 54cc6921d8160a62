"""The process that converts a Keras model: `python -m tinypeft.frontend.keras_process MODEL FOLDER`.

Takes FOLDER/calibration.npy, writes FOLDER/model.tflite. On stdout, a JSON object a line: {"step"} as it proceeds, at the
end {"layers": {name: class}}, {"error", "message", "hint"} or {"missing"}. Whatever the libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinypeft.data import fit_samples
from tinypeft.errors import ModelError, TinypeftError

_EXPORT_HINT = "save the model with Keras 3 again: model.save('model.keras')"


def main(model_path: str, folder: str) -> None:
    """Convert and answer."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)

        def send(message: dict[str, Any]) -> None:
            channel.write(json.dumps(message) + "\n")
            channel.flush()

        try:
            send({"step": "starting TensorFlow"})
            import keras  # noqa: F401
            import tensorflow  # noqa: F401
        except ImportError as error:
            send({"missing": str(error)})
            return
        try:
            send({"layers": _convert(Path(model_path), Path(folder), lambda step: send({"step": step}))})
        except TinypeftError as error:
            send({"error": type(error).__name__, "message": error.message, "hint": error.hint})


def _convert(path: Path, folder: Path, step: Callable[[str], None]) -> dict[str, str]:
    step(f"loading {path.name}")
    model = _load(path)
    sample_shape = _check(model, path)
    samples = fit_samples(np.load(folder / "calibration.npy"), sample_shape, "the calibration samples")
    layers = dict(_leaves(model))
    step(f"quantising {path.name} with {len(samples)} samples")
    try:
        tflite = _quantise(model, samples)
    except Exception as error:  # the converter raises anything, of many lines
        raise _conversion_error(path, str(error), layers) from error
    (folder / "model.tflite").write_bytes(tflite)
    return layers


def _load(path: Path) -> Any:
    import keras

    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # any exception of zipfile, h5py, json or a layer's constructor
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ModelError(f"{path} cannot be loaded by Keras: {reason}", _EXPORT_HINT) from error


def _check(model: Any, path: Path) -> tuple[int, ...]:
    """The shape of one sample, if the model has the form that is supported."""
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise ModelError(
            f"{path} has no defined input", "call the model on a sample, or add an Input, before saving it"
        )
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(
            f"{path} has {len(inputs)} inputs and {len(outputs)} outputs, supported is one of each",
            "save a model with a single input and a single output",
        )
    shape = tuple(inputs[0].shape[1:])
    if None in shape:
        raise ModelError(f"{path} takes inputs of the dynamic shape {shape}", "save the model with a fixed input shape")
    if inputs[0].dtype != "float32":
        raise ModelError(f"{path} takes {inputs[0].dtype} inputs, supported is float32", "save it with a float32 input")
    return shape


def _leaves(layer: Any) -> Iterator[tuple[str, str]]:
    """(name, class name) of the layers of a model and of the models in it, in order, but for the input."""
    for inner in layer.layers:
        if getattr(inner, "layers", None):
            yield from _leaves(inner)
        elif type(inner).__name__ != "InputLayer":
            yield inner.name, type(inner).__name__


def _quantise(model: Any, samples: np.ndarray) -> bytes:
    import tensorflow as tf

    _keep_names(model, "model/")
    signature = [tf.TensorSpec([1, *samples.shape[1:]], tf.float32, name="input")]
    function = tf.function(lambda x: model(x, training=False), input_signature=signature, autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def _keep_names(layer: Any, scope: str) -> None:
    """Make the layer and those in it trace under exactly their names; Keras opens scopes twice, which makes `dense_1` of `dense`."""
    import tensorflow as tf

    for inner in getattr(layer, "layers", ()):
        _keep_names(inner, scope + re.sub(r"[^A-Za-z0-9_]", "_", inner.name) + "/")
    if hasattr(layer, "_open_name_scope"):
        object.__setattr__(layer, "_open_name_scope", lambda: tf.name_scope(scope))


def _conversion_error(path: Path, text: str, layers: dict[str, str]) -> ModelError:
    """What the converter complains of, in a sentence with the Keras layer, its class and the operator where it tells them."""
    operators = sorted(
        set(re.findall(r"tf\.([A-Z]\w+)", text)) | set(re.findall(r"not yet supported for op: '(\w+)'", text))
    )
    named = [name for name in layers if re.search(rf"/{re.escape(name)}[_/]", text)]
    if operators:
        where = "".join(f" of layer {name} ({layers[name]})" for name in named[:1])
        message = f"{path}: operator {', '.join(operators)}{where} has no int8 form in LiteRT"
        return ModelError(message, "replace the layer by supported ones; see `tinypeft supported-ops`")
    reason = next((line.strip() for line in text.splitlines() if line.strip()), "no message")
    return ModelError(
        f"{path} cannot be converted to int8: {reason}", "try tf.lite.TFLiteConverter on the model itself"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

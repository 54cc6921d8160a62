"""The process that converts a Keras model: `python -m tinypeft.frontend.keras_process MODEL FOLDER [float]`.

Takes FOLDER/calibration.npy, writes FOLDER/model.tflite and, with `float`, FOLDER/float.tflite, which is not quantised.
On stdout, a JSON object a line: {"step"} as it proceeds, at the end {"layers": {name: class}}, {"error", "message",
"hint"} or {"missing"}. What the libraries print goes to stderr.
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
from tinypeft.frontend.naming import find_layer, identifier
from tinypeft.frontend.tflite import supported_operators

_EXPORT_HINT = "save the model again, with Keras 3 and its own layers only: model.save('model.keras')"
#: operators of loops, branches and state, on which the converter itself crashes
_CONTROL_FLOW = re.compile("(Stateless)?(While|If|Case)|TensorList.*|CudnnRNN.*")


def main(model_path: str, folder: str, *wanted: str) -> None:
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
            send(
                {
                    "layers": _convert(
                        Path(model_path), Path(folder), "float" in wanted, lambda step: send({"step": step})
                    )
                }
            )
        except TinypeftError as error:
            send({"error": type(error).__name__, "message": error.message, "hint": error.hint})


def _convert(path: Path, folder: Path, with_float: bool, step: Callable[[str], None]) -> dict[str, str]:
    step(f"loading {path.name}")
    model = _load(path)
    sample_shape = _check(model, path)
    samples = fit_samples(np.load(folder / "calibration.npy"), sample_shape, "the calibration samples")
    layers = dict(_leaves(model))
    try:
        function = _trace(model, sample_shape)
    except Exception as error:  # whatever the code of a layer raises
        raise ModelError(f"{path} cannot be traced: {_first_line(error)}", _EXPORT_HINT) from error
    owners = {op.type: find_layer("", [], op.name, layers) for op in reversed(function.graph.get_operations())}
    _refuse(sorted(filter(_CONTROL_FLOW.fullmatch, owners), reverse=True), path, owners, layers)
    step(f"quantising {path.name} with {len(samples)} samples")
    try:
        tflite = _quantise(function, samples)
        if with_float:
            (folder / "float.tflite").write_bytes(_converter(function).convert())
    except Exception as error:  # the converter raises anything, of many lines
        _refuse(sorted(set(re.findall(r"\btf\.(\w+)", str(error))) & set(owners)), path, owners, layers)
        message = f"{path} cannot be converted to int8: {_first_line(error)}"
        raise ModelError(message, "try tf.lite.TFLiteConverter on the model itself") from error
    (folder / "model.tflite").write_bytes(tflite)
    return layers


def _load(path: Path) -> Any:
    import keras

    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # any exception of zipfile, h5py, json or a layer's constructor
        raise ModelError(f"{path} cannot be loaded by Keras: {_first_line(error)}", _EXPORT_HINT) from error


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
    for inner in getattr(layer, "operations", layer.layers):
        if getattr(inner, "layers", None):
            yield from _leaves(inner)
        elif type(inner).__name__ != "InputLayer":
            yield inner.name, type(inner).__name__


def _trace(model: Any, sample_shape: tuple[int, ...]) -> Any:
    """The model as a concrete function of one sample."""
    import tensorflow as tf

    _keep_names(model, "model/")
    signature = [tf.TensorSpec([1, *sample_shape], tf.float32, name="input")]
    function = tf.function(lambda x: model(x, training=False), input_signature=signature, autograph=False)
    return function.get_concrete_function()


def _keep_names(layer: Any, scope: str) -> None:
    """Make the layer and those in it trace under their very names: Keras opens scopes twice, which gives `dense_1`."""
    import tensorflow as tf

    for inner in getattr(layer, "layers", ()):
        _keep_names(inner, f"{scope}{identifier(inner.name)}/")
    if hasattr(layer, "_open_name_scope"):
        object.__setattr__(layer, "_open_name_scope", lambda: tf.name_scope(scope))


def _converter(function: Any) -> Any:
    import tensorflow as tf

    return tf.lite.TFLiteConverter.from_concrete_functions([function])


def _quantise(function: Any, samples: np.ndarray) -> bytes:
    import tensorflow as tf

    converter = _converter(function)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def _refuse(kinds: list[str], path: Path, owners: dict[str, str | None], layers: dict[str, str]) -> None:
    """Raise ModelError for the first of the operators, with the Keras layer that it is from."""
    for kind in kinds:
        layer = owners[kind]
        where = f" of layer {layer} ({layers[layer]})" if layer else ""
        raise ModelError(
            f"{path}: operator {kind}{where} is not supported; supported: {', '.join(supported_operators())}",
            "replace the layer by supported ones",
        )


def _first_line(error: Exception) -> str:
    """The first sentence of what a library says, which may be pages long."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line.split(". ")[0][:300]


if __name__ == "__main__":
    main(*sys.argv[1:])

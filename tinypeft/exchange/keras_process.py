"""The process that changes or reads Keras models: `python -m tinypeft.exchange.keras_process FOLDER`.

Takes FOLDER/request.json and arrays.npz. Job "merge" writes merged.keras, job "lora" result.npz with the weights
of a base and of what was trained from it, job "layers" result.npz with those of one model's layers. Answers on stdout
with one JSON object: the job's, {"error", "message", "hint"} or {"missing"}.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tinypeft.errors import AdapterError, ModelError, TinypeftError
from tinypeft.exchange.keras_graph import Surroundings, leaves, surroundings
from tinypeft.exchange.layouts import KERAS_CLASSES, output_channels

#: relative distance of a kernel from its int8 form, far above what rounding gives, far below that of another kernel
_SAME_KERNEL = 0.05


def main(folder: str) -> None:
    """Carry out the request and answer."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)
        try:
            import keras  # noqa: F401
        except ImportError as error:
            json.dump({"missing": str(error)}, channel)
            return
        try:
            answer = carry_out(Path(folder), json.loads(Path(folder, "request.json").read_text()))
        except TinypeftError as error:
            answer = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        json.dump(answer, channel)


def carry_out(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request; raises AdapterError or ModelError."""
    if request["job"] == "merge":
        with np.load(folder / "arrays.npz") as arrays:
            merge(request["model"], dict(arrays)).save(folder / "merged.keras")
        return {"merged": True}
    if request["job"] == "layers":
        weights, answer = _layers(request["model"])
        np.savez(folder / "result.npz", **weights)  # type: ignore[arg-type]
        return answer
    read = _factors if request["model"].endswith(".lora.h5") else _compare
    weights, answer = read(request["base"], request["model"])
    np.savez(folder / "result.npz", **weights)  # type: ignore[arg-type]
    return answer


def _load(path: str) -> Any:
    import keras

    try:
        model = keras.models.load_model(path, compile=False)
    except Exception as error:  # any exception of zipfile, h5py, json or a layer's constructor
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:300]
        raise ModelError(f"{path} cannot be loaded by Keras: {reason}", "save it again with Keras 3") from error
    if not getattr(model, "inputs", None):
        raise ModelError(f"{path} has no defined input", "add an Input before saving it")
    return model


def merge(path: str, arrays: dict[str, np.ndarray]) -> Any:
    """The model at `path` with the deltas in it; keys are "kernel_delta:LAYER" and the like. Raises AdapterError."""
    model = _load(path)
    layers = {layer.name: layer for layer in leaves(model)}
    around = surroundings(model)
    deltas: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        name, layer = key.split(":", 1)
        if layer not in layers:
            raise AdapterError(f"{path} has no layer {layer}; it has {', '.join(layers)}")
        deltas.setdefault(layer, {})[name] = array
    for layer, given in deltas.items():
        if (same := sum(each.name == layer for each in leaves(model))) > 1:
            raise AdapterError(f"{path} has {same} layers {layer}", "give them names of their own")
        _merge_layer(layers[layer], around[layer], **given)
    return model


def kernel_of(layer: Any) -> Any:
    """The variable of a layer's kernel, that under a LoRA too, the pointwise one of a separable layer."""
    return next(
        variable
        for name in ("_kernel", "pointwise_kernel", "kernel")
        if (variable := getattr(layer, name, None)) is not None
    )


def _merge_layer(
    layer: Any,
    around: Surroundings,
    kernel_delta: np.ndarray | None = None,
    bias_delta: np.ndarray | None = None,
    folded_kernel: np.ndarray | None = None,
) -> None:
    kind, where = type(layer).__name__, f"layer {layer.name} ({type(layer).__name__})"
    if kind not in KERAS_CLASSES:
        raise AdapterError(f"{where} has no kernel that can be merged; {', '.join(KERAS_CLASSES)} have")
    if around.calls > 1:
        raise AdapterError(
            f"{where} is called {around.calls} times: a delta would change every call", "merge into the .tflite instead"
        )
    kernel = kernel_of(layer)
    values = kernel.numpy()
    spread = output_channels(kind, values)
    channels = int(np.prod(spread))
    for name, array, shape in (
        ("kernel_delta", kernel_delta, values.shape),
        ("folded_kernel", folded_kernel, values.shape),
        ("bias_delta", bias_delta, (channels,)),
    ):
        if array is not None and array.shape != shape:
            raise AdapterError(f"{where}: {name} has the shape {array.shape}, the layer needs {shape}")
    normalisation = _folded(where, around, values, spread, folded_kernel)
    factor = np.ones(channels) if normalisation is None else _factor(normalisation)
    zero, divisor = factor == 0, np.where(factor == 0, 1.0, factor)
    if kernel_delta is not None:
        if np.any(kernel_delta * zero.reshape(spread)):
            raise _lost(where, "kernel", zero, normalisation)
        _assign(where, kernel, values + kernel_delta / divisor.reshape(spread))
    if bias_delta is not None and bias_delta.any():
        if normalisation is not None and normalisation.center and not around.shared:
            _assign(where, normalisation.beta, normalisation.beta.numpy() + bias_delta)
        else:
            _add_to_bias(where, layer, normalisation, bias_delta, factor)


def _folded(
    where: str, around: Surroundings, kernel: np.ndarray, spread: tuple[int, ...], folded: np.ndarray | None
) -> Any:
    """The BatchNormalization that the converter folded into the layer, or None."""
    normalisation = around.batch_normalisation
    name = "" if normalisation is None else normalisation.name
    if folded is not None:
        candidates = {"": (kernel, None)}
        if normalisation is not None:
            candidates[f" with {name} folded in"] = (kernel * _factor(normalisation).reshape(spread), normalisation)
        distances = {how: _distance(values, folded) for how, (values, _) in candidates.items()}
        nearest = min(distances, key=lambda how: distances[how])
        if distances[nearest] > _SAME_KERNEL:
            raise AdapterError(
                f"{where}: its kernel differs from the converted one by "
                + ", ".join(f"{distance:.0%}{how}" for how, distance in distances.items()),
                "give the Keras model that was converted",
            )
        return candidates[nearest][1]
    if normalisation is not None and not around.alone:
        raise AdapterError(
            f"{where}: its output goes to {name} (BatchNormalization) and elsewhere, so that it is open whether the "
            "converter folded that",
            "give the folded_kernel",
        )
    return normalisation


def _distance(kernel: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(kernel - other) / (np.linalg.norm(other) or 1.0))


def _factor(batch_normalisation: Any) -> np.ndarray:
    """gamma / sqrt(variance + epsilon), float64."""
    axis = batch_normalisation.axis if isinstance(batch_normalisation.axis, int) else batch_normalisation.axis[0]
    if axis not in (-1, batch_normalisation.input_spec.ndim - 1):
        raise AdapterError(
            f"layer {batch_normalisation.name} (BatchNormalization) normalises axis {axis}, not the channels",
            "merge into the .tflite instead",
        )
    variance = batch_normalisation.moving_variance.numpy().astype(np.float64)
    factor = 1.0 / np.sqrt(variance + batch_normalisation.epsilon)
    return factor * batch_normalisation.gamma.numpy().astype(np.float64) if batch_normalisation.scale else factor


def _add_to_bias(where: str, layer: Any, normalisation: Any, delta: np.ndarray, factor: np.ndarray) -> None:
    if layer.bias is None:
        behind = "" if normalisation is None else f", and {normalisation.name} (BatchNormalization) no beta of its own"
        raise AdapterError(
            f"{where} has no bias{behind}: its bias delta cannot be merged", "build the layer with use_bias=True"
        )
    if np.any(delta * (factor == 0)):
        raise _lost(where, "bias", factor == 0, normalisation)
    _assign(where, layer.bias, layer.bias.numpy() + delta / np.where(factor == 0, 1.0, factor))


def _lost(where: str, what: str, zero: np.ndarray, normalisation: Any) -> AdapterError:
    return AdapterError(
        f"{where}: gamma of {normalisation.name} (BatchNormalization) is 0 for channels "
        f"{np.flatnonzero(zero).tolist()}, so that no {what} gives their delta",
        "merge into the .tflite instead",
    )


def _assign(where: str, variable: Any, values: np.ndarray) -> None:
    merged = values.astype(np.float32)
    if not np.isfinite(merged).all():
        raise AdapterError(f"{where}: the merged {variable.name} is not finite", "merge into the .tflite instead")
    variable.assign(merged)


def _layers(path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Kernels, biases and the factors of BatchNormalizations behind by "kernel:INDEX" and the like."""
    model = _load(path)
    around = surroundings(model)
    found: dict[str, np.ndarray] = {}
    layers: list[tuple[str, str]] = []
    for layer in leaves(model):
        if (kind := type(layer).__name__) not in KERAS_CLASSES:
            continue
        found[f"kernel:{len(layers)}"] = kernel_of(layer).numpy()
        if getattr(layer, "bias", None) is not None:
            found[f"bias:{len(layers)}"] = layer.bias.numpy()
        if (normalisation := around[layer.name].batch_normalisation) is not None:
            found[f"factor:{len(layers)}"] = _factor(normalisation)
        layers.append((layer.name, kind))
    return found, {"layers": layers}


def _compare(base_path: str, path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The weights of both models by "base:INDEX:WEIGHT" and "model:INDEX:WEIGHT", and what the layers are."""
    base = _load(base_path)
    before = _weights(base)
    if path.endswith(".weights.h5"):
        try:
            base.load_weights(path)
        except Exception as error:  # h5py and Keras raise anything
            reason = next(iter(str(error).splitlines()), type(error).__name__)[:300]
            raise ModelError(
                f"{path} does not suit {base_path}: {reason}", "give the model it was saved from"
            ) from error
        model = base
    else:
        model = _load(path)
    after = _weights(model)
    if list(before) != list(after):
        raise AdapterError(f"{path} has the layers {', '.join(after)}; the base {base_path} {', '.join(before)}")
    found: dict[str, np.ndarray] = {}
    layers = []
    for index, layer in enumerate(leaves(model)):
        for side, weights in (("base", before), ("model", after)):
            found |= {f"{side}:{index}:{name}": array for name, array in weights[layer.name].items()}
        enabled = bool(getattr(layer, "lora_enabled", False))
        layers.append(
            {
                "name": layer.name,
                "class": type(layer).__name__,
                "weights": list(after[layer.name]),
                "r": layer.lora_rank if enabled else None,
                "lora_alpha": layer.lora_alpha if enabled else None,
            }
        )
    return found, {"layers": layers}


def _factors(base_path: str, path: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The A and B of KerasHub's save_lora_weights by "a:INDEX" and "b:INDEX"; it numbers the layers with weights."""
    from keras.src.saving.saving_lib import H5IOStore

    layers = [layer for layer in _load(base_path)._flatten_layers(include_self=False) if layer.weights]
    found: dict[str, np.ndarray] = {}
    described: list[dict[str, Any]] = []
    try:
        store = H5IOStore(path, mode="r")
        rank = int(store.get("lora")["rank"][()])
        for index, layer in enumerate(layers):
            entry = store.get(f"lora/{index}")
            if "lora_kernel_a" in list(entry.keys()):
                found |= {f"a:{len(described)}": entry["lora_kernel_a"][()]}
                found |= {f"b:{len(described)}": entry["lora_kernel_b"][()]}
                described.append({"name": layer.name, "class": type(layer).__name__, "r": rank, "lora_alpha": rank})
        store.close()
    except Exception as error:  # h5py and Keras raise anything
        raise ModelError(f"{path} holds no LoRA of KerasHub: {type(error).__name__}: {error}") from error
    return found, {"layers": described}


def _weights(model: Any) -> dict[str, dict[str, np.ndarray]]:
    """Layer name -> its weights by name, without those of a LoRA, which Keras adds to the kernel when it saves."""
    return {
        layer.name: {
            variable.name: variable.numpy() for variable in layer.weights if not variable.name.startswith("lora_")
        }
        for layer in leaves(model)
    }


if __name__ == "__main__":
    main(*sys.argv[1:])

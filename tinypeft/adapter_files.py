"""An adapter as a folder: PEFT's adapter_config.json and adapter_model.safetensors, and the package for the device.

Kinds that PEFT has no type for are written in the same two files, under types of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tinypeft import __version__
from tinypeft.adapter_import import masters_from_peft
from tinypeft.adapter_modules import PEFT_TYPES, Module, modules_of, peft_config, peft_type
from tinypeft.adapter_state import Adapter, adapter_from_masters, adapter_from_package, quantizer_states
from tinypeft.adapters import Parameter, base_layer
from tinypeft.compiler import CompiledModel
from tinypeft.errors import AdapterError
from tinypeft.exchange.keras_folding import fold_adapter, read_layers
from tinypeft.exchange.keras_lora import read_keras_lora
from tinypeft.exchange.peft_config import CONFIG_FILE
from tinypeft.exchange.peft_files import WEIGHTS_FILE, PeftAdapter, parse_peft, peft_files
from tinypeft.files import check_folder, write_folder
from tinypeft.package.format import parse
from tinypeft.state import pad_package

PACKAGE_FILE = "adapter.bin"
_PREFIX = "base_model.model."
#: key under "tinypeft" of the quantisers' states
_KEPT = "quantizer_state"


def write_adapter(
    directory: Path | str, model: CompiledModel, state: dict[str, np.ndarray], package: bytes, extra: dict[str, Any]
) -> None:
    """Write the three files of an adapter, or nothing; an earlier adapter in `directory` is replaced.

    The float32 masters in `state` go under PEFT's names and shapes; `extra` joins our own data under "tinypeft". Raises
    OutputError for a folder with other content.
    """
    target = check_adapter_folder(directory)
    files = adapter_files(model, state, extra) | {PACKAGE_FILE: package}
    write_folder(target, files)


def check_adapter_folder(directory: Path | str) -> Path:
    """`directory` as a path; raises OutputError where it holds anything but an adapter."""
    return check_folder(directory, {CONFIG_FILE, WEIGHTS_FILE, PACKAGE_FILE}, "an adapter")


def adapter_files(model: CompiledModel, state: Mapping[str, np.ndarray], extra: dict[str, Any]) -> dict[str, bytes]:
    """The configuration and the weights, by file name; the same adapter gives the same bytes."""
    kept = {tensor.name: state[tensor.name].reshape(-1).tolist() for tensor in quantizer_states(model)}
    ours: dict[str, Any] = {
        "version": __version__,
        "model": model.name,
        "fingerprint": model.fingerprint.hex(),
        "adapter": asdict(model.adapter),
        _KEPT: kept,
        **extra,
    }
    modules = modules_of(model)
    config = peft_config(model, ours)
    if config is not None:
        tensors = {m.name: {n: p.to_peft(state[p.master.name]) for n, p in m.tensors().items()} for m in modules}
        return peft_files(PeftAdapter(config, tensors))
    saved = [m.name for m in modules if m.saved]
    written = {
        "peft_type": peft_type(model),
        "target_modules": [m.name for m in modules if not m.saved],
        "modules_to_save": saved or None,
        "inference_mode": True,
        "tinypeft": ours,
    }
    arrays = {
        key: np.ascontiguousarray(parameter.to_peft(state[parameter.master.name]), np.float32)
        for key, parameter in _keys(modules).items()
    }
    return {
        CONFIG_FILE: (json.dumps(written, indent=2, sort_keys=True) + "\n").encode(),
        WEIGHTS_FILE: save(arrays, {"format": "pt"}),
    }


def read_adapter(path: Path | str, model: CompiledModel, mapping: Mapping[str, str] | None = None) -> Adapter:
    """The adapter of `model` in a folder that tinypeft or PEFT wrote, or in a package's file.

    `mapping`: module of the adapter -> layer, for those whose names do not tell. AdapterError: another base model,
    other targets or a larger rank, damaged files, or a package that is not made from the weights beside it.
    """
    path = Path(path)
    if not path.is_dir() or not (path / CONFIG_FILE).exists():
        return adapter_from_package(model, read_package(path))
    config, weights = (_read(path / name) for name in (CONFIG_FILE, WEIGHTS_FILE))
    try:
        adapter = _parse(model, config, weights, mapping)
        if (path / PACKAGE_FILE).exists():
            adapter = _with_package(model, adapter, _read(path / PACKAGE_FILE))
    except AdapterError as error:
        hint = error.hint or f"tinypeft adapter inspect {path} shows what it holds"
        raise AdapterError(f"{path}: {error.message}", hint) from error
    return adapter


def read_keras_adapter(
    path: Path | str, base: Path | str, model: CompiledModel, mapping: Mapping[str, str] | None = None
) -> Adapter:
    """The adapter of `model` that Keras' `enable_lora` trained from the Keras model `base`, which was converted.

    `path`: as of `read_keras_lora`. AdapterError: as of `read_adapter`, or another base; ToolError: no TensorFlow.
    """
    layers = {op.layer: base_layer(op) for op in model.base.operations if "filter" in op.inputs}
    converted = {name: (layer.filter, layer.bias) for name, layer in layers.items()}
    adapter = fold_adapter(read_keras_lora(path, base), read_layers(base), converted)
    return adapter_from_masters(model, masters_from_peft(model, adapter, mapping))


def describe_adapter(path: Path | str) -> dict[str, Any]:
    """What a folder's configuration says, and its tensors' shapes by key; AdapterError for damaged files."""
    path = Path(path)
    written = _config(_read(path / CONFIG_FILE))
    shapes = {key: list(array.shape) for key, array in sorted(_arrays(_read(path / WEIGHTS_FILE)).items())}
    return {"config": written, "tensors": shapes, "package": (path / PACKAGE_FILE).exists()}


def read_package(path: Path) -> bytes:
    """The device package of an adapter folder, or of the file itself; raises AdapterError where there is none."""
    return _read(path / PACKAGE_FILE if path.is_dir() else path)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise AdapterError(
            f"cannot read the adapter {file}: {error.strerror}", "give a folder that `tinypeft train` or PEFT wrote"
        ) from error


def _config(data: bytes) -> dict[str, Any]:
    try:
        written = json.loads(data)
    except ValueError as error:
        raise AdapterError(f"{CONFIG_FILE} is no JSON: {error}", "save the adapter again") from error
    if not isinstance(written, dict) or not isinstance(written.get("tinypeft") or {}, dict):
        raise AdapterError(f"{CONFIG_FILE} holds no configuration of an adapter", "save the adapter again")
    return written


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    try:
        return load(data)
    except (SafetensorError, KeyError) as error:  # of a damaged file, of a dtype that NumPy lacks
        raise AdapterError(f"{WEIGHTS_FILE} cannot be read: {error}", "save or copy the adapter again") from error


def _parse(model: CompiledModel, config: bytes, weights: bytes, mapping: Mapping[str, str] | None) -> Adapter:
    written = _config(config)
    ours = written.get("tinypeft") or {}
    fingerprint = ours.get("fingerprint", model.fingerprint.hex())
    if fingerprint != model.fingerprint.hex():
        raise AdapterError(
            f"the adapter belongs to base model {str(fingerprint)[:12]}, this one is {model.fingerprint.hex()[:12]}",
            "train an adapter for this model",
        )
    if written.get("peft_type") in PEFT_TYPES:
        masters = masters_from_peft(model, parse_peft(config, weights), mapping)
    else:
        masters = _masters(model, str(written.get("peft_type")), _arrays(weights))
    return adapter_from_masters(model, masters, _kept(model, ours.get(_KEPT)))


def _masters(model: CompiledModel, kind: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The masters of an adapter of a type of ours."""
    if kind != peft_type(model):
        raise AdapterError(
            f"the adapter is a {kind}, the project's adapters are {peft_type(model)}",
            "generate the project with the adapter's configuration",
        )
    keys = _keys(modules_of(model))
    if arrays.keys() != keys.keys():
        missing, other = sorted(keys.keys() - arrays.keys()), sorted(arrays.keys() - keys.keys())
        raise AdapterError(
            f"the adapter lacks {', '.join(missing) or 'nothing'} of the project's tensors, "
            f"and has {', '.join(other) or 'no others'}",
            "generate the project with the adapter's configuration",
        )
    masters = {}
    for key, parameter in keys.items():
        expected = parameter.to_peft(np.zeros(parameter.master.shape, np.float32)).shape
        if arrays[key].shape != expected or not np.isfinite(arrays[key]).all():
            raise AdapterError(
                f"{key} has the shape {arrays[key].shape} or values that are not finite, the project takes {expected}",
                "generate the project with the adapter's configuration",
            )
        masters[parameter.master.name] = parameter.from_peft(arrays[key])
    return masters


def _kept(model: CompiledModel, given: Any) -> dict[str, np.ndarray] | None:
    """The quantisers' states of a configuration; None where it has none, as one of PEFT."""
    if given is None:
        return None
    kept = {}
    for tensor in quantizer_states(model):
        values = np.asarray(given.get(tensor.name, ()) if isinstance(given, dict) else ())
        if values.size != tensor.size or values.dtype.kind != "i":
            raise AdapterError(
                f"{CONFIG_FILE}: {_KEPT} has {values.size} whole numbers for {tensor.name}, expected {tensor.size}",
                f"remove {_KEPT}, so that scales are chosen anew",
            )
        kept[tensor.name] = values.reshape(tensor.shape)
    return kept


def _with_package(model: CompiledModel, adapter: Adapter, package: bytes) -> Adapter:
    """The adapter with the package beside it, which may have a name and a signature; AdapterError for other weights."""
    if parse(pad_package(model, package)).payload != parse(adapter.package).payload:
        raise AdapterError(
            f"{PACKAGE_FILE} is not made from {WEIGHTS_FILE}: one of them was changed",
            f"remove {PACKAGE_FILE} to take the weights, or give {PACKAGE_FILE} itself",
        )
    return replace(adapter, package=package)


def _keys(modules: list[Module]) -> dict[str, Parameter]:
    return {f"{_PREFIX}{key}": parameter for module in modules for key, parameter in module.keys().items()}

"""An adapter as files: PEFT's adapter_config.json and adapter_model.safetensors, and the package for the device."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from tinypeft import __version__
from tinypeft.compiler import CompiledModel
from tinypeft.errors import AdapterError, OutputError

CONFIG, WEIGHTS, PACKAGE = "adapter_config.json", "adapter_model.safetensors", "adapter.bin"
_PREFIX = "base_model.model."


def write_adapter(
    directory: Path | str, model: CompiledModel, state: dict[str, np.ndarray], package: bytes, extra: dict[str, Any]
) -> None:
    """Write the three files of an adapter, or nothing; an earlier adapter in `directory` is replaced.

    The float32 masters in `state` go under PEFT's names and shapes; `extra` joins our own data under "tinypeft". Raises
    OutputError for a folder with other content.
    """
    target = check_adapter_folder(directory)
    tensors = {
        _PREFIX + p.peft_name: np.ascontiguousarray(p.to_peft(state[p.master.name]), np.float32)
        for p in model.parameters
    }
    files = {
        CONFIG: (json.dumps(peft_config(model, extra), indent=2, sort_keys=True) + "\n").encode(),
        WEIGHTS: save(tensors, {"format": "pt"}),
        PACKAGE: package,
    }
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            for name, data in files.items():
                (stage / name).write_bytes(data)
            target.mkdir(exist_ok=True)
            for name in files:
                (stage / name).replace(target / name)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}", "choose another output folder"
        ) from error


def check_adapter_folder(directory: Path | str) -> Path:
    """`directory` as a path; raises OutputError where it holds anything but an adapter."""
    target = Path(directory)
    ours = {CONFIG, WEIGHTS, PACKAGE}
    if target.exists() and (not target.is_dir() or {p.name for p in target.iterdir()} - ours):
        raise OutputError(f"{target} exists and holds something other than an adapter", "choose another output folder")
    return target


def peft_config(model: CompiledModel, extra: dict[str, Any]) -> dict[str, Any]:
    """adapter_config.json: PEFT's keys, and under "tinypeft" the base model's fingerprint and our own."""
    adapter = model.adapter
    lora = [p.layer for p in model.parameters if ".lora_" in p.peft_name]
    saved = [p.layer for p in model.parameters if ".lora_" not in p.peft_name]
    return {
        "peft_type": "LORA",
        "r": adapter.r,
        "lora_alpha": adapter.lora_alpha,
        "target_modules": list(dict.fromkeys(lora)),
        "modules_to_save": list(dict.fromkeys(saved)) or None,
        "bias": "none",
        "lora_dropout": 0.0,
        "tinypeft": {"version": __version__, "model": model.name, "fingerprint": model.fingerprint.hex(), **extra},
    }


def read_package(path: Path) -> bytes:
    """The device package of an adapter folder, or of the file itself; raises AdapterError where there is none."""
    file = path / PACKAGE if path.is_dir() else path
    try:
        return file.read_bytes()
    except OSError as error:
        raise AdapterError(
            f"cannot read the adapter {file}: {error.strerror}", "give a folder that `tinypeft train` wrote"
        ) from error

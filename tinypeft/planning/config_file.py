"""A chosen plan as tinypeft.toml: configurations in, the text that `tinypeft generate --config` reads out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tinypeft.adapters import AdapterConfig
from tinypeft.kernels import KernelConfig
from tinypeft.memory import MemoryConfig
from tinypeft.planning.report import PlanFacts
from tinypeft.training import TrainingConfig


def config_text(
    folder: Path,
    *,
    model: str,
    calibration: str | None,
    board: str,
    stack_bytes: int,
    memory: MemoryConfig,
    adapter: AdapterConfig,
    training: TrainingConfig,
    kernels: KernelConfig,
    chosen: PlanFacts,
) -> str:
    """The file; paths in it are relative to `folder`, in which it will lie. What is as by default is left out."""
    paths = {"path": model} | ({"calibration": calibration} if calibration else {})
    sections: dict[str, dict[str, Any]] = {
        "model": {key: _relative(path, folder) for key, path in paths.items()},
        "board": {
            "name": board,
            "stack_bytes": stack_bytes,
            "arena_regions": list(memory.arena_regions),
            "weights_region": memory.weights_region,
            "ram_budget": memory.ram_budget,
            "samples": memory.samples,
            **({"adapters": memory.adapters, "resident": memory.resident} if memory.adapters else {}),
            **({"merge_room": memory.merge_room} if memory.merge_room else {}),
        },
        "adapter": {
            "kind": adapter.adapter.split("+"),
            "r": adapter.r,
            "lora_alpha": adapter.lora_alpha,
            **({"target_modules": []} if adapter.target_modules == () else {}),
            "modules_to_save": list(adapter.modules_to_save or ()) or "none",
            **dict(adapter.options),
        },
        "adapter.targets": {kind: list(layers) for kind, layers in adapter.targets if not isinstance(layers, str)},
        "training": _beyond_default(training),
        "kernels": _kernels(kernels, folder),
    }
    return "\n".join(_lines(sections, chosen)) + "\n"


def _lines(sections: dict[str, dict[str, Any]], chosen: PlanFacts) -> Iterator[str]:
    counted = chosen.instructions_measured
    yield (
        f"# {chosen.score_share:.1%} of the score of all layers, {chosen.trainable_parameters:,} trained parameters, "
        f"{chosen.ram_bytes:,} B of RAM, {chosen.flash_bytes:,} B of flash,"
    )
    yield f"# {counted or chosen.instructions_per_step:,} instructions a training step" + (
        "" if counted else ", estimated"
    )
    for title, entries in sections.items():
        kept = {key: value for key, value in entries.items() if value not in ("", 0, ()) and _wanted(title, key, value)}
        if kept:
            yield f"\n[{title}]"
            yield from (f"{key} = {_value(value)}" for key, value in kept.items())


def _wanted(title: str, key: str, value: Any) -> bool:
    return not (title == "board" and value == [])


def _beyond_default(training: TrainingConfig) -> dict[str, Any]:
    default = asdict(TrainingConfig())
    given = {key: value for key, value in asdict(training).items() if value != default[key]}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}


def _kernels(kernels: KernelConfig, folder: Path) -> dict[str, Any]:
    asked = [*kernels.backends, *(f"{operation}={backend}" for operation, backend in kernels.overrides)]
    return {
        **({"backends": asked} if asked != list(KernelConfig.backends) else {}),
        **({"optimize": kernels.optimize} if kernels.optimize != KernelConfig.optimize else {}),
        **({"cmsis_nn": _relative(kernels.cmsis_nn, folder)} if kernels.cmsis_nn else {}),
    }


def _relative(path: str, folder: Path) -> str:
    """`path`, which may name a key behind a colon, as seen from `folder`."""
    return Path(os.path.relpath(path, folder)).as_posix()


def _value(value: Any) -> str:
    """TOML's strings, numbers, booleans and lists are JSON's, but for U+007F."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

"""Generate a project folder from a model and configurations, and open such a folder again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from tinypeft.adapters import AdapterConfig
from tinypeft.boards import Board, load_board
from tinypeft.codegen import GeneratedSources, generate_sources
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.emulators import EMULATORS
from tinypeft.errors import FitError, OutputError
from tinypeft.frontend import LoadedModel, load_model, load_tflite
from tinypeft.project import ElfSizes, build_firmware, build_twin, measure, read_manifest, write_project
from tinypeft.resources import resource_path
from tinypeft.stages.autodiff import TrainingConfig

DEFAULT_STACK = 4096
#: The most that the command server, the guard words and their alignment take beside a model
RUNTIME_RAM = 1200
BASE_MODEL = "base.tflite"

Progress = Callable[[str], None]
_Configuration = TypeVar("_Configuration", AdapterConfig, TrainingConfig)


@dataclass(frozen=True)
class Report:
    """What a project needs, in bytes; `flash_bytes`, `ram_bytes` are None for the host board.

    ram_bytes: arena, adapter, optimizer (masters included), stack, data_bss (the rest), total (what the ELF says).
    """

    arena_bytes: int
    arena_lower_bound: int
    flash_bytes: int | None
    ram_bytes: dict[str, int] | None
    macs: int
    trainable_parameters: int
    base_parameters: int


@dataclass(eq=False)
class Project:
    """A generated folder, compiled again from its own model and configuration."""

    directory: Path
    board: Board
    model: CompiledModel
    source: LoadedModel


def generate_project(
    model_path: Path | str,
    board: Board,
    directory: Path | str,
    *,
    calibration: np.ndarray | None = None,
    adapter: AdapterConfig | None = None,
    training: TrainingConfig | None = None,
    stack_bytes: int = DEFAULT_STACK,
    progress: Progress = lambda step: None,
) -> Report:
    """Write the project of `model_path` for `board` to `directory`, built; or, on any error, nothing.

    `calibration` (N, ...) is needed for a .keras or .h5. Raises FitError where the model does not fit the board.
    """
    adapter, training = adapter or AdapterConfig(), training or TrainingConfig()
    source = load_model(model_path, calibration, progress)
    progress("compiling")
    model = compile_model(source.name, source.fingerprint, source.graph, adapter, training)
    sources = _generate(model, board)
    if not board.is_host:
        _check_fit(model, sources, source, board, stack_bytes)
    sizes: list[ElfSizes] = []

    def build(folder: Path) -> None:
        progress("building")
        if board.is_host:
            build_twin(folder)
        else:
            sizes.append(measure(build_for_board(folder, board)))

    manifest = {
        "adapter": asdict(adapter),
        "training": asdict(training),
        "keras_layers": list(source.keras_layers.items()),  # their order counts
        "source": Path(model_path).name,
    }
    write_project(
        directory,
        board,
        model_name=source.name,
        sources=sources.files,
        kernels=sources.kernels,
        stack_bytes=stack_bytes,
        manifest=manifest,
        files={BASE_MODEL: source.tflite},
        prepare=build,
    )
    return _report(model, source, sizes[0] if sizes else None)


def build_for_board(directory: Path | str, board: Board) -> Path:
    """Build a project's firmware, and write what its emulators need beside it; returns the ELF's path."""
    elf = build_firmware(directory, board)
    for name in board.emulators:
        EMULATORS[name].prepare(Path(directory), board)
    return elf


def open_project(directory: Path | str) -> Project:
    """The project that `generate_project` wrote; raises OutputError where the folder is none or is damaged."""
    folder = Path(directory)
    manifest = read_manifest(folder)
    try:
        tflite = (folder / "model" / BASE_MODEL).read_bytes()
        adapter = _configuration(AdapterConfig, manifest["adapter"])
        training = _configuration(TrainingConfig, manifest["training"])
        name, board = _of_type(manifest, "model", str), _of_type(manifest, "board", str)
        layers = dict(_of_type(manifest, "keras_layers", list))
        _of_type(manifest, "files", dict)
    except KeyError as error:
        raise OutputError(f"{folder} is damaged: its manifest.json lacks {error}", "generate it again") from error
    except (OSError, TypeError, ValueError) as error:
        raise OutputError(f"{folder} is damaged: {error}", "generate it again") from error
    source = load_tflite(name, tflite, layers)
    model = compile_model(source.name, source.fingerprint, source.graph, adapter, training)
    project = Project(folder, load_board(board), model, source)
    _check_current(project, manifest)
    return project


def _generate(model: CompiledModel, board: Board) -> GeneratedSources:
    return generate_sources(model, None if board.is_host else board.ram.length)


def _check_current(project: Project, manifest: dict[str, Any]) -> None:
    """Raise OutputError where this tinypeft would generate other sources, so that comparing with them tells nothing."""
    sources = _generate(project.model, project.board)
    current = {f"src/{name}": text.encode() for name, text in sources.files.items()}
    for name in sources.kernels:
        current[f"firmware/kernels/{name}"] = resource_path("firmware", "kernels", name).read_bytes()
    for path, content in current.items():
        if manifest["files"].get(path) != hashlib.sha256(content).hexdigest():
            raise OutputError(
                f"{project.directory} was generated by another tinypeft ({manifest['tinypeft']}): {path} differs",
                "generate it again",
            )


def _of_type(manifest: dict[str, Any], key: str, kind: type) -> Any:
    if not isinstance(manifest[key], kind):
        raise TypeError(f"manifest.json has {manifest[key]!r} for {key}")
    return manifest[key]


def _configuration(kind: type[_Configuration], values: Any) -> _Configuration:
    """The dataclass `kind` from the manifest's values; TypeError where one is of another type."""
    if not isinstance(values, dict):
        raise TypeError(f"manifest.json has {values!r} for a {kind.__name__}")
    given: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    simple: dict[Any, Any] = {"str": str, "int": int, "float": (int, float)}
    for field in fields(kind):
        expected = simple.get(field.type, (str, tuple, type(None)))
        if field.name in given and not isinstance(given[field.name], expected):
            raise TypeError(f"manifest.json has {given[field.name]!r} for {field.name}")
    return kind(**given)


def _report(model: CompiledModel, source: LoadedModel, sizes: ElfSizes | None) -> Report:
    ram = None
    adapter = model.adapter_bytes
    optimizer = model.training_bytes
    if sizes is not None:
        planned = model.arena.arena_bytes + adapter + optimizer
        ram = {
            "arena": model.arena.arena_bytes,
            "adapter": adapter,
            "optimizer": optimizer,
            "stack": sizes.stack_bytes,
            "data_bss": sizes.data_bss_bytes - planned,
            "total": sizes.ram_bytes,
        }
    weights = {id(t): t for op in source.graph.operations for t in op.inputs.values() if t.data is not None}
    return Report(
        model.arena.arena_bytes,
        model.arena.lower_bound,
        None if sizes is None else sizes.flash_bytes,
        ram,
        sum(op.op.macs(op) for op in model.inference.operations),
        sum(parameter.master.size for parameter in model.parameters),
        sum(t.size for t in weights.values()),
    )


def _ram_needed(model: CompiledModel, stack_bytes: int) -> int:
    persistent = model.adapter_bytes + model.training_bytes
    return model.arena.arena_bytes + persistent + stack_bytes + RUNTIME_RAM


def _check_fit(
    model: CompiledModel, sources: GeneratedSources, source: LoadedModel, board: Board, stack_bytes: int
) -> None:
    """Raise FitError before anything is written where the planned memory is more than the board has."""
    if sources.flash_tables > board.flash.length:
        raise FitError(
            f"the constants of {model.name} need {sources.flash_tables:,} B of flash, {board.name} has "
            f"{board.flash.length:,} B in {board.flash.name}",
            "use a smaller model, or a board with more flash: tinypeft boards",
        )
    needed = _ram_needed(model, stack_bytes)
    if needed <= board.ram.length:
        return
    largest = next(g for g in model.graphs if g.name == model.arena.largest)
    plan = model.arena.plans[largest.name]
    peak = largest.operations[min(plan.peak_operation, len(largest.operations) - 1)]
    raise FitError(
        f"{model.name} needs {needed:,} B of RAM (arena {model.arena.arena_bytes:,}, adapter and optimiser "
        f"{needed - model.arena.arena_bytes - stack_bytes - RUNTIME_RAM:,}, stack {stack_bytes:,}, "
        f"runtime {RUNTIME_RAM:,}), {board.name} has "
        f"{board.ram.length:,} B in {board.ram.name}; the arena peaks at op {plan.peak_operation} of {largest.name}, "
        f"{peak.name}",
        _what_would_fit(model, source, board, stack_bytes),
    )


def _what_would_fit(model: CompiledModel, source: LoadedModel, board: Board, stack_bytes: int) -> str:
    """The first smaller configuration that fits, as the option to give."""
    stacks = [stack_bytes] if stack_bytes <= DEFAULT_STACK else [stack_bytes, DEFAULT_STACK]
    for option, candidate in _smaller_adapters(model):
        smaller = compile_model(model.name, model.fingerprint, source.graph, candidate, model.training_config)
        for stack in stacks:
            needed = _ram_needed(smaller, stack)
            if needed <= board.ram.length:
                options = (
                    [option] if stack == stack_bytes else [f"--stack-bytes {stack}", *([option] if option else [])]
                )
                return f"{' '.join(options)}, which needs {needed:,} B"
    return "a smaller model, or a board with more RAM: tinypeft boards"


def _smaller_adapters(model: CompiledModel) -> Iterator[tuple[str, AdapterConfig]]:
    """(options to give, the configuration that they make): the given one, then others that need less and less."""
    config = model.adapter
    yield "", config
    ranks = [r for r in (8, 4, 2, 1) if r < config.r] if config.adapter != "none" else []
    yield from ((f"--r {r}", replace(config, r=r)) for r in ranks)
    layers = list(dict.fromkeys(p.layer for p in model.parameters if p.name.endswith("_lora_A")))
    for r in [config.r, *ranks[-1:]]:
        rank = f" --r {r}" if r != config.r else ""
        for kept in range(len(layers) - 1, 0, -1):
            names = "|".join(map(re.escape, layers[-kept:]))
            yield f"--target-modules '{names}'{rank}", replace(config, target_modules=names, r=r)
    if config.adapter != "none":
        yield "--adapter none", replace(config, adapter="none")

"""Generate a project folder from a model and configurations, and open such a folder again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tinypeft.adapters import AdapterConfig
from tinypeft.adapters.loftq import attach_factors, starting_factors
from tinypeft.adapters.lora_options import largest_rank, starts_from_factors
from tinypeft.boards import Board, board_on, load_board
from tinypeft.codegen import GeneratedSources, generate_sources
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.emulators import EMULATORS
from tinypeft.errors import AdapterError, OutputError
from tinypeft.fitting import DEFAULT_STACK, Changes, Recipe, check_fit, flash_use, trainable_parameters
from tinypeft.frontend import LoadedModel, load_model, load_tflite
from tinypeft.kernels import BACKENDS, DEFAULT_KERNELS, KernelConfig, Target
from tinypeft.kernels.cmsis_nn import find_library
from tinypeft.memory import DEFAULT_MEMORY, WEIGHTS_SECTION, MemoryConfig
from tinypeft.package.verifier import Verifier
from tinypeft.planner import WHOLE, ArenaRegion
from tinypeft.project import (
    ElfSizes,
    ForTarget,
    build_firmware,
    build_twin,
    measure,
    read_manifest,
    retarget_project,
    write_project,
)
from tinypeft.resources import resource_path
from tinypeft.stages.autodiff import TrainingConfig

#: files of a project's folder model/: what it takes to compile the project again, and the stem of the Keras model that
#: it was converted from
BASE_MODEL, STARTING_FACTORS, KERAS_MODEL = "base.tflite", "loftq.safetensors", "source"

Progress = Callable[[str], None]
_Configuration = TypeVar("_Configuration", AdapterConfig, TrainingConfig, MemoryConfig, KernelConfig)


@dataclass(frozen=True)
class Report:
    """What a project needs, in bytes; `flash_bytes`, `ram_bytes`, `ram_regions` are None for the host board.

    ram_bytes: arena, adapter, optimizer (masters included), stack, data_bss (the rest), total (what the ELF says), and
    where there is any: target (of a loss against vectors), replay (the store of samples and what learning from it
    takes), merged (copies of weights that adapters merge into), adapters (those that are resident beside the first, and
    what keeps track of all).
    ram_regions: how much of it lies in each RAM of the board that is used, by name.
    recomputed_operations, recomputed_macs: what a training step runs again to stay within the RAM budget.
    """

    arena_bytes: int
    arena_lower_bound: int
    flash_bytes: int | None
    ram_bytes: dict[str, int] | None
    ram_regions: dict[str, int] | None
    macs: int
    trainable_parameters: int
    base_parameters: int
    recomputed_operations: int = 0
    recomputed_macs: int = 0


@dataclass(eq=False)
class Project:
    """A generated folder, compiled again from its own model and configuration."""

    directory: Path
    board: Board
    model: CompiledModel
    source: LoadedModel
    memory: MemoryConfig
    kernels: KernelConfig
    verify_key: bytes = b""


def generate_project(
    model_path: Path | str,
    board: Board,
    directory: Path | str,
    *,
    calibration: np.ndarray | None = None,
    adapter: AdapterConfig | None = None,
    training: TrainingConfig | None = None,
    memory: MemoryConfig = DEFAULT_MEMORY,
    kernels: KernelConfig = DEFAULT_KERNELS,
    stack_bytes: int = DEFAULT_STACK,
    progress: Progress = lambda step: None,
    source: LoadedModel | None = None,
    verifier: Verifier | None = None,
) -> Report:
    """Write the project of `model_path` for `board` to `directory`, built; or, on any error, nothing.

    `calibration` (N, ...) is needed for a .keras or .h5, unless `source` is what it was loaded as. With a `verifier`
    the firmware takes signed adapters alone. Raises FitError where the model does not fit the board.
    """
    adapter = adapter or AdapterConfig()
    factors: dict[str, np.ndarray] = {}
    if source is None or starts_from_factors(adapter):
        source, factors = load_source(model_path, calibration, adapter, progress)
    return generate_from(
        source,
        board,
        directory,
        adapter=adapter,
        training=training or TrainingConfig(),
        memory=memory,
        kernels=kernels,
        stack_bytes=stack_bytes,
        factors=factors,
        file=Path(model_path),
        progress=progress,
        verifier=verifier,
    )


def generate_from(
    source: LoadedModel,
    board: Board,
    directory: Path | str,
    *,
    adapter: AdapterConfig,
    training: TrainingConfig,
    memory: MemoryConfig = DEFAULT_MEMORY,
    kernels: KernelConfig = DEFAULT_KERNELS,
    stack_bytes: int = DEFAULT_STACK,
    factors: dict[str, np.ndarray] | None = None,
    file: Path | None = None,
    progress: Progress = lambda step: None,
    verifier: Verifier | None = None,
) -> Report:
    """The same of a model that was loaded from `file`, with the `factors` that `load_source` gives."""
    progress("compiling")
    board = memory.on(board)
    model = compile_for(source, board, adapter, training, stack_bytes, memory, kernels)
    if memory.samples and model.store is None:
        raise AdapterError(
            f"a store of {memory.samples} samples is of no use: {source.name} has no adapter that learns from them",
            "leave --samples out, or give --adapter lora",
        )
    if memory.adapters and model.kept is None:
        raise AdapterError(
            f"room for {memory.adapters} adapters is of no use: {source.name} was given none",
            "leave --adapters out, or give --adapter lora",
        )
    if memory.merge_room and model.merged is None:
        raise AdapterError(
            f"room of {memory.merge_room:,} B to merge is of no use: no layer of {source.name} with a LoRA fits it",
            "give more --merge-room, or leave it out",
        )
    if model.kept is not None and board.storage is not None:
        model.kept.check(source.name, board.name, board.storage)
    key = verifier.key if verifier is not None else b""
    if verifier is not None and not model.parameters:
        raise AdapterError(f"a key is of no use: {source.name} has no adapter that could be signed", "leave it out")
    sources = sources_for(model, board, memory, key)
    if not board.is_host:
        check_fit(model, board, stack_bytes, recipe(source, training, memory, sources.flash_tables, kernels=kernels))
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
        "memory": asdict(memory),
        "kernels": asdict(kernels),
        "keras_layers": list(source.keras_layers.items()),  # their order counts
        "source": file.name if file is not None else "",
        "verify_key": key.hex(),
    }
    write_project(
        directory,
        board,
        model_name=source.name,
        sources=sources.files,
        kernels=sources.kernels,
        defines=sources.defines,
        target=for_target(model, board, kernels, sources),
        optional=verifier.files if verifier is not None else None,
        stack_bytes=stack_bytes,
        weights_region=weights.name if (weights := memory.weights(board)) else "",
        manifest=manifest,
        files={BASE_MODEL: source.tflite, **_keras_file(file, source)}
        | ({STARTING_FACTORS: save(factors)} if factors else {}),
        storage=bool(memory.adapters),
        prepare=build,
    )
    return _report(model, source, board, sizes[0] if sizes else None)


def for_target(model: CompiledModel, board: Board, kernels: KernelConfig, sources: GeneratedSources) -> ForTarget:
    """What firmware alone is built with; raises ToolError where a library that kernels call is not there."""
    chosen = {choice.kernel.backend for choice in model.kernels.values() if choice.kernel is not None}
    if not any(BACKENDS[name].needs_library for name in chosen):
        return ForTarget(sources.target_defines)
    library = find_library(Path(kernels.cmsis_nn).resolve(), board.core)
    return ForTarget(sources.target_defines, (str(library.include),), (str(library.archive),))


def load_source(
    path: Path | str, calibration: np.ndarray | None, adapter: AdapterConfig, progress: Progress
) -> tuple[LoadedModel, dict[str, np.ndarray]]:
    """The model at `path` and, where LoRA starts from them, the factors of its quantisation error, which its graph has.

    Raises what `load_model` does.
    """
    wanted = starts_from_factors(adapter)
    source = load_model(path, calibration, progress, with_float=wanted)
    factors = starting_factors(source.graph, source.float_filters, largest_rank(adapter)) if wanted else {}
    attach_factors(source.graph, factors)
    return source, factors


def keras_model(project: Project) -> Path | None:
    """The Keras model that a project was generated from, as its folder holds it; None for one of a .tflite."""
    return next((project.directory / "model").glob(f"{KERAS_MODEL}.*"), None)


def _keras_file(path: Path | None, source: LoadedModel) -> dict[str, bytes]:
    if path is None or not source.keras_layers:
        return {}
    return {f"{KERAS_MODEL}{path.suffix.lower()}": path.read_bytes()}


def build_for_board(directory: Path | str, board: Board) -> Path:
    """Build a project's firmware, and write what its emulators need beside it; returns the ELF's path."""
    elf = build_firmware(directory, board)
    for name in board.emulators:
        EMULATORS[name].prepare(Path(directory), board)
    return elf


def build_for_emulator(directory: Path | str, board: Board, emulator: str) -> tuple[Path, Board]:
    """Build what `emulator` runs for a project of `board`: the project, or itself again for the twin of its board.

    Returns the folder and the board to give to the emulator; raises BoardError where it can run neither.
    """
    target = board_on(board, emulator)
    folder = Path(directory) if target is board else retarget_project(directory, target)
    build_for_board(folder, target)
    return folder, target


def open_project(directory: Path | str) -> Project:
    """The project that `generate_project` wrote; raises OutputError where the folder is none or is damaged."""
    folder = Path(directory)
    manifest = read_manifest(folder)
    try:
        tflite = (folder / "model" / BASE_MODEL).read_bytes()
        adapter = _configuration(AdapterConfig, manifest["adapter"])
        factors = load((folder / "model" / STARTING_FACTORS).read_bytes()) if starts_from_factors(adapter) else {}
        training = _configuration(TrainingConfig, manifest["training"])
        memory = _configuration(MemoryConfig, manifest["memory"])
        kernels = _configuration(KernelConfig, manifest["kernels"])
        name, board = _of_type(manifest, "model", str), _of_type(manifest, "board", str)
        layers = dict(_of_type(manifest, "keras_layers", list))
        stack_bytes = _of_type(manifest, "stack_bytes", int)
        _of_type(manifest, "files", dict)
        key = bytes.fromhex(manifest.get("verify_key", ""))
    except KeyError as error:
        raise OutputError(f"{folder} is damaged: its manifest.json lacks {error}", "generate it again") from error
    except (OSError, TypeError, ValueError, SafetensorError) as error:
        raise OutputError(f"{folder} is damaged: {error}", "generate it again") from error
    source = load_tflite(name, tflite, layers)
    attach_factors(source.graph, factors)
    target = memory.on(load_board(board))
    model = compile_for(source, target, adapter, training, stack_bytes, memory, kernels)
    project = Project(folder, target, model, source, memory, kernels, key)
    _check_current(project, manifest)
    return project


def compile_for(
    source: LoadedModel,
    board: Board | None,
    adapter: AdapterConfig,
    training: TrainingConfig,
    stack_bytes: int,
    memory: MemoryConfig = DEFAULT_MEMORY,
    kernels: KernelConfig = DEFAULT_KERNELS,
) -> CompiledModel:
    """`source` compiled for the memories and the core of `board`, of which the stack takes some RAM.

    Without a board it is for none in particular, and by the portable kernels alone, as for the host.
    """
    regions = memory.regions(board, stack_bytes) if board is not None else (ArenaRegion(WHOLE),)
    budget = memory.budget(stack_bytes)
    return compile_model(
        source.name,
        source.fingerprint,
        source.graph,
        adapter,
        training,
        regions,
        budget,
        memory.samples,
        memory.adapters,
        memory.resident,
        memory.merge_room,
        kernels,
        Target(board.core) if board is not None and not board.is_host else None,
    )


def recipe(
    source: LoadedModel,
    training: TrainingConfig,
    memory: MemoryConfig,
    constants: int,
    code: int = 0,
    kernels: KernelConfig = DEFAULT_KERNELS,
) -> Recipe:
    """How `source` is made for a board, its flash holding so many bytes of constants and code."""

    def compile_with(adapter: AdapterConfig, board: Board, stack_bytes: int, changes: Changes) -> CompiledModel:
        within = replace(memory, **_given(ram_budget=changes.ram_budget, samples=changes.samples))
        trained = replace(training, **_given(grad_bits=changes.grad_bits))
        return compile_for(source, board, adapter, trained, stack_bytes, within, kernels)

    return Recipe(compile_with, lambda board: flash_use(board, memory, constants, code))


def _given(**changes: int | None) -> dict[str, Any]:
    """Those that change something."""
    return {name: value for name, value in changes.items() if value is not None}


def sources_for(
    model: CompiledModel, board: Board, memory: MemoryConfig = DEFAULT_MEMORY, verify_key: bytes = b""
) -> GeneratedSources:
    """The C sources of `model`, which assert that it fits `board`, and take adapters signed with `verify_key` alone."""
    weights = memory.weights(board)
    return generate_sources(model, memory.ram_bytes(board), WEIGHTS_SECTION if weights else "", verify_key)


def _check_current(project: Project, manifest: dict[str, Any]) -> None:
    """Raise OutputError where this tinypeft would generate other sources, so that comparing with them tells nothing."""
    sources = sources_for(project.model, project.board, project.memory, project.verify_key)
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
    given: dict[str, Any] = {name: _tuples(value) for name, value in values.items()}
    simple: dict[Any, Any] = {"str": str, "int": int, "bool": bool, "float": (int, float)}
    for field in fields(kind):
        expected = simple.get(field.type, (str, tuple, type(None)))
        if field.name in given and not isinstance(given[field.name], expected):
            raise TypeError(f"manifest.json has {given[field.name]!r} for {field.name}")
    return kind(**given)


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _report(model: CompiledModel, source: LoadedModel, board: Board, sizes: ElfSizes | None) -> Report:
    ram = regions = None
    adapter = model.adapter_bytes
    optimizer = model.training_bytes
    if sizes is not None:
        planned = model.arena.arena_bytes + adapter + optimizer + model.target_bytes + model.replay_bytes
        planned += model.kept_bytes + model.merged_bytes
        ram = {
            "arena": model.arena.arena_bytes,
            "adapter": adapter,
            "optimizer": optimizer,
            **({"target": model.target_bytes} if model.target_bytes else {}),
            **({"replay": model.replay_bytes} if model.replay_bytes else {}),
            **({"merged": model.merged_bytes} if model.merged_bytes else {}),
            **({"adapters": model.kept_bytes} if model.kept_bytes else {}),
            "stack": sizes.stack_bytes,
            "data_bss": sizes.data_bss_bytes - planned,
            "total": sizes.ram_bytes,
        }
        regions = {board.ram.name: sizes.ram_bytes - sum(sizes.arena_parts.values()), **sizes.arena_parts}
    weights = {id(t): t for op in source.graph.operations for t in op.inputs.values() if t.data is not None}
    return Report(
        model.arena.arena_bytes,
        model.arena.lower_bound,
        None if sizes is None else sizes.flash_bytes,
        ram,
        regions,
        sum(op.op.macs(op) for op in model.inference.operations),
        trainable_parameters(model),
        sum(t.size for t in weights.values()),
        len(model.recomputed.again) if model.recomputed else 0,
        model.recomputed.macs if model.recomputed else 0,
    )

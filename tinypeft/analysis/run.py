"""From a model's file to its analysis: load, compile, look for what would fit, and measure where that is asked."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tinypeft.adapters import AdapterConfig
from tinypeft.analysis.analyse import analyse
from tinypeft.analysis.memory import memory_usage
from tinypeft.analysis.report import Analysis
from tinypeft.boards import Board
from tinypeft.codegen import GeneratedSources, generate_sources
from tinypeft.compiler import CompiledModel
from tinypeft.fitting import Way, fits, ways_to_fit
from tinypeft.generate import compile_for, for_target, load_source, recipe, sources_for
from tinypeft.kernels import DEFAULT_KERNELS, KernelConfig
from tinypeft.memory import MemoryConfig
from tinypeft.project import ElfSizes, build_firmware, measure, write_project
from tinypeft.stages.autodiff import TrainingConfig


def analyse_file(
    path: Path | str,
    board: Board | None,
    *,
    adapter: AdapterConfig,
    training: TrainingConfig,
    stack_bytes: int,
    memory: MemoryConfig | None = None,
    kernels: KernelConfig = DEFAULT_KERNELS,
    calibration: np.ndarray | None = None,
    measured: bool = False,
    progress: Callable[[str], None] = lambda step: None,
) -> Analysis:
    """The analysis of the model at `path` on `board`, None for none or this computer.

    `measured` builds the firmware, which needs a board and its compiler, and counts its bytes instead of estimating
    them; where it does not fit it cannot be linked, and a note says that the estimate stands.
    """
    memory = memory or MemoryConfig()
    source, _ = load_source(path, calibration, adapter, progress)
    progress("compiling")
    model = compile_for(source, board, adapter, training, stack_bytes, memory, kernels)
    sources = generate_sources(model) if board is None else sources_for(model, board, memory)
    usage = memory_usage(model, sources, stack_bytes, None)
    notes: list[str] = []
    fitting: bool | None = None
    ways: list[Way] = []
    if board is not None:
        how = recipe(source, training, memory, *usage.constants_and_code, kernels)
        fitting = fits(model, how.flash(board), board, stack_bytes)
        if fitting and measured:
            progress("building")
            usage = memory_usage(
                model, sources, stack_bytes, _built(model, sources, board, stack_bytes, memory, kernels)
            )
        elif measured:
            notes.append(f"Not measured: it does not fit {board.name}, so it cannot be linked.")
        if not fitting:
            progress("looking for what would fit")
            ways = ways_to_fit(model, board, stack_bytes, how)
    return analyse(
        model,
        usage,
        file=Path(path).name,
        stack_bytes=stack_bytes,
        board=board,
        memory=memory,
        fits=fitting,
        ways=ways,
        notes=notes,
    )


def _built(
    model: CompiledModel,
    sources: GeneratedSources,
    board: Board,
    stack_bytes: int,
    memory: MemoryConfig,
    kernels: KernelConfig,
) -> ElfSizes:
    """What the linked firmware takes, built in a folder that is removed again."""
    sizes: list[ElfSizes] = []
    weights = memory.weights(board)
    with tempfile.TemporaryDirectory() as folder:
        write_project(
            Path(folder) / "project",
            board,
            model_name=model.name,
            sources=sources.files,
            kernels=sources.kernels,
            defines=sources.defines,
            target=for_target(model, board, kernels, sources),
            stack_bytes=stack_bytes,
            weights_region=weights.name if weights else "",
            manifest={},
            files={},
            prepare=lambda tree: sizes.append(measure(build_firmware(tree, board))),
        )
    return sizes[0]

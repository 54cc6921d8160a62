"""A project folder in, what inference and a training step of its firmware cost out, counted on its emulated board."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinypeft.compiler import CompiledModel
from tinypeft.counting.code import Functions, disassemble, read_functions
from tinypeft.counting.cycles import CORES, cycle_costs
from tinypeft.counting.operators import GraphCost, graph_cost
from tinypeft.device import Device
from tinypeft.emulators.icount import Segment
from tinypeft.emulators.qemu import Qemu
from tinypeft.errors import AdapterError, DeviceError, ToolError
from tinypeft.generate import build_for_emulator, open_project
from tinypeft.ir import DTYPES, Tensor
from tinypeft.losses import target_on_device

#: the training step that counts: by then no adapter is as it was initialised
STEP = 3
_LEARNING_RATE = 0.01

#: functions of the generated C whose calls are the operators', as MODEL_<name>; its local functions belong to them
_GLUE = ("forward", "train_step", "prepare_training", "unmerge")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Measurement:
    """What a project's firmware costs on `core`; `ran_on` is the board that was emulated, its twin where it has one."""

    model: str
    board: str
    ran_on: str
    core: str
    inference: GraphCost
    train: GraphCost | None = None

    def as_json(self) -> dict[str, Any]:
        """The totals and operators of an inference, those of a training step as "train"."""
        where = {"model": self.model, "board": self.board, "ran_on": self.ran_on, "core": self.core}
        train = {} if self.train is None else {"train": self.train.as_json()}
        return where | self.inference.as_json() | train


def measure_project(
    directory: Path | str, *, train: bool = False, progress: Progress = lambda step: None
) -> Measurement:
    """Build a project's firmware and count it under QEMU: one inference and, with `train`, one training step.

    Inputs are random, always the same. Everything runs twice, from reset; DeviceError where the counts differ.
    BoardError where QEMU has neither the project's board nor a twin, ToolError where QEMU or the compiler is missing,
    AdapterError where there is nothing to train.
    """
    qemu = Qemu()
    progress("reading the project")
    project = open_project(directory)
    model = project.model
    if train and model.training is None:
        raise AdapterError(f"{model.name} has no adapter that could be trained", "generate it with --adapter lora")
    if (reason := qemu.missing()) is not None:
        raise ToolError(f"nothing can be counted here: {reason}", "tinypeft doctor lists what is installed")
    progress("building")
    folder, board = build_for_emulator(directory, project.board, qemu.name)
    elf = Path(folder) / "build" / "firmware.elf"
    functions = read_functions(elf)
    glue = glue_of(model.name, functions)
    estimates = board.core in CORES
    runs: list[list[list[Segment]]] = []
    for number in ("first", "second"):
        progress(f"counting, {number} run")
        with qemu.profile(folder, board, glue, unaligned=estimates) as (device, profile):
            runs.append(list(_profiles(model, device, profile, train)))
    if runs[0] != runs[1]:
        raise DeviceError(
            f"two runs of {model.name} on {board.name} executed different instructions", "report it: both start alike"
        )
    costs = cycle_costs(disassemble(elf, functions).values()) if estimates else None
    graphs = [graph for graph in (model.inference, model.training if train else None) if graph is not None]
    found = [
        graph_cost(graph, segments, functions, glue, costs, model.arena.plans[graph.name].arena_bytes)
        for graph, segments in zip(graphs, runs[0], strict=True)
    ]
    return Measurement(
        model.name, project.board.name, board.name, board.core, found[0], found[1] if len(found) > 1 else None
    )


def glue_of(model: str, functions: Functions) -> list[range]:
    """Where the generated code is whose calls are operators."""
    names = {f"{model}_{name}" for name in _GLUE}
    return [f.addresses for f in functions if names.intersection(f.names) or f.source == f"{model}.c"]


def _profiles(
    model: CompiledModel, device: Device, profile: Callable[[], list[Segment]], train: bool
) -> list[list[Segment]]:
    rng = np.random.default_rng(0)
    inputs = [_random_input(model.inference.inputs[0], rng) for _ in range(STEP)]
    device.infer(inputs[0])
    found = [profile()]
    if train:
        device.reset_adapter(0)
        for step, sample in enumerate(inputs):
            device.train_step(sample, target_on_device(model.target, _target(model, step)), _LEARNING_RATE)
        found.append(profile())
    return found


def _random_input(tensor: Tensor, rng: np.random.Generator) -> bytes:
    """One sample of any values that the tensor can have; real values about 1."""
    if tensor.dtype == "float32":
        return rng.standard_normal(tensor.shape, np.float32).tobytes()
    dtype = DTYPES[tensor.dtype]
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, tensor.shape, dtype, endpoint=True).tobytes()


def _target(model: CompiledModel, step: int) -> Any:
    """A class in turn, or a vector of zeros."""
    if model.target is not None and model.target.shape:
        return np.zeros(model.target.shape)
    return step % max(model.classes, 1)

"""What `run`, `test` and `train` share: their options, the built project, its samples, and a device to run it on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tinypeft.cli.output import progress_console
from tinypeft.data import Dataset, load_dataset
from tinypeft.device import Device
from tinypeft.emulators import EMULATORS
from tinypeft.errors import ToolError
from tinypeft.generate import Project, build_for_board, open_project
from tinypeft.project import build_twin

_FLOAT32_MAX = (2 - 2**-23) * 2.0**127

_Command = TypeVar("_Command", bound=Callable[..., Any])


def device_options(command: _Command) -> _Command:
    """Decorator: DIRECTORY, --on and --data."""
    command = click.option("--data", required=True, metavar="F.npz:X[:Y]", help="Samples, and their labels.")(command)
    kinds = click.Choice(sorted(EMULATORS))
    command = click.option("--on", default="host", show_default=True, type=kinds, help="Where to run it.")(command)
    return click.argument("directory")(command)


def check_learning_rate(learning_rate: float) -> None:
    """Usage error unless it is a positive float32."""
    if not 0 < learning_rate <= _FLOAT32_MAX:
        raise click.UsageError(f"--lr is {learning_rate}, it must be positive and at most {_FLOAT32_MAX:g}.")


def open_samples(directory: str, data: str, *, labels: bool, limit: int | None = None) -> tuple[Project, Dataset]:
    """The project, and the first `limit` samples of `data`; usage error where labels are needed and none are given."""
    project = open_project(directory)
    dataset = load_dataset(data, project.model.inference.inputs[0], project.model.output.shape[-1])
    if labels and dataset.y is None:
        raise click.UsageError(f"--data {data} names no labels; write F.npz:X:Y.")
    if limit is not None:
        dataset = Dataset(dataset.x[:limit], None if dataset.y is None else dataset.y[:limit])
    return project, dataset


@contextlib.contextmanager
def running_device(project: Project, on: str, *, count_instructions: bool) -> Iterator[Device]:
    """The built project, running."""
    emulator = EMULATORS[on]
    if (reason := emulator.missing()) is not None:
        raise ToolError(f"{on} cannot run here: {reason}", "tinypeft doctor lists what is installed; try --on host")
    with progress_console().status("building"):
        if on == "host":
            build_twin(project.directory)
        else:
            emulator.settings(project.board)
            build_for_board(project.directory, project.board)
    with emulator.open(project.directory, project.board, count_instructions=count_instructions) as device:
        yield device


@contextlib.contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A function (phase, done, total) that shows one bar a phase on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=progress_console()) as progress:
        tasks: dict[str, Any] = {}

        def show(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = progress.add_task(phase, total=total)
            progress.update(tasks[phase], completed=done)

        yield show

"""What `run`, `test` and `train` share: their options, the built project, its samples, and a device to run it on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tinypeft import running
from tinypeft.cli.output import progress_console
from tinypeft.compiler import CompiledModel
from tinypeft.data import Dataset, load_dataset
from tinypeft.device import Device
from tinypeft.emulators import EMULATORS, find_emulator
from tinypeft.errors import ToolError
from tinypeft.generate import Project, open_project
from tinypeft.personalise import target_form

_FLOAT32_MAX = (2 - 2**-23) * 2.0**127

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Target(click.ParamType):
    """A name of EMULATORS, or NAME:ADDRESS; stays a string."""

    name = "target"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            find_emulator(value)
        except ToolError as error:
            self.fail(f"{error.message}; {error.hint}", param, ctx)
        return value

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        forms = {"serial": "serial:PORT[:BAUD]", "host": "host[:FILE]"}
        return "[" + "|".join(forms.get(name, name) for name in sorted(EMULATORS)) + "]"


def device_options(command: _Command) -> _Command:
    """Decorator: DIRECTORY, --on and --data."""
    command = click.option("--data", required=True, metavar="F.npz:X[:Y]", help="Samples, and their labels.")(command)
    command = click.option("--on", default="host", show_default=True, type=Target(), help="Where to run it.")(command)
    return click.argument("directory")(command)


def check_learning_rate(learning_rate: float) -> None:
    """Usage error unless it is a positive float32."""
    if not 0 < learning_rate <= _FLOAT32_MAX:
        raise click.UsageError(f"--lr is {learning_rate}, it must be positive and at most {_FLOAT32_MAX:g}.")


def open_samples(directory: str, data: str, *, labels: bool, limit: int | None = None) -> tuple[Project, Dataset]:
    """The project, and the first `limit` samples of `data`, with labels or target vectors where it names them.

    Usage error where `labels` are needed and none are given, or given where the model is trained to give its input.
    """
    project = open_project(directory)
    dataset = load_samples(project.model, data, labels=labels)
    if limit is not None:
        dataset = Dataset(dataset.x[:limit], None if dataset.y is None else dataset.y[:limit])
    return project, dataset


def load_samples(model: CompiledModel, data: str, *, labels: bool, option: str = "--data") -> Dataset:
    """The samples that `option` names; usage errors as of `open_samples`."""
    classes, vectors = target_form(model)
    alone = model.training is not None and model.target is None
    if alone and data.lower().rpartition(".npz")[2].count(":") > 1:
        raise click.UsageError(f"{model.name} is trained to give its input: {option} {data} needs no Y; write F.npz:X.")
    dataset = load_dataset(data, model.inference.inputs[0], classes, vectors)
    if labels and dataset.y is None and not alone:
        raise click.UsageError(f"{option} {data} names no {'targets' if vectors else 'labels'}; write F.npz:X:Y.")
    return dataset


@contextlib.contextmanager
def running_device(project: Project, on: str, *, count_instructions: bool, fresh: bool = True) -> Iterator[Device]:
    """The same as `running.running_device`, its building shown."""
    with contextlib.ExitStack() as stack:
        with progress_console().status("building"):
            tell = progress_console().print
            opened = running.running_device(project, on, count_instructions=count_instructions, fresh=fresh, tell=tell)
            device = stack.enter_context(opened)
        yield device


@contextlib.contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A function (phase, done, total) that shows one bar a phase on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=progress_console())
    tasks: dict[str, Any] = {}

    def show(phase: str, done: int, total: int) -> None:
        progress.start()  # with the first bar: an error in front of it has the screen to itself
        if phase not in tasks:
            tasks[phase] = progress.add_task(phase, total=total)
        progress.update(tasks[phase], completed=done, total=total)

    try:
        yield show
    finally:
        if tasks:
            progress.stop()

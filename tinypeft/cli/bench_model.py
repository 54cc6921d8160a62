"""`tinypeft bench MODEL`: instructions, estimated cycles, code and tables of a model's firmware, by operator."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.markup import escape
from rich.table import Table

from tinypeft.boards import board_on, load_board
from tinypeft.cli.compile_options import CompileSettings, compile_options, compile_settings
from tinypeft.cli.output import console, json_option, print_json, progress_console
from tinypeft.config import load_config
from tinypeft.counting import GraphCost, Measurement, OperatorCost, measure_project
from tinypeft.generate import generate_project
from tinypeft.project import read_manifest

#: measures, telling its progress
Job = Callable[[Callable[[str], None]], Measurement]

#: heading, whether it is a number
_COLUMNS = {
    **{"#": True, "operator": False, "layer": False, "kernel": False, "MACs": True},
    **dict.fromkeys(("instructions", "per MAC", "est. cycles", "code B", "tables B", "scratch B"), True),
}


@click.command("model")
@compile_options
@click.option("--train", is_flag=True, help="Also a training step. A model file gets the adapter of --adapter.")
@click.option(
    "--beside",
    metavar="KERNELS|DIR",
    multiple=True,
    help="The same with other --kernels, or a generated folder of the model, in a column beside it; may be repeated.",
)
@json_option
def model(as_json: bool, config: str | None, train: bool, beside: tuple[str, ...], **flags: Any) -> None:
    """Count what MODEL executes on its board under QEMU: a .tflite, .keras or .h5, or a folder of `generate`.

    A model file is built in a temporary folder, without an adapter unless --train or --adapter ask for one. Inputs are
    random, always the same; everything runs twice and must give the same counts. Counts are exact. Cycles are an
    estimate by the timing tables of the Cortex-M4, without wait states of the flash, and never time.

    Several names in --kernels are measured one after the other and shown side by side, the first in full.
    """
    flags["kernels"], others = _apart(flags["kernels"])
    beside = (*others, *beside)
    with progress_console().status("starting") as status:
        jobs = [_job(config, train, flags), *(_job_beside(other, config, train, flags) for other in beside)]
        measured = [job(status.update) for job in jobs]
    if as_json:
        found = measured[0].as_json()
        print_json(found | ({"beside": [each.as_json() for each in measured[1:]]} if beside else {}))
        return
    out = console()
    for table in tables(measured[0]):
        out.print(table)
    if beside:
        names = [_name(flags), *(Path(other).name for other in beside)]
        out.print(side_by_side(names, [each.inference for each in measured]))
        if train:
            out.print(side_by_side(names, [each.train for each in measured if each.train is not None]))


def _apart(kernels: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(the first backend and what is asked for single operations, the other backends)."""
    names = [name.strip() for text in kernels for name in text.split(",")]
    backends = [name for name in names if "=" not in name]
    return (*backends[:1], *(name for name in names if "=" in name)), tuple(backends[1:])


def _name(flags: dict[str, Any]) -> str:
    """What tells MODEL from what is beside it."""
    return ",".join(flags["kernels"]) or Path(flags["model"]).stem


def _job(config: str | None, train: bool, flags: dict[str, Any]) -> Job:
    """How to measure MODEL; raises what is wrong with the options at once."""
    path = flags.get("model")
    if path is not None and Path(path).is_dir():
        _check_generated(path, config, flags)
        return lambda progress: measure_project(path, train=train, progress=progress)
    if not train and flags.get("adapter") is None and "adapter.kind" not in (load_config(config) if config else {}):
        flags = flags | {"adapter": "none"}
    settings = compile_settings(config, flags, "model.path", "board.name")
    board_on(load_board(settings.board), "qemu")
    return lambda progress: _generate_and_measure(settings, train, progress)


def _job_beside(other: str, config: str | None, train: bool, flags: dict[str, Any]) -> Job:
    """The same of a folder, or of MODEL with other kernels."""
    if Path(other).is_dir():
        return lambda progress: measure_project(other, train=train, progress=progress)
    if Path(flags["model"]).is_dir():
        raise click.UsageError(f"--beside {other}: {flags['model']} is generated already, name the model or a folder.")
    return _job(config, train, flags | {"kernels": (other,)})


def _generate_and_measure(settings: CompileSettings, train: bool, progress: Callable[[str], None]) -> Measurement:
    with tempfile.TemporaryDirectory(prefix="tinypeft-") as name:
        folder = Path(name) / "project"
        generate_project(
            settings.model,
            load_board(settings.board),
            folder,
            **settings.compilation,
            progress=progress,
        )
        return measure_project(folder, train=train, progress=progress)


def _check_generated(path: str, config: str | None, flags: dict[str, Any]) -> None:
    """Usage error where options are given that a folder, which is generated already, cannot follow."""
    board = read_manifest(path)["board"]
    given = {name: value for name, value in flags.items() if name != "model" and value not in (None, ())}
    given |= {"config": config} if config else {}
    if given.pop("board", board) != board:
        raise click.UsageError(f"{path} is generated for {board}: generate it for {flags['board']}, or name the model.")
    if given:
        flag = {option.name: option.opts[0] for option in click.get_current_context().command.params}
        names = ", ".join(sorted(flag[name] for name in given))
        raise click.UsageError(f"{path} is generated already: {names} would change nothing.")


def tables(measured: Measurement) -> list[Table]:
    """A table of every graph."""
    where = f"{measured.model} on {measured.board}"
    if measured.ran_on != measured.board:
        where += f", run on {measured.ran_on}"
    graphs = [("an inference", measured.inference), ("a training step", measured.train)]
    return [_operators(f"{where}: {title}", graph) for title, graph in graphs if graph is not None]


def _operators(title: str, graph: GraphCost) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, is_number in _COLUMNS.items():
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    for row in graph.operators:
        table.add_row(*map(escape, _row(row)))
    glue = (_number(graph.glue_instructions), "", _number(graph.glue_cycles), _number(graph.glue_code_bytes))
    table.add_row("", "around the calls", *[""] * 3, *glue)
    table.add_section()
    counts = (_number(graph.instructions), _ratio(graph), _number(graph.cycles))
    sizes = (_number(graph.code_bytes), _number(graph.weight_bytes), f"arena {graph.arena_bytes:,}")
    table.add_row("", "all", "", "", _number(graph.macs), *counts, *sizes)
    return table


def _row(row: OperatorCost) -> list[str]:
    kernel = f"{row.backend}: {row.form}" if row.form else row.kernel
    return [
        *(str(row.index), row.kind, row.layer, kernel, _number(row.macs or None)),
        *(_number(row.instructions), _ratio(row), _number(row.cycles)),
        *(_number(size or None) for size in (row.code_bytes, row.table_bytes, row.scratch_bytes)),
    ]


def side_by_side(names: Sequence[str], graphs: Sequence[GraphCost]) -> Table:
    """The same graph as compiled in several ways, cycles where there are any, else instructions."""
    unit = "instructions" if any(graph.cycles is None for graph in graphs) else "estimated cycles"
    title = f"{graphs[0].graph}: {unit}"
    table = Table("#", "operator", "layer", title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    rows = [{row.index: row for row in graph.operators} for graph in graphs]
    for index in sorted({index for each in rows for index in each}):
        known = next(each[index] for each in rows if index in each)
        cells = [_cost(each[index], unit) if index in each else "" for each in rows]
        table.add_row(str(index), known.kind, escape(known.layer), *cells)
    table.add_section()
    table.add_row("", "all", "", *(_cost(graph, unit) for graph in graphs))
    for heading, figures in (
        ("code B", [graph.code_bytes for graph in graphs]),
        ("tables B", [graph.weight_bytes for graph in graphs]),
        ("arena B", [graph.arena_bytes for graph in graphs]),
    ):
        table.add_row("", heading, "", *(f"{figure:,}" for figure in figures))
    return table


def _cost(cost: GraphCost | OperatorCost, unit: str) -> str:
    return _number(cost.instructions if unit == "instructions" else cost.cycles)


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _ratio(cost: GraphCost | OperatorCost) -> str:
    return f"{cost.instructions / cost.macs:.2f}" if cost.macs else "-"

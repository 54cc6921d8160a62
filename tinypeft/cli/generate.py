"""`tinypeft generate`: a model, adapters and a board into a firmware project."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from tinypeft.adapters import AdapterConfig
from tinypeft.boards import Board, load_board
from tinypeft.cli.output import console, json_option, print_json, progress_console
from tinypeft.config import load_config
from tinypeft.data import load_array
from tinypeft.generate import DEFAULT_STACK, Report, generate_project
from tinypeft.optimizers import OPTIMIZERS
from tinypeft.stages.autodiff import TrainingConfig

_STACK_MIN, _STACK_MAX = 512, 1 << 20
_DEFAULTS: dict[str, Any] = {
    "adapter.kind": "lora",
    "adapter.r": 4,
    "adapter.lora_alpha": 8.0,
    "training.optimizer": "sgd",
    "training.momentum": 0.0,
    "training.batch_size": 1,
    "board.stack_bytes": DEFAULT_STACK,
}


@click.command("generate")
@click.argument("model", required=False)
@click.option("--board", help="The board to build for; `tinypeft boards` lists them.")
@click.option("--calibration", metavar="F.npz:KEY", help="Samples of the input, to quantise a .keras or .h5.")
@click.option("--adapter", metavar="KIND", help="lora (the default), or none to infer only.")
@click.option("--r", "rank", type=int, help="LoRA's rank. Default 4.")
@click.option("--lora-alpha", type=float, help="LoRA's output is scaled by lora_alpha / r. Default 8.")
@click.option(
    "--target-modules", metavar="REGEX", help="Layers to adapt: must match the whole name. Default: all but depthwise."
)
@click.option(
    "--modules-to-save", metavar="NAME", help="The classifier to retrain, or `none`. Default: the last dense layer."
)
@click.option("--optimizer", type=click.Choice(sorted(OPTIMIZERS)), help="Default sgd.")
@click.option("--momentum", type=click.FloatRange(0, 1, max_open=True), help="SGD's momentum. Default 0.")
@click.option("--batch-size", type=click.IntRange(1, 65535), help="Samples averaged before an update. Default 1.")
@click.option("--stack-bytes", type=click.IntRange(_STACK_MIN, _STACK_MAX), help=f"Default {DEFAULT_STACK}.")
@click.option("--config", metavar="tinypeft.toml", help="A file with these options; flags override it.")
@click.option("-o", "--output", metavar="DIR", help="The folder to write.")
@json_option
def command(as_json: bool, config: str | None, **flags: Any) -> None:
    """Compile MODEL (.keras, .h5 or an int8 .tflite) into firmware that infers and trains its adapter.

    The folder is complete: it builds with make or CMake without tinypeft, and holds the base model for the tests.
    """
    values: dict[str, Any] = _DEFAULTS | (load_config(config) if config else {}) | _given(flags)
    for key, option in (("model.path", "MODEL"), ("board.name", "--board"), ("output.directory", "--output")):
        if key not in values:
            raise click.UsageError(f"Missing {option}.")
    board = load_board(values["board.name"])
    calibration = load_array(values["model.calibration"]) if "model.calibration" in values else None
    stack = values["board.stack_bytes"]
    if stack % 8 or not _STACK_MIN <= stack <= _STACK_MAX:
        raise click.UsageError(f"The stack of {stack} bytes is no multiple of 8 from {_STACK_MIN} to {_STACK_MAX}.")
    with progress_console().status("reading the model") as status:
        report = generate_project(
            values["model.path"],
            board,
            values["output.directory"],
            calibration=calibration,
            adapter=_adapter(values),
            training=TrainingConfig(
                values["training.optimizer"], float(values["training.momentum"]), values["training.batch_size"]
            ),
            stack_bytes=values["board.stack_bytes"],
            progress=lambda step: status.update(step),
        )
    if as_json:
        print_json(asdict(report))
        return
    print_report(report, board, Path(values["output.directory"]))


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    keys = {
        "model": "model.path",
        "board": "board.name",
        "calibration": "model.calibration",
        "adapter": "adapter.kind",
        "rank": "adapter.r",
        "lora_alpha": "adapter.lora_alpha",
        "target_modules": "adapter.target_modules",
        "modules_to_save": "adapter.modules_to_save",
        "optimizer": "training.optimizer",
        "momentum": "training.momentum",
        "batch_size": "training.batch_size",
        "stack_bytes": "board.stack_bytes",
        "output": "output.directory",
    }
    return {keys[name]: value for name, value in flags.items() if value is not None}


def _adapter(values: dict[str, Any]) -> AdapterConfig:
    targets, saved = values.get("adapter.target_modules"), values.get("adapter.modules_to_save")
    if isinstance(targets, list):
        targets = tuple(targets)
    if isinstance(saved, str):
        saved = [] if saved == "none" else [saved]
    return AdapterConfig(
        values["adapter.kind"],
        values["adapter.r"],
        float(values["adapter.lora_alpha"]),
        targets,
        None if saved is None else tuple(saved),
    )


def print_report(report: Report, board: Board, directory: Path) -> None:
    """The table of a project's memory, and where it is."""
    out = console()
    table = Table("memory", "bytes", "of the board", title=f"{directory.name} on {board.name}")
    for column in table.columns[1:]:
        column.justify = "right"
    if report.ram_bytes is not None:
        for name, size in report.ram_bytes.items():
            share = f"{size / board.ram.length:.1%}" if name == "total" else ""
            table.add_row(f"RAM: {name}", f"{size:,}", share, end_section=name == "total")
        assert report.flash_bytes is not None
        table.add_row("flash", f"{report.flash_bytes:,}", f"{report.flash_bytes / board.flash.length:.1%}")
    else:
        table.add_row("arena", f"{report.arena_bytes:,}", "")
    out.print(table)
    gap = report.arena_bytes - report.arena_lower_bound
    verdict = "optimal for this schedule, proved" if gap == 0 else f"{gap:,} B above the lower bound"
    out.print(f"arena {report.arena_bytes:,} B, {verdict}")
    trained = report.trainable_parameters / report.base_parameters
    out.print(
        f"{report.trainable_parameters:,} trained parameters ({trained:.1%} of {report.base_parameters:,}), "
        f"{report.macs:,} MACs an inference"
    )
    out.print(f"written to {directory}; next: tinypeft test {directory} --on host --data F.npz:X:Y")

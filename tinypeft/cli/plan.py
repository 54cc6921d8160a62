"""`tinypeft plan`: a model, samples and budgets into the layers, kinds and ranks to train, as tinypeft.toml."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.table import Table

from tinypeft.adapters import AdapterConfig
from tinypeft.boards import load_board
from tinypeft.cli.byte_size import ByteSize
from tinypeft.cli.compile_options import CompileSettings, compile_settings, training_options
from tinypeft.cli.on_device import progress_bars
from tinypeft.cli.output import console, json_option, print_json, progress_console
from tinypeft.config import load_config
from tinypeft.data import Dataset, VectorForm, load_dataset
from tinypeft.files import check_writable, write_file
from tinypeft.frontend import LoadedModel, load_model
from tinypeft.losses import INPUT, LOSSES, VECTOR
from tinypeft.planning import (
    Budget,
    Planned,
    Report,
    Setting,
    Survey,
    config_text,
    measured_step,
    plan_adapters,
    render_frontier,
)
from tinypeft.training import TrainingConfig

#: settings of [adapter] that are no choice of layers
_KEPT = ("lora_bits", "use_rslora")


@click.command("plan")
@training_options
@click.option("--data", metavar="F.npz:X[:Y]", help="What is to be learnt; without Y the model's own decisions count.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many of them, evenly.")
@click.option("--ram", type=ByteSize(), metavar="SIZE", help="All RAM of the firmware. Default: what the board has.")
@click.option("--flash", type=ByteSize(), metavar="SIZE", help="All flash. Default: what the board has.")
@click.option("--instructions-per-step", type=click.IntRange(1), metavar="N", help="Of a training step. Default: any.")
@click.option("--measure", is_flag=True, help="Build the plan's firmware and count its instructions under QEMU.")
@click.option("-o", "--output", metavar="tinypeft.toml", help="Write the chosen plan as a configuration.")
@click.option("--plot", metavar="F.html", help="Also write a page that draws the frontier.")
@json_option
def command(
    as_json: bool,
    config: str | None,
    data: str | None,
    limit: int,
    ram: int | None,
    flash: int | None,
    instructions_per_step: int | None,
    measure: bool,
    output: str | None,
    plot: str | None,
    **flags: Any,
) -> None:
    """Choose what to train of MODEL (.keras, .h5 or an int8 .tflite): the highest score within the budgets.

    A layer's score is its part in the squared gradient of the loss on the samples. Every plan that is shown was
    compiled: its memory is true, code and instructions are estimates. --ram counts all RAM: arena, adapter, optimiser,
    stack and runtime, as --ram-budget of `generate` does. --json follows the schema tinypeft.plan/1.
    """
    if plot is not None and Path(plot).suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(f"--plot {plot}: the frontier is drawn as a page, name it F.html.")
    settings = compile_settings(config, flags, "model.path", "board.name")
    for path in (output, plot):
        if path is not None:
            check_writable(path)
    ram = ram if ram is not None else settings.memory.ram_budget or None
    board = settings.memory.on(load_board(settings.board))
    if measure and board.is_host:
        raise click.UsageError("--measure counts under QEMU: give it a --board that is no host.")
    with progress_console().status("reading the model") as status:
        source = load_model(settings.model, settings.calibration, lambda step: status.update(step))
    calibration = flags.get("calibration") or (load_config(config) if config else {}).get("model.calibration")
    spec = data or calibration
    if spec is None:
        raise click.UsageError("Missing --data, or --calibration: scores come from samples.")
    dataset = _samples(settings.training, source, str(spec), limit)
    setting = Setting(
        source, board, _base(settings), settings.training, settings.memory, settings.stack_bytes, settings.kernels
    )
    budget = Budget(ram, flash, instructions_per_step)
    counted = functools.partial(measured_step, setting, dataset=dataset) if measure else None
    with progress_bars() as show:
        survey = Survey(setting, dataset, show)
        planned = plan_adapters(survey, budget, measure=counted, progress=show)
    if output is not None:
        write_file(output, _config(settings, planned, calibration, ram, Path(output)))
    if plot is not None:
        write_file(plot, render_frontier(planned.report))
    if as_json:
        print_json(planned.report.as_json())
        return
    _print(planned.report, output, plot)


def _samples(training: TrainingConfig, source: LoadedModel, spec: str, count: int) -> Dataset:
    """`count` samples of those that `spec` names, evenly."""
    output = source.graph.outputs[0]
    vectors = VectorForm(output.size, *LOSSES[training.loss].bounds) if training.target == VECTOR else None
    dataset = load_dataset(spec, source.graph.inputs[0], max(output.shape[-1:], default=1), vectors)
    if training.target == INPUT and dataset.y is not None:
        raise click.UsageError(f"The model is trained to give its input: --data {spec} needs no Y; write F.npz:X.")
    chosen = np.unique(np.linspace(0, len(dataset) - 1, count).round().astype(np.int64))
    return Dataset(dataset.x[chosen], None if dataset.y is None else dataset.y[chosen])


def _base(settings: CompileSettings) -> AdapterConfig:
    """What the plans' configurations have in common."""
    options = tuple((name, value) for name, value in settings.adapter.options if name in _KEPT)
    return AdapterConfig(lora_alpha=settings.adapter.lora_alpha, options=options)


def _config(settings: CompileSettings, planned: Planned, calibration: str | None, ram: int | None, output: Path) -> str:
    return config_text(
        output.parent,
        model=settings.model,
        calibration=calibration,
        board=settings.board,
        stack_bytes=settings.stack_bytes,
        memory=replace(settings.memory, ram_budget=ram or 0),
        adapter=planned.adapter,
        training=settings.training,
        kernels=settings.kernels,
        chosen=planned.report.chosen,
    )


def _print(report: Report, output: str | None, plot: str | None) -> None:
    out = console()
    labels = {"given": "labelled", "own": "without labels: its own decisions count", "none": "compared with themselves"}
    table = Table(
        "", "score", "parameters", "adapter B", "RAM B", "flash B", "instructions a step", "what is trained",
        title=f"{report.model} on {report.board}, {report.samples} samples {labels[report.labels]}",
    )  # fmt: skip
    for column in table.columns[1:7]:
        column.justify = "right"
    for plan in report.frontier:
        counted = plan.instructions_measured
        table.add_row(
            "→" if plan.chosen else "",
            f"{plan.score_share:.1%}",
            f"{plan.trainable_parameters:,}",
            f"{plan.adapter_bytes:,}",
            f"{plan.ram_bytes:,}",
            f"{plan.flash_bytes:,}",
            f"{counted:,}" if counted is not None else f"≈ {plan.instructions_per_step:,}",
            plan.label,
            style="bold" if plan.chosen else None,
        )
    out.print(table)
    out.print(f"chosen: {report.chosen.label}", markup=False)
    for path in (output, plot):
        if path is not None:
            out.print(f"written to {path}", markup=False)
    if output is not None:
        out.print(f"next: tinypeft generate --config {output} -o firmware", markup=False)

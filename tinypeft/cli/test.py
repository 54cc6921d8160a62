"""`tinypeft test`: parity of LiteRT, interpreter and device at every layer and every training step."""

from __future__ import annotations

from dataclasses import asdict

import click

from tinypeft.adapter_files import read_adapter
from tinypeft.cli.on_device import (
    check_learning_rate,
    device_options,
    open_samples,
    progress_bars,
    running_device,
)
from tinypeft.cli.output import console, json_option, print_json
from tinypeft.errors import AdapterError
from tinypeft.parity import Divergence, check_parity
from tinypeft.running import ran_on


@click.command("test")
@device_options
@click.option("--limit", type=click.IntRange(1), help="Only the first N samples.")
@click.option("--train-steps", type=click.IntRange(0), default=0, show_default=True, help="Training steps to compare.")
@click.option(
    "--lr", "learning_rate", type=float, default=0.02, show_default=True, help="Learning rate of those steps."
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the fresh adapter.")
@click.option("--adapter", metavar="ADAPTER_DIR", help="Compare with this adapter, which LiteRT has not.")
@json_option
def command(
    directory: str,
    on: str,
    data: str,
    limit: int | None,
    train_steps: int,
    learning_rate: float,
    seed: int,
    adapter: str | None,
    as_json: bool,
) -> None:
    """Compare the project DIRECTORY with the host to the bit: every layer, every training step.

    Exits 1 where anything differs.
    """
    check_learning_rate(learning_rate)
    project, dataset = open_samples(directory, data, labels=train_steps > 0, limit=limit)
    if train_steps and project.model.training is None:
        raise AdapterError(f"{project.model.name} was generated without adapters", "leave out --train-steps")
    package = read_adapter(adapter, project.model).package if adapter is not None else None
    with running_device(project, on, count_instructions=False) as device, progress_bars() as show:
        report = check_parity(
            project.model,
            project.source.tflite,
            device,
            on,
            dataset,
            train_steps=train_steps,
            learning_rate=learning_rate,
            seed=seed,
            adapter=package,
            progress=show,
        )
        intact = device.stats().guards_intact
    parity = report.parity and intact
    if as_json:
        print_json(asdict(report) | {"parity": parity, "ran_on": ran_on(project, on)})
    else:
        out = console()
        board = ran_on(project, on)
        where = on if board == on else f"{on} ({board})"
        compared = f"{report.layers_compared:,} outputs of layers, {report.steps_compared} training steps compared"
        out.print(
            f"[bold green]parity[/]: {'' if adapter else 'LiteRT = '}interpreter = {where}; {compared}"
            if parity
            else f"[bold red]no parity[/]; {compared}"
        )
        if report.first_divergence is not None:
            out.print(describe(report.first_divergence))
        if not intact:
            out.print("the guard words around the arena were overwritten")
    if not parity:
        raise click.exceptions.Exit(1)


def describe(divergence: Divergence) -> str:
    """One sentence that says where and how two sides differ first."""
    d = divergence
    return (
        f"first difference, between {d.between}: {d.phase} {d.step}, {d.operator} {d.operation}, "
        f"{d.tensor}[{d.index}]: {d.expected:g} and {d.actual:g}"
    )

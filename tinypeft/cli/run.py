"""`tinypeft run`: outputs and accuracy of samples on the host twin or an emulated board."""

from __future__ import annotations

import click

from tinypeft.adapter_files import read_adapter
from tinypeft.cli.on_device import device_options, open_samples, progress_bars, running_device
from tinypeft.cli.output import console, json_option, print_json
from tinypeft.personalise import infer_all, quality
from tinypeft.running import ran_on


@click.command("run")
@device_options
@click.option("--limit", type=click.IntRange(1), help="Only the first N samples.")
@click.option("--adapter", metavar="ADAPTER_DIR", help="An adapter of `tinypeft train` or of PEFT; else a fresh one.")
@json_option
def command(directory: str, on: str, data: str, limit: int | None, adapter: str | None, as_json: bool) -> None:
    """Run the project DIRECTORY on samples: outputs, and how good they are where labels or targets are given."""
    project, dataset = open_samples(directory, data, labels=False, limit=limit)
    package = read_adapter(adapter, project.model).package if adapter is not None else None
    with running_device(project, on, count_instructions=True) as device, progress_bars() as show:
        if package is not None:
            device.load_adapter(package)
        result = infer_all(project.model, device, dataset.x, lambda done: show("inference", done, len(dataset)))
    measured = quality(project.model, result, dataset.x, dataset.y)
    if as_json:
        print_json(
            {
                "outputs_sha256": result.sha256,
                "accuracy": measured.accuracy,
                "mean_squared_error": measured.error,
                "instructions_per_inference": result.instructions,
                "ran_on": ran_on(project, on),
            }
        )
        return
    out = console()
    out.print(f"{len(dataset)} samples on {on}; outputs' SHA-256 {result.sha256}")
    if measured.accuracy is not None:
        out.print(f"accuracy {measured.accuracy:.2%}")
    if measured.error is not None:
        out.print(f"mean squared error {measured.error:.6g}")
    if result.instructions is not None:
        out.print(f"{result.instructions:,} instructions an inference")

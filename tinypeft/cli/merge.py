"""`tinypeft merge`: a project's adapter merged into its base model."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.table import Table

from tinypeft.adapter_files import read_adapter
from tinypeft.cli.output import console, json_option, print_json, progress_console
from tinypeft.data import load_dataset
from tinypeft.generate import open_project
from tinypeft.merging.check import MergeCheck
from tinypeft.merging.files import MergeReport, merge_project
from tinypeft.personalise import target_form


@click.command("merge")
@click.argument("directory")
@click.option("--adapter", required=True, metavar="ADAPTER_DIR", help="An adapter of `tinypeft train` or of PEFT.")
@click.option("-o", "--output", required=True, metavar="F.tflite", help="The merged int8 model.")
@click.option("--keras", metavar="F.keras", help="The merged Keras model too, where the base was one.")
@click.option("--data", metavar="F.npz:X[:Y]", help="Samples with which to compare the merged model.")
@json_option
def command(directory: str, adapter: str, output: str, keras: str | None, data: str | None, as_json: bool) -> None:
    """Merge an adapter of the project DIRECTORY into its base: the same operators, no cost of an adapter left.

    Prints what rounding the merged weights to int8 has lost, and with --data what that does to the outputs.
    """
    project = open_project(directory)
    model = project.model
    dataset = load_dataset(data, model.inference.inputs[0], *target_form(model)) if data is not None else None
    with progress_console().status("merging"):
        report = merge_project(project, read_adapter(adapter, model), output, keras=keras, dataset=dataset)
    if as_json:
        print_json(asdict(report))
        return
    _print(report, output, keras)


def _print(report: MergeReport, output: str, keras: str | None) -> None:
    out = console()
    table = Table("layer", "adapters", "mean change", "mean error", "largest error", title="in steps of int8")
    for column in table.columns[2:]:
        column.justify = "right"
    for layer in report.layers:
        figures = (layer.mean_change, layer.mean_error, layer.largest_error)
        table.add_row(layer.layer, "+".join(layer.kinds), *(f"{figure:.3f}" for figure in figures))
    out.print(table)
    if report.check is not None:
        for line in _compared(report.check):
            out.print(line)
    out.print(f"written to {output}, {report.tflite_bytes:,} B" + (f", and {keras}" if keras else ""))


def _compared(check: MergeCheck) -> list[str]:
    lines = []
    if check.unmerged.accuracy is not None and check.merged.accuracy is not None:
        lines.append(f"accuracy unmerged {check.unmerged.accuracy:.2%}, merged {check.merged.accuracy:.2%}")
    if check.unmerged.error is not None and check.merged.error is not None:
        lines.append(f"mean squared error unmerged {check.unmerged.error:.6g}, merged {check.merged.error:.6g}")
    decided = "" if check.agreement is None else f"{check.agreement:.2%} of {check.samples} decisions are the same; "
    lines.append(
        f"{decided}outputs differ by {check.largest_difference:g} at most, {check.mean_difference:.3g} in the mean"
    )
    bits = "[bold green]the same bits[/]" if check.interpreter_is_litert else "[bold red]other bits[/]"
    return [*lines, f"merged model in LiteRT and in tinypeft's interpreter: {bits}"]

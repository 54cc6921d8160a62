"""`tinypeft adapter`: adapters as files of PEFT, Keras and the device, from one form into another.

What packages are made of, and deltas, is in adapter_package.py and adapter_delta.py; what a device does with them in
adapter_device.py.
"""

from __future__ import annotations

from pathlib import Path

import click

from tinypeft.adapter_combine import METHODS, Method, combine_adapters
from tinypeft.adapter_files import read_adapter, read_keras_adapter, write_adapter
from tinypeft.adapter_state import AdapterLike
from tinypeft.cli import adapter_device
from tinypeft.cli.adapter_delta import apply_diff, diff
from tinypeft.cli.adapter_package import inspect, pack, sign_package, unpack, verify
from tinypeft.cli.output import console, json_option, print_json, progress_console
from tinypeft.errors import AdapterError
from tinypeft.generate import Project, keras_model, open_project

_KERAS = (".keras", ".h5")


@click.group("adapter")
def command() -> None:
    """Export, import, pack, sign and inspect adapters; push them to devices and switch between them."""


for each in (pack, unpack, inspect, verify, sign_package, diff, apply_diff, *adapter_device.COMMANDS):
    command.add_command(each)


@command.command("export")
@click.argument("directory")
@click.option("--adapter", required=True, metavar="ADAPTER", help="A folder, or the package of a device.")
@click.option("-o", "--output", required=True, metavar="ADAPTER_DIR", help="The folder to write.")
@json_option
def export(directory: str, adapter: str, output: str, as_json: bool) -> None:
    """Write an adapter of the project DIRECTORY as PEFT's files beside its package."""
    project = open_project(directory)
    _write(project, read_adapter(adapter, project.model), output, as_json)


@command.command("import")
@click.argument("directory")
@click.argument("source")
@click.option("--map", "mapping", metavar="MODULE=LAYER", multiple=True, help="A module whose name is not its layer's.")
@click.option("--base", metavar="F.keras", help="Of a Keras file: what it was trained from. Default: the project's.")
@click.option("-o", "--output", required=True, metavar="ADAPTER_DIR", help="The folder to write.")
@json_option
def import_(
    directory: str, source: str, mapping: tuple[str, ...], base: str | None, output: str, as_json: bool
) -> None:
    """Make SOURCE an adapter of the project DIRECTORY, quantised for its device.

    SOURCE is a folder of PEFT, or what Keras saved after enable_lora: .keras, .weights.h5 or KerasHub's .lora.h5.
    """
    project = open_project(directory)
    modules = _mapping(mapping)
    if Path(source).suffix.lower() in _KERAS:
        trained_from = base or keras_model(project)
        if trained_from is None:
            raise AdapterError(f"{directory} was not generated from a Keras model", "name it with --base F.keras")
        with progress_console().status("reading Keras' files"):
            adapter = read_keras_adapter(source, trained_from, project.model, modules)
    else:
        adapter = read_adapter(source, project.model, modules)
    _write(project, adapter, output, as_json)


@command.command("combine")
@click.argument("directory")
@click.argument("adapters", nargs=-1, required=True, metavar="ADAPTER...")
@click.option("--weights", metavar="W,...", help="A number for each adapter, such as 0.7,0.3; below 0 it takes away.")
@click.option("--method", type=click.Choice(METHODS), help="For LoRA; linear unless told.")
@click.option("--stack", is_flag=True, help="All at once: --method cat with weights of 1.")
@click.option("-o", "--output", required=True, metavar="ADAPTER_DIR", help="The folder to write.")
@json_option
def combine(
    directory: str,
    adapters: tuple[str, ...],
    weights: str | None,
    method: Method | None,
    stack: bool,
    output: str,
    as_json: bool,
) -> None:
    """Make one adapter of several of the project DIRECTORY: folders, or packages, which give the device's bits.

    linear sums LoRA's A and B each, so that their product is near the weighted sum if the adapters are alike; cat gives
    the weighted sum, of as many ranks as they have together. All else that is trained is summed in both.
    """
    if stack and (weights is not None or method is not None):
        raise click.UsageError("--stack is --method cat with weights of 1: leave --method and --weights out.")
    if weights is None and not stack:
        raise click.UsageError("Give --weights, one for each adapter, or --stack.")
    project = open_project(directory)
    given = [read_adapter(path, project.model) for path in adapters]
    numbers = [1.0] * len(given) if weights is None else _numbers(weights)
    combined = combine_adapters(project.model, given, numbers, "cat" if stack else method or "linear")
    _write(project, combined, output, as_json)


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as error:
        raise click.UsageError(f"--weights takes numbers with commas between, such as 0.7,0.3: {error}.") from error


def _mapping(given: tuple[str, ...]) -> dict[str, str]:
    for text in given:
        if "=" not in text:
            raise click.UsageError(f"--map takes MODULE=LAYER, such as encoder.fc=dense; {text!r} has no '='.")
    return dict(text.rsplit("=", 1) for text in given)


def _write(project: Project, adapter: AdapterLike, output: str, as_json: bool) -> None:
    write_adapter(output, project.model, adapter.state, adapter.package, {})
    if as_json:
        print_json({"output": output, "package_bytes": len(adapter.package), "model": project.model.name})
        return
    console().print(f"written to {output}; the device's package has {len(adapter.package):,} B")

"""`tinypeft adapter`: adapters as files of PEFT, Keras and the device, from one form into another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from tinypeft.adapter_files import describe_adapter, read_adapter, read_keras_adapter, write_adapter
from tinypeft.adapter_state import AdapterLike
from tinypeft.cli.output import console, json_option, print_json, progress_console
from tinypeft.errors import AdapterError
from tinypeft.generate import Project, keras_model, open_project
from tinypeft.state import describe_package

_KERAS = (".keras", ".h5")


@click.group("adapter")
def command() -> None:
    """Export, import and inspect adapters."""


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


@command.command("inspect")
@click.argument("source")
@json_option
def inspect(source: str, as_json: bool) -> None:
    """Show what the adapter folder, or package, SOURCE holds."""
    path = Path(source)
    if path.is_dir():
        described: dict[str, Any] = describe_adapter(path)
    else:
        described = describe_package(path)
    if as_json:
        print_json(described)
        return
    out = console()
    for key, value in sorted(described.get("config", described).items()):
        if key != "tinypeft":
            out.print(f"{key}: {value}")
    ours = described.get("config", {}).get("tinypeft") or {}
    for key in ("model", "fingerprint", "version"):
        if key in ours:
            out.print(f"{key}: {ours[key]}")
    if "tensors" in described:
        table = Table("tensor", "shape")
        for name, shape in described["tensors"].items():
            table.add_row(name, " x ".join(map(str, shape)))
        out.print(table)


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

"""`tinypeft adapter push|pull|list|…`: the adapters that a device keeps, over its console."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.table import Table

from tinypeft.cli.on_device import Target, progress_bars, running_device
from tinypeft.cli.output import console, json_option, print_json
from tinypeft.device import AdapterList, DeviceAdapters
from tinypeft.errors import AdapterError
from tinypeft.files import write_file
from tinypeft.generate import open_project
from tinypeft.package.delta import is_delta
from tinypeft.package.format import parse

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _device_options(command: _Command) -> _Command:
    """Decorator: the project, and where its firmware runs."""
    on = click.option("--on", required=True, type=Target(), help="Where it runs, such as serial:/dev/ttyACM0.")
    return click.argument("directory")(on(command))


@contextlib.contextmanager
def _adapters(directory: str, on: str) -> Iterator[DeviceAdapters]:
    with running_device(open_project(directory), on, count_instructions=False, fresh=False) as device:
        yield device.adapters


@click.command("push")
@_device_options
@click.argument("file")
@click.option("--id", "name", help="Which adapter a delta is for. Default: the one that is in the file.")
@click.option("--activate", is_flag=True, help="Let it serve, on test until it is confirmed.")
@click.option("--confirm", is_flag=True, help="Activate it and confirm it at once.")
@json_option
def push(directory: str, on: str, file: str, name: str | None, activate: bool, confirm: bool, as_json: bool) -> None:
    """Upload the package, or delta, FILE to the device that runs DIRECTORY; goes on where an upload broke off."""
    package = _read(file)
    if not is_delta(package):
        name = name or parse(package).header.identity.id
    elif name is None:
        raise click.UsageError("A delta does not say whose it is: give --id.")
    with _adapters(directory, on) as adapters, progress_bars() as show:
        adapters.push(name, package, lambda done, of: show(f"push {name}", done, of))
        if activate or confirm:
            adapters.activate(name)
        if confirm:
            adapters.confirm(name)
        stored = adapters.describe(name)
    if as_json:
        print_json({"id": name, "bytes_sent": len(package), "version": stored.version, "sha256": stored.sha256.hex()})
        return
    state = "confirmed" if confirm else "on test" if activate else "a candidate"
    console().print(f"{name}: version {stored.version} is {state}; {len(package):,} B sent")


@click.command("pull")
@_device_options
@click.argument("name")
@click.option("-o", "--output", required=True, metavar="FILE", help="The file to write.")
@json_option
def pull(directory: str, on: str, name: str, output: str, as_json: bool) -> None:
    """Download the newest package of the adapter NAME."""
    with _adapters(directory, on) as adapters, progress_bars() as show:
        package = adapters.pull(name, lambda done, of: show(f"pull {name}", done, of))
    parsed = parse(package)
    write_file(output, package)
    if as_json:
        print_json({"output": output, "id": name, "package_bytes": len(package), "sha256": parsed.digest.hex()})
        return
    console().print(f"{name}: version {parsed.header.identity.version}, {len(package):,} B, written to {output}")


@click.command("list")
@_device_options
@json_option
def list_(directory: str, on: str, as_json: bool) -> None:
    """List the adapters that the device keeps, and which one serves."""
    with _adapters(directory, on) as adapters:
        found = adapters.list()
    if as_json:
        print_json(asdict(found))
        return
    _print_list(found)


@click.command("activate")
@_device_options
@click.argument("name", required=False)
@click.option("--base", is_flag=True, help="Let the base model serve.")
@click.option("--until-reset", is_flag=True, help="Do not remember it.")
@json_option
def activate(directory: str, on: str, name: str | None, base: bool, until_reset: bool, as_json: bool) -> None:
    """Let the adapter NAME serve: its candidate, then on test, or what is confirmed."""
    if (name is None) != base:
        raise click.UsageError("Give either NAME or --base.")
    with _adapters(directory, on) as adapters:
        if name is None:
            adapters.deactivate(keep=not until_reset)
        else:
            adapters.activate(name, keep=not until_reset)
        _report(adapters.list(), as_json)


def _acting(name: str, act: Callable[[DeviceAdapters, str], None], text: str) -> click.Command:
    """A command that does one thing to the adapter it is given, and lists them all."""

    @click.command(name, help=text)
    @_device_options
    @click.argument("name")
    @json_option
    def command(directory: str, on: str, name: str, as_json: bool) -> None:
        with _adapters(directory, on) as adapters:
            act(adapters, name)
            _report(adapters.list(), as_json)

    return command


@click.command("save")
@_device_options
@click.argument("name")
@click.option("--version", required=True, type=click.IntRange(0, 0xFFFFFFFF), help="Of the adapter.")
@json_option
def save(directory: str, on: str, name: str, version: int, as_json: bool) -> None:
    """Store the adapter that serves, such as one that was just trained, as the candidate of NAME."""
    with _adapters(directory, on) as adapters:
        adapters.save(name, version)
        _report(adapters.list(), as_json)


COMMANDS = (
    *(push, pull, list_, activate, save),
    _acting("confirm", DeviceAdapters.confirm, "Keep the candidate of NAME, which is on test."),
    _acting("revert", DeviceAdapters.revert, "Give up the candidate of NAME."),
    _acting("delete", DeviceAdapters.delete, "Delete the adapter NAME from the device; its security counter stays."),
)


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise AdapterError(
            f"cannot read {file}: {error.strerror}", "give a package of `tinypeft adapter pack`"
        ) from error


def _report(found: AdapterList, as_json: bool) -> None:
    if as_json:
        print_json(asdict(found))
    else:
        _print_list(found)


def _print_list(found: AdapterList) -> None:
    out = console()
    table = Table("adapter", "confirmed", "candidate", "checkpoint", "counter", "state")
    for entry in found.adapters:
        test = f"on test, {entry.boots} boots" if entry.on_test else ""
        flags = ("active", entry.active), ("in RAM", entry.resident), ("trained since", entry.changed)
        states = [*filter(None, [test]), *(text for text, holds in flags if holds)]
        versions = ("" if v is None else str(v) for v in (entry.confirmed, entry.candidate, entry.checkpoint))
        table.add_row(entry.id, *versions, str(entry.counter), ", ".join(states))
    out.print(table)
    serving = "the base model" if found.base else found.serving or "an adapter without a name"
    out.print(f"{serving} serves; {found.unused} of {found.slots} slots are free")

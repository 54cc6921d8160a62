"""`tinypeft serve`: a project's device on a pseudo-terminal, for SMP clients and other serial programs."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from tinypeft.cli.on_device import Target, running_device
from tinypeft.cli.output import console, json_option, print_json
from tinypeft.emulators import find_emulator
from tinypeft.emulators.base import NOTHING
from tinypeft.emulators.terminal import open_terminal
from tinypeft.generate import open_project


@click.command("serve")
@click.argument("directory")
@click.option(
    "--on",
    default="host",
    show_default=True,
    type=Target(),
    help="Where to run it; host:FILE keeps adapters in a file.",
)
@click.option("--link", type=click.Path(path_type=Path), help="A symbolic link to make to the port.")
@json_option
def command(directory: str, on: str, link: Path | None, as_json: bool) -> None:
    """Run the project DIRECTORY behind a serial port of its own, whose name is printed, until Ctrl-C."""
    if find_emulator(on).builds == NOTHING:
        raise click.UsageError(f"--on {on} is a serial port already.")
    project = open_project(directory)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the emulator ends with us
    with running_device(project, on, count_instructions=False) as device, open_terminal(link) as terminal:
        try:
            if as_json:
                print_json({"port": terminal.port, "model": project.model.name, "on": on})
            else:
                console().print(f"{project.model.name} on {on} answers at {terminal.port}; Ctrl-C ends it")
            terminal.serve(device.transport)
        except KeyboardInterrupt:
            return

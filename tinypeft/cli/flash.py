"""`tinypeft flash`: bring a project's firmware into its board's flash."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from tinypeft.boards import load_board
from tinypeft.cli.output import console, json_option, print_json, progress_console
from tinypeft.flashers import FLASHERS, Flasher, Image, Plan, choose
from tinypeft.generate import build_for_board
from tinypeft.project import read_manifest


@click.command("flash")
@click.argument("directory")
@click.option(
    "--runner", type=click.Choice(sorted(FLASHERS)), help="The flasher. Default: the first of the board's installed."
)
@click.option("--probe", metavar="ID", help="Which probe, as the flasher names it; for uf2 the drive's folder.")
@click.option("--timeout", type=click.FloatRange(1), default=300.0, show_default=True, help="Seconds for one command.")
@click.option("--dry-run", is_flag=True, help="Only print what would be run.")
@json_option
def command(
    directory: str, runner: str | None, probe: str | None, timeout: float, dry_run: bool, as_json: bool
) -> None:
    """Build the project DIRECTORY where it is not up to date, and flash its board."""
    board = load_board(read_manifest(directory)["board"])
    flasher = choose(board, runner, dry_run=dry_run)
    image = Image(Path(directory).resolve() / "build")
    if not dry_run:
        flasher.settings_of(board)
        with progress_console().status("building"):
            build_for_board(directory, board)
    plan = flasher.plan(image, board, probe, dry_run=dry_run)
    if not dry_run:
        click.echo(_as_text(plan), err=True)
        try:
            flasher.run(plan, image, board, limit=timeout, echo=lambda text: click.echo(text, err=True, nl=False))
        except KeyboardInterrupt:
            click.echo("\nthe board may hold half of the firmware: flash it again", err=True)
            raise
    if as_json:
        print_json(
            {
                "board": board.name,
                "runner": flasher.name,
                "installed": flasher.missing() is None,
                "files": {str(path): text for path, text in plan.files.items()},
                "commands": plan.commands,
                "flashed": not dry_run,
            }
        )
    elif dry_run:
        click.echo(_as_text(plan))
    else:
        _print_done(directory, board.title, flasher)


def _as_text(plan: Plan) -> str:
    """The plan as a shell would take it."""
    files = [f"cat > {shlex.quote(str(path))} <<'END'\n{text}END" for path, text in plan.files.items()]
    return "\n".join([*files, *map(shlex.join, plan.commands)])


def _print_done(directory: str, title: str, flasher: Flasher) -> None:
    out = console()
    out.print(f"flashed {title} by {flasher.name}")
    out.print(f"next: tinypeft test {directory} --on serial:/dev/ttyACM0 --data F.npz:X:Y")

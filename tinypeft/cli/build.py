"""`tinypeft build`: the firmware and the host twin of a project."""

from __future__ import annotations

import click

from tinypeft.boards import load_board
from tinypeft.cli.output import console, json_option, print_json, progress_console
from tinypeft.generate import build_for_board
from tinypeft.project import build_twin, measure, read_manifest


@click.command("build")
@click.argument("directory")
@json_option
def command(directory: str, as_json: bool) -> None:
    """Build the project DIRECTORY: build/firmware.elf and .bin for its board, build/libtwin.so for this computer."""
    manifest = read_manifest(directory)
    board = load_board(manifest["board"])
    if manifest.get("storage"):
        board = board.with_storage()
    result: dict[str, object] = {}
    with progress_console().status("building"):
        result["twin"] = build_twin(directory)
        if not board.is_host:
            elf = build_for_board(directory, board)
            sizes = measure(elf)
            result |= {"elf": elf, "flash_bytes": sizes.flash_bytes, "ram_bytes": sizes.ram_bytes}
    if as_json:
        print_json(result)
        return
    for name, value in result.items():
        console().print(f"{name}: {value:,} B" if isinstance(value, int) else f"{name}: {value}")

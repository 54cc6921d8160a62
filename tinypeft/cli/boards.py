"""`tinypeft boards`: the boards there are, and one in detail."""

from __future__ import annotations

import dataclasses
from typing import Any

import click
from rich.table import Table

from tinypeft.boards import Board, Region, board_names, load_board
from tinypeft.cli.output import console, json_option, print_json


@click.group("boards", invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the boards; `boards show NAME` tells all about one."""
    if ctx.invoked_subcommand is not None:
        if as_json:
            ctx.fail(f"put --json behind: boards {ctx.invoked_subcommand} … --json")
        return
    boards = [load_board(name) for name in board_names()]
    if as_json:
        print_json({"boards": [_as_json(board) for board in boards]})
        return
    table = Table("board", "title", "core", "flash", "RAM", "emulators")
    for board in boards:
        sizes = ("", "") if board.is_host else (_size(board.flash.length), _size(board.ram.length))
        table.add_row(board.name, board.title, board.core, *sizes, ", ".join(board.emulators))
    console().print(table)


@command.command("show")
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Tell all about the board NAME."""
    board = load_board(name)
    if as_json:
        print_json(_as_json(board))
        return
    out = console()
    out.print(f"[bold]{board.name}[/bold]: {board.title}")
    facts = Table(show_header=False, box=None)
    for label, value in _facts(board):
        facts.add_row(label, value)
    out.print(facts)
    if board.memories:
        memories = Table("memory", "kind", "address", "size", "reference")
        for region in board.memories:
            memories.add_row(
                region.name, _kind(region), f"0x{region.origin:08X}", _size(region.length), region.reference
            )
        out.print(memories)


def _facts(board: Board) -> list[tuple[str, str]]:
    facts = [("core", board.core + (f", FPU {board.fpu}" if board.fpu else ""))]
    if board.clock_hz:
        facts.append(("clock", f"{board.clock_hz:,} Hz"))
    if board.console:
        facts.append(("console", f"{board.console.driver}, {board.console.baud} baud"))
    for label, settings in (("emulator", board.emulators), ("flasher", board.flashers)):
        for name, values in settings.items():
            facts.append((label, f"{name}: " + ", ".join(_setting(*item) for item in values.items())))
    if board.datasheet:
        facts.append(("documents", board.datasheet))
    return facts


def _setting(key: str, value: Any) -> str:
    return f"{key}=0x{value:08X}" if isinstance(value, int) and value > 0xFFFF else f"{key}={value}"


def _as_json(board: Board) -> dict[str, Any]:
    return dataclasses.asdict(board)


def _kind(region: Region) -> str:
    return region.kind if region.arena else f"{region.kind}, not used"


def _size(length: int) -> str:
    return f"{length // 1024:,} KB" if length % 1024 == 0 else f"{length:,} B"

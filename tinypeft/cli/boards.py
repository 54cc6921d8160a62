"""`tinypeft boards`: the boards there are, and one in detail."""

from __future__ import annotations

import dataclasses
from typing import Any

import click
from rich.table import Table

from tinypeft.boards import Board, Region, Storage, board_names, describe_twin, load_board
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
    table = Table("board", "title", "core", "flash", "RAM", "runs on")
    for board in boards:
        sizes = ("", "") if board.is_host else (_total(board, "flash"), _total(board, "ram"))
        table.add_row(board.name, board.title, board.core_name, *sizes, ", ".join(_runs_on(board)))
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
    flags = " ".join(board.cpu_flags)
    facts = [("core", board.core_name + (f" ({flags})" if flags else ""))]
    if board.clock:
        driver = f", driver {board.clock.driver}" if board.clock.driver else ""
        settings = "".join(f", {_setting(*item)}" for item in board.clock.settings.items())
        facts.append(("clock", f"{board.clock_hz:,} Hz: {board.clock.source}{driver}{settings}"))
    if board.console:
        facts.append(("console", f"{board.console.pins}; {board.console.baud} baud, driver {board.console.driver}"))
        facts.append(("", ", ".join(_setting(*item) for item in board.console.settings.items())))
    if board.storage:
        facts.append(("storage", _storage(board.storage)))
        facts.append(("", board.storage.reference))
        if board.storage.settings:
            facts.append(("", ", ".join(_setting(*item) for item in board.storage.settings.items())))
    facts += _tools("emulator", board.emulators)
    if board.twin:
        own = [name for name, settings in board.emulators.items() if settings.get("storage", True)]
        lacking = [name for name in load_board(board.twin).emulators if name not in own]
        facts.append(("twin", f"{', '.join(lacking)}: {describe_twin(board)}"))
    facts += _tools("flasher", board.flashers)
    if board.datasheet:
        facts.append(("documents", board.datasheet))
    return facts + [("note", note) for note in board.notes]


def _storage(storage: Storage) -> str:
    place = f"{storage.region} from 0x{storage.offset:08X}: " if storage.region else ""
    sectors = f"{storage.sectors} sectors of {_size(storage.sector_bytes)}, {storage.log_sectors} of them the log"
    return f"{place}{sectors}, {storage.write_unit} B programmed at once, driver {storage.driver}"


def _tools(label: str, tools: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    return [(label, f"{name}: " + ", ".join(_setting(*item) for item in tools[name].items())) for name in tools]


def _runs_on(board: Board) -> list[str]:
    """Emulators with settings of the board's own, and those where its twin stands in."""
    twin = load_board(board.twin).emulators if board.twin else {}
    return [*board.emulators, *(f"{name} ({board.twin})" for name in twin if name not in board.emulators)]


def _setting(key: str, value: Any) -> str:
    if isinstance(value, list):
        return f"{key}={' '.join(map(str, value))}"
    if isinstance(value, bool):
        return f"{key}={str(value).lower()}"
    return f"{key}=0x{value:08X}" if isinstance(value, int) and value > 0xFFFF else f"{key}={value}"


def _as_json(board: Board) -> dict[str, Any]:
    return dataclasses.asdict(board)


def _kind(region: Region) -> str:
    return region.kind if region.arena else f"{region.kind}, not used"


def _total(board: Board, kind: str) -> str:
    return _size(sum(region.length for region in board.memories if region.kind == kind and region.arena))


def _size(length: int) -> str:
    return f"{length // 1024:,} KB" if length % 1024 == 0 else f"{length:,} B"

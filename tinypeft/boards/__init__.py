"""Boards: `boards/<name>/board.toml` in, a frozen `Board` out. A folder with that file is a board; there is no list."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import replace

from tinypeft.boards.board import CORES, HOST_CORE, STORAGE, Board, Clock, Console, Region, Storage
from tinypeft.boards.file import read_board
from tinypeft.errors import BoardError
from tinypeft.resources import resource_path

__all__ = [
    "CORES",
    "HOST_CORE",
    "STORAGE",
    "Board",
    "Clock",
    "Console",
    "Region",
    "Storage",
    "board_names",
    "board_on",
    "describe_twin",
    "load_board",
    "read_board",
]


def board_names() -> list[str]:
    """The names of all boards, sorted."""
    return sorted(path.parent.name for path in resource_path("boards").glob("*/board.toml"))


def load_board(name: str) -> Board:
    """The board called `name`.

    Raises BoardError for an unknown name (with the nearest known one) and for a faulty file (naming file and key).
    """
    names = board_names()
    if name not in names:
        nearest = [known for known in names if name and known.startswith(name)]
        nearest = nearest or difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"did you mean {nearest[0]}?" if nearest else "choose one of: " + ", ".join(names)
        raise BoardError(f"unknown board {name!r}", hint)
    return read_board(resource_path("boards", name, "board.toml"))


def board_on(board: Board, emulator: str) -> Board:
    """What `emulator` runs for `board`: the board itself where it has settings for it, else its twin.

    The twin keeps its clock, console and emulators. It has the compiler flags of `board`, so that it runs the same
    instructions, and the memories of `board` at addresses of its own, so that the same things fit. Where `board` is
    one of `with_storage`, it has a storage of the same sectors with a driver of its own; else it has none.
    Raises BoardError where neither has settings, and where the twin has too little memory or no storage.
    """
    if emulator in board.emulators:
        return board
    twin = load_board(board.twin) if board.twin else None
    if twin is not None and emulator in twin.emulators:
        memories = (*_inside(twin.flash, board, twin), *_inside(twin.ram, board, twin))
        taken = _storage_inside(memories, board, twin)
        return replace(
            twin,
            core=board.core,
            extensions=board.extensions,
            fpu=board.fpu,
            float_abi=board.float_abi,
            trustzone=False,
            memories=(*memories, taken) if taken else memories,
            storage=_storage_like(board, twin) if taken else None,
        )
    others = sorted({*board.emulators, *(twin.emulators if twin else ())})
    raise BoardError(
        f"board {board.name} does not run on {emulator}", f"emulators of this board: {', '.join(others) or 'none'}"
    )


def _inside(memory: Region, board: Board, twin: Board) -> Iterator[Region]:
    """The usable memories of `board` that are of the same kind as `memory`, one behind the other inside it."""
    origin = memory.origin
    for region in board.memories:
        if region.kind == memory.kind and region.arena:
            yield replace(region, origin=origin, reference=f"in {memory.name} of {twin.name}: {memory.reference}")
            origin += region.length
    if origin > memory.end:
        raise BoardError(
            f"{twin.name}, twin of {board.name}, has {memory.length:,} B in {memory.name}, "
            f"{board.name} has {origin - memory.origin:,} B",
            "choose a larger twin in board.toml",
        )


def _storage_inside(memories: tuple[Region, ...], board: Board, twin: Board) -> Region | None:
    """The storage of `board`, if it keeps one, at the end of the memory that holds the twin's; not in `memories`."""
    taken = board.storage_memory
    if taken is None:
        return None
    if twin.storage is None:
        raise BoardError(f"{twin.name}, twin of {board.name}, has no storage", "choose another twin in board.toml")
    (around,) = (region for region in twin.memories if region.name == twin.storage.region)
    origin = around.end - taken.length
    if origin < max([around.origin, *(r.end for r in memories if around.origin <= r.origin < around.end)]):
        raise BoardError(
            f"{twin.name}, twin of {board.name}, has no {taken.length:,} B left in {around.name} for a storage",
            "choose a larger twin in board.toml",
        )
    return replace(taken, origin=origin, reference=f"in {around.name} of {twin.name}: {around.reference}")


def _storage_like(board: Board, twin: Board) -> Storage:
    """The twin's driver for the sectors of `board`."""
    assert board.storage is not None and twin.storage is not None
    return replace(
        board.storage,
        driver=twin.storage.driver,
        settings=twin.storage.settings,
        region=twin.storage.region,
        reference=twin.storage.reference,
    )


def describe_twin(board: Board) -> str:
    """One clause that says what the twin of `board` is and why it stands in."""
    twin = load_board(board.twin)
    if twin.core == board.core:
        return f"{twin.name}, a {twin.core_name} as on {board.name}"
    return f"{twin.name}, a {twin.core_name}, which executes all instructions of the {board.core_name} on {board.name}"

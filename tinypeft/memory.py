"""Which of a board's memories are used for what: names from the user in, regions for compiler and linker out."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from tinypeft.boards import Board, Region
from tinypeft.errors import BoardError
from tinypeft.planner import WHOLE, ArenaRegion
from tinypeft.stages.recompute import RamBudget

#: The most that the command server, the guard words and their alignment take beside a model
RUNTIME_RAM = 1216
#: Guard words around a part of the arena that lies in a RAM of its own, and its alignment
GUARDS = 32
WEIGHTS_SECTION = ".weights"


@dataclass(frozen=True)
class MemoryConfig:
    """arena_regions: RAMs for the arena, in order of preference; empty for all that the board allows.

    weights_region: the flash for constant tables; empty for that of the code.
    ram_budget: all the RAM that the firmware may take, in bytes; 0 for what it needs without recomputing.
    samples: how many samples the firmware has room for, to learn from by itself.
    adapters, resident: how many adapters it keeps on flash (0: none), and how many of them in RAM at a time.
    merge_room: bytes of RAM for copies of weights that a LoRA merges into.
    """

    arena_regions: tuple[str, ...] = ()
    weights_region: str = ""
    ram_budget: int = 0
    samples: int = 0
    adapters: int = 0
    resident: int = 2
    merge_room: int = 0

    def on(self, board: Board) -> Board:
        """The board that this is for: with its storage kept free where adapters are kept; BoardError without one."""
        return board.with_storage() if self.adapters else board

    def budget(self, stack_bytes: int) -> RamBudget | None:
        """What the compiler is to keep to, if anything."""
        return RamBudget(self.ram_budget, stack_bytes + RUNTIME_RAM) if self.ram_budget else None

    def regions(self, board: Board, stack_bytes: int) -> tuple[ArenaRegion, ...]:
        """The RAMs that the arena may use; raises BoardError for a name that the board has not, or has no RAM of."""
        if board.is_host:
            return (ArenaRegion(WHOLE),)
        usable = [region for region in board.memories if region.kind == "ram" and region.arena]
        chosen = [_named(board, name, "RAM", usable) for name in self.arena_regions] or usable
        if len(set(self.arena_regions)) < len(self.arena_regions):
            raise BoardError(f"--arena-regions names a RAM twice: {', '.join(self.arena_regions)}", "name it once")
        return tuple(
            ArenaRegion(region.name, region.length - stack_bytes - RUNTIME_RAM, True)
            if region is board.ram
            else ArenaRegion(region.name, region.length - GUARDS)
            for region in chosen
        )

    def weights(self, board: Board) -> Region | None:
        """The flash for constant tables where one is named; raises BoardError where the board has none of that name."""
        if not self.weights_region or board.is_host:
            return None
        region = _named(board, self.weights_region, "flash", [r for r in board.memories if r.kind == "flash"])
        return None if region is board.flash else region

    def ram_bytes(self, board: Board) -> dict[str, int]:
        """What each RAM has, by name, the one of ordinary data first; nothing for the host."""
        if board.is_host:
            return {}
        rams = [region for region in board.memories if region.kind == "ram"]
        return {region.name: region.length for region in sorted(rams, key=lambda region: region is not board.ram)}


#: every RAM that the board allows, weights beside the code
DEFAULT_MEMORY = MemoryConfig()


def _named(board: Board, name: str, kind: str, regions: list[Region]) -> Region:
    for region in regions:
        if region.name == name:
            return region
    names = [region.name for region in regions]
    close = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {close[0]}?" if close else f"choose from: {', '.join(names)}"
    raise BoardError(f"{board.name} has no {kind} called {name!r} that may be used", hint)

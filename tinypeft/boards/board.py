"""What a board is: core, memories, clock, console, emulators, flashers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tinypeft.errors import BoardError

#: `core` of the board that is this computer
HOST_CORE = "host"

#: GCC's name of a core -> its own
CORES = {
    "cortex-m0": "Cortex-M0",
    "cortex-m0plus": "Cortex-M0+",
    "cortex-m3": "Cortex-M3",
    "cortex-m4": "Cortex-M4",
    "cortex-m7": "Cortex-M7",
    "cortex-m33": "Cortex-M33",
    "cortex-m55": "Cortex-M55",
}


@dataclass(frozen=True)
class Region:
    """A memory: `length` bytes from `origin`; `reference` cites the document that says so.

    `arena` is False for a RAM that stack, data and arena must not use, say because an emulator of the board lacks it.
    """

    name: str
    kind: str
    origin: int
    length: int
    reference: str
    arena: bool = True

    @property
    def end(self) -> int:
        """The first address behind the region."""
        return self.origin + self.length


@dataclass(frozen=True)
class Clock:
    """What the core runs from, in words; where that is not so after reset, `firmware/clocks/<driver>.c` sees to it.

    `settings` are TP_CLOCK_<KEY> to the driver.
    """

    source: str
    driver: str = ""
    settings: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Console:
    """The UART that carries the protocol: `firmware/consoles/<driver>.c`, to which `settings` are TP_CONSOLE_<KEY>.

    `pins` says in words where the UART comes out.
    """

    driver: str
    baud: int
    pins: str
    settings: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Board:
    """What firmware, linker script, emulators and flashers need to know of a board.

    core, extensions       GCC's `-mcpu`, and what is added to it, such as "+nomve.fp"; core "host" is this computer
    fpu, float_abi         GCC's names (`-mfpu`, `-mfloat-abi`); no fpu: the core's own, where float_abi is not "soft"
    memories               in order of preference; the first flash and the first usable RAM are linked into
    twin                   the board that stands in for this one in an emulator that has no such machine
    emulators, flashers    name -> its settings, in order of preference
    notes                  what else a user should know, a sentence each
    """

    name: str
    title: str
    core: str
    extensions: str = ""
    fpu: str = ""
    float_abi: str = "soft"
    clock_hz: int = 0
    datasheet: str = ""
    memories: tuple[Region, ...] = ()
    clock: Clock | None = None
    console: Console | None = None
    twin: str = ""
    emulators: dict[str, dict[str, Any]] = field(default_factory=dict)
    flashers: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_host(self) -> bool:
        """Whether the board is this computer, for which only the twin is built."""
        return self.core == HOST_CORE

    @property
    def core_name(self) -> str:
        """Such as "Cortex-M4"."""
        return CORES.get(self.core, self.core)

    @property
    def flash(self) -> Region:
        """The flash that code and constants are linked into."""
        return self._first("flash")

    @property
    def ram(self) -> Region:
        """The RAM that stack, data and arena are linked into."""
        return self._first("ram")

    @property
    def cpu_flags(self) -> tuple[str, ...]:
        """GCC's flags for the core; none for the host."""
        if self.is_host:
            return ()
        flags = (f"-mcpu={self.core}{self.extensions}", "-mthumb", f"-mfloat-abi={self.float_abi}")
        return (*flags, f"-mfpu={self.fpu}") if self.fpu else flags

    def _first(self, kind: str) -> Region:
        for region in self.memories:
            if region.kind == kind and region.arena:
                return region
        raise BoardError(f"board {self.name} has no {kind}", "choose a board with memories: tinypeft boards")

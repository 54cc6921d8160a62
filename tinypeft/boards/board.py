"""What a board is: core, memories, clock, console, storage, emulators, flashers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tinypeft.errors import BoardError

#: `core` of the board that is this computer
HOST_CORE = "host"

#: Kind and name of the memory that `Board.with_storage` keeps from the linker for adapters
STORAGE = "storage"

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
class Storage:
    """Flash that holds adapters: `sectors` of `sector_bytes` each, from byte `offset` of the memory `region` on.

    driver       `firmware/storages/<driver>.c`, to which `settings` are TP_STORAGE_<KEY>
    write_unit   bytes that are programmed at once
    erased       each byte after erasing: 0xFF or 0x00
    log_sectors  how many sectors, the first ones, the store's log takes
    reference    cites the document that says so

    The host's has no region: it is memory or a file.
    """

    driver: str
    sector_bytes: int
    sectors: int
    write_unit: int
    erased: int
    log_sectors: int
    reference: str
    region: str = ""
    offset: int = 0
    settings: dict[str, int] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Bytes in all."""
        return self.sector_bytes * self.sectors


@dataclass(frozen=True)
class Board:
    """What firmware, linker script, emulators and flashers need to know of a board.

    core, extensions       GCC's `-mcpu`, and what is added to it, such as "+nomve.fp"; core "host" is this computer
    fpu, float_abi         GCC's names (`-mfpu`, `-mfloat-abi`); no fpu: the core's own, where float_abi is not "soft"
    memories               in order of preference; the first flash and the first usable RAM are linked into
    storage                where adapters are kept; None: the board keeps none
    twin                   the board that stands in for this one in an emulator that has no such machine
    emulators, flashers    name -> its settings, in order of preference; `storage = false` among those of an emulator
                           tells that its machine lacks what the storage's driver needs
    trustzone              projects carry `firmware/samples/trustzone`, whose memory map is this board's
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
    storage: Storage | None = None
    twin: str = ""
    emulators: dict[str, dict[str, Any]] = field(default_factory=dict)
    flashers: dict[str, dict[str, Any]] = field(default_factory=dict)
    trustzone: bool = False
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
    def storage_memory(self) -> Region | None:
        """What `with_storage` keeps free for adapters; None for a board as it was loaded, and for the host."""
        return next((region for region in self.memories if region.kind == STORAGE), None)

    def with_storage(self) -> Board:
        """The board of firmware that keeps adapters: the memory that holds them ends where the storage begins.

        The storage is a memory of its own, of kind "storage". Emulators whose machine cannot run the storage's driver
        are left out, so that the twin stands in there. The same board where it is such a one already, and for the host.
        Raises BoardError for a board without storage.
        """
        if self.storage is None:
            raise BoardError(f"board {self.name} keeps no adapters: it has no storage", "docs/boards.md lists storages")
        if self.is_host or self.storage_memory is not None:
            return self
        storage = self.storage
        (around,) = (region for region in self.memories if region.name == storage.region)
        rest = tuple(replace(r, length=storage.offset) if r is around else r for r in self.memories)
        origin = around.origin + storage.offset
        taken = Region(STORAGE, STORAGE, origin, storage.length, storage.reference, arena=False)
        emulators = {name: tool for name, tool in self.emulators.items() if tool.get("storage", True)}
        return replace(self, memories=(*rest, taken), emulators=emulators)

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

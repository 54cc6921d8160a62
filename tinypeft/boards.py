"""Boards: `boards/<name>/board.toml` in, a frozen `Board` out. A folder with that file is a board; there is no list."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tinypeft.errors import BoardError
from tinypeft.resources import resource_path

#: `core` of the board that is this computer
HOST_CORE = "host"

_EXAMPLE = "see boards/stm32f4_discovery/board.toml for an example"
_KINDS = ("flash", "ram")
_FLOAT_ABIS = ("soft", "softfp", "hard")
_SETTING = re.compile(r"[a-z][a-z0-9_]*")


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
class Console:
    """The UART that carries the protocol: `firmware/consoles/<driver>.c`, to which `settings` are TP_CONSOLE_<KEY>."""

    driver: str
    baud: int
    settings: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Board:
    """What firmware, linker script, emulators and flashers need to know of a board.

    core, fpu, float_abi   GCC's names (`-mcpu`, `-mfpu`, `-mfloat-abi`); core "host" is this computer
    memories               in the board file's order; the first flash and the first usable RAM are linked into
    emulators, flashers    name -> its settings, in order of preference
    """

    name: str
    title: str
    core: str
    fpu: str = ""
    float_abi: str = "soft"
    clock_hz: int = 0
    datasheet: str = ""
    memories: tuple[Region, ...] = ()
    console: Console | None = None
    emulators: dict[str, dict[str, Any]] = field(default_factory=dict)
    flashers: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def is_host(self) -> bool:
        """Whether the board is this computer, for which only the twin is built."""
        return self.core == HOST_CORE

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
        flags = (f"-mcpu={self.core}", "-mthumb", f"-mfloat-abi={self.float_abi}")
        return (*flags, f"-mfpu={self.fpu}") if self.fpu else flags

    def _first(self, kind: str) -> Region:
        for region in self.memories:
            if region.kind == kind and region.arena:
                return region
        raise BoardError(f"board {self.name} has no {kind}", "choose a board with memories: tinypeft boards")


def board_names() -> list[str]:
    """The names of all boards, sorted."""
    return sorted(path.parent.name for path in resource_path("boards").glob("*/board.toml"))


def load_board(name: str) -> Board:
    """The board called `name`.

    Raises BoardError for an unknown name (with the nearest known one) and for a faulty file (naming file and key).
    """
    names = board_names()
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        hint = f"did you mean {nearest[0]}?" if nearest else "choose one of: " + ", ".join(names)
        raise BoardError(f"unknown board {name!r}", hint)
    return read_board(resource_path("boards", name, "board.toml"))


def read_board(path: Path) -> Board:
    """The board that the file at `path` describes; raises BoardError naming the file and the faulty key."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BoardError(f"{path}: {error}", _EXAMPLE) from error
    board = _Table(path, "", document).board()
    if board.name != path.parent.name:
        raise BoardError(f"{path}: key 'name' is {board.name!r}, the folder is {path.parent.name!r}", "make them equal")
    return board


class _Table:
    """One table of a board file, read key by key; every complaint names the file and the key."""

    def __init__(self, path: Path, prefix: str, value: object):
        self.path = path
        self.prefix = prefix
        if not isinstance(value, dict):
            raise self._error("", f"must be a table, is {value!r}")
        self.values: dict[str, Any] = value

    def board(self) -> Board:
        self._known(Board)
        core = self._text("core")
        if core == HOST_CORE:
            return Board(self._text("name"), self._text("title"), core, datasheet=self._text("datasheet", ""))
        console = self._table("console").console()
        memories = tuple(
            _Table(self.path, f"memories[{index}].", value).region()
            for index, value in enumerate(self._list("memories"))
        )
        self._check_memories(memories)
        return Board(
            name=self._text("name"),
            title=self._text("title"),
            core=core,
            fpu=self._text("fpu", ""),
            float_abi=self._choice("float_abi", _FLOAT_ABIS, "soft"),
            clock_hz=self._number("clock_hz", 1),
            datasheet=self._text("datasheet"),
            memories=memories,
            console=console,
            emulators=self._tables("emulators"),
            flashers=self._tables("flashers"),
        )

    def region(self) -> Region:
        self._known(Region)
        arena = self.values.get("arena", True)
        if not isinstance(arena, bool):
            raise self._error("arena", f"must be true or false, is {arena!r}")
        name = self._text("name")
        if not _SETTING.fullmatch(name):
            raise self._error("name", f"must be letters, digits and '_', is {name!r}")
        kind = self._choice("kind", _KINDS)
        region = Region(
            name, kind, self._number("origin", 0), self._number("length", 1), self._text("reference"), arena
        )
        if region.end > 1 << 32:
            raise self._error("length", f"ends at {region.end:#x}, beyond 32 bits")
        return region

    def console(self) -> Console:
        self._known(Console)
        driver = self._text("driver")
        drivers = sorted(path.stem for path in resource_path("firmware", "consoles").glob("*.c"))
        if driver not in drivers:
            raise self._error("driver", f"is {driver!r}, not one of {', '.join(drivers)}")
        settings = self._table("settings", {})
        for key in settings.values:
            if not _SETTING.fullmatch(key):
                raise settings._error(key, "must be lower-case letters, digits and '_'")
        return Console(driver, self._number("baud", 1), {key: settings._number(key, 0) for key in settings.values})

    def _check_memories(self, memories: tuple[Region, ...]) -> None:
        for kind in _KINDS:
            if not any(region.kind == kind and region.arena for region in memories):
                raise self._error("memories", f"lists no usable {kind}")
        for index, one in enumerate(memories):
            for other in memories[:index]:
                if one.name == other.name:
                    raise self._error("memories", f"names {one.name!r} twice")
                if one.origin < other.end and other.origin < one.end:
                    raise self._error("memories", f"{one.name!r} and {other.name!r} overlap")

    def _known(self, described: type[Board | Region | Console]) -> None:
        """Refuse keys that are no field of the class the table describes."""
        known = [entry.name for entry in fields(described)]
        for key in self.values:
            if key not in known:
                nearest = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {nearest[0]!r}?" if nearest else "known keys: " + ", ".join(known)
                raise BoardError(f"{self.path}: unknown key '{self.prefix}{key}'", hint)

    def _text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._error(key, f"must be a string, is {value!r}")
        return value

    def _number(self, key: str, minimum: int) -> int:
        value = self._get(key, None)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value < 1 << 32:
            raise self._error(key, f"must be an integer from {minimum} to {(1 << 32) - 1}, is {value!r}")
        return value

    def _choice(self, key: str, choices: tuple[str, ...], default: str | None = None) -> str:
        value = self._text(key, default)
        if value not in choices:
            raise self._error(key, f"is {value!r}, not one of {', '.join(choices)}")
        return value

    def _list(self, key: str) -> list[Any]:
        value = self._get(key, None)
        if not isinstance(value, list):
            raise self._error(key, f"must be an array of tables, is {value!r}")
        return value

    def _table(self, key: str, default: dict[str, Any] | None = None) -> _Table:
        return _Table(self.path, f"{self.prefix}{key}.", self._get(key, default))

    def _tables(self, key: str) -> dict[str, dict[str, Any]]:
        table = self._table(key, {})
        return {name: _Table(self.path, f"{key}.{name}.", value).values for name, value in table.values.items()}

    def _get(self, key: str, default: object) -> Any:
        if key in self.values:
            return self.values[key]
        if default is None:
            raise self._error(key, "is missing")
        return default

    def _error(self, key: str, what: str) -> BoardError:
        full = f"{self.prefix}{key}".rstrip(".")
        return BoardError(f"{self.path}: key {full!r} {what}", _EXAMPLE)

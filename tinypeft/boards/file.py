"""Reads board files: `board.toml` in, a `Board` out; a faulty file is refused by file and key."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from tinypeft.boards.board import CORES, HOST_CORE, STORAGE, Board, Clock, Console, Region, Storage
from tinypeft.errors import BoardError
from tinypeft.resources import resource_path

_EXAMPLE = "see boards/stm32f4_discovery/board.toml for an example"
_KINDS = ("flash", "ram")
_WRITE_UNITS = (1, 2, 4, 8, 16, 32)
_FLOAT_ABIS = ("soft", "softfp", "hard")
_SETTING = re.compile(r"[a-z][a-z0-9_]*")


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
        core = self._choice("core", (HOST_CORE, *CORES))
        if core == HOST_CORE:
            return Board(
                self._text("name"),
                self._text("title"),
                core,
                datasheet=self._text("datasheet", ""),
                storage=self._storage(()),
            )
        memories = tuple(
            _Table(self.path, f"memories[{index}].", value).region()
            for index, value in enumerate(self._list("memories"))
        )
        self._check_memories(memories)
        return Board(
            name=self._text("name"),
            title=self._text("title"),
            core=core,
            extensions=self._text("extensions", ""),
            fpu=self._text("fpu", ""),
            float_abi=self._choice("float_abi", _FLOAT_ABIS, "soft"),
            clock_hz=self._number("clock_hz", 1),
            datasheet=self._text("datasheet"),
            memories=memories,
            clock=self._table("clock").clock(),
            console=self._table("console").console(),
            storage=self._storage(memories),
            twin=self._twin(),
            emulators=self._tables("emulators"),
            flashers=self._tables("flashers"),
            trustzone=self._flag("trustzone", False),
            notes=self._texts("notes"),
        )

    def region(self) -> Region:
        self._known(Region)
        arena = self._flag("arena", True)
        name = self._text("name")
        if not _SETTING.fullmatch(name) or name == STORAGE:
            raise self._error("name", f"must be letters, digits and '_' and not 'storage', is {name!r}")
        kind = self._choice("kind", _KINDS)
        region = Region(
            name, kind, self._number("origin", 0), self._number("length", 1), self._text("reference"), arena
        )
        if region.end > 1 << 32:
            raise self._error("length", f"ends at {region.end:#x}, beyond 32 bits")
        return region

    def clock(self) -> Clock:
        self._known(Clock)
        if "driver" not in self.values:
            if "settings" in self.values:
                raise self._error("settings", "is for a driver, and there is none")
            return Clock(self._text("source"))
        return Clock(self._text("source"), self._driver("clocks"), self._settings())

    def console(self) -> Console:
        self._known(Console)
        return Console(self._driver("consoles"), self._number("baud", 1), self._text("pins"), self._settings())

    def storage(self, memories: tuple[Region, ...]) -> Storage:
        """`memories` are the board's; none for the host."""
        self._known(Storage)
        unit = self._number("write_unit", 1)
        if unit not in _WRITE_UNITS:
            raise self._error("write_unit", f"is {unit}, not one of {', '.join(map(str, _WRITE_UNITS))}")
        sector = self._number("sector_bytes", 64)
        if sector % 64:
            raise self._error("sector_bytes", f"is {sector}, no multiple of 64")
        log, sectors = self._number("log_sectors", 2), self._number("sectors", 3)
        if log >= sectors:
            raise self._error("log_sectors", f"is {log}: of {sectors} sectors none is left for adapters")
        if (erased := self._number("erased", 0)) not in (0x00, 0xFF):
            raise self._error("erased", f"is {erased:#x}, must be 0xFF or 0x00")
        region, offset = self._place(memories, sectors * sector) if memories else ("", 0)
        return Storage(
            driver=self._driver("storages", without=HOST_CORE) if memories else self._choice("driver", (HOST_CORE,)),
            sector_bytes=sector,
            sectors=sectors,
            write_unit=unit,
            erased=erased,
            log_sectors=log,
            reference=self._text("reference"),
            region=region,
            offset=offset,
            settings=self._settings(),
        )

    def _storage(self, memories: tuple[Region, ...]) -> Storage | None:
        return self._table("storage").storage(memories) if "storage" in self.values else None

    def _place(self, memories: tuple[Region, ...], length: int) -> tuple[str, int]:
        """The keys `region` and `offset` of a storage of `length` bytes."""
        name = self._choice("region", tuple(region.name for region in memories))
        offset = self._number("offset", 1)
        (room,) = (region.length for region in memories if region.name == name)
        if offset + length > room:
            raise self._error(
                "offset", f"is {offset:#x}: {length:#x} bytes from there do not fit {name}, {room:#x} long"
            )
        return name, offset

    def _driver(self, folder: str, without: str = "") -> str:
        """The key `driver`, the name of a C file under firmware/`folder` that is not `without`."""
        names = {path.stem for path in resource_path("firmware", folder).glob("*.c")}
        return self._choice("driver", tuple(sorted(names - {without})))

    def _settings(self) -> dict[str, int]:
        settings = self._table("settings", {})
        for key in settings.values:
            if not _SETTING.fullmatch(key):
                raise settings._error(key, "must be lower-case letters, digits and '_'")
        return {key: settings._number(key, 0) for key in settings.values}

    def _twin(self) -> str:
        twin = self._text("twin", "")
        if twin and not (_SETTING.fullmatch(twin) and resource_path("boards", twin, "board.toml").is_file()):
            raise self._error("twin", f"is {twin!r}, which is no board")
        return twin

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

    def _known(self, described: type[Board | Region | Clock | Console | Storage]) -> None:
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

    def _flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self._error(key, f"must be true or false, is {value!r}")
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

    def _texts(self, key: str) -> tuple[str, ...]:
        value = self._get(key, [])
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise self._error(key, f"must be an array of strings, is {value!r}")
        return tuple(value)

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

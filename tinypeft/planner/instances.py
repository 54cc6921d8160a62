"""Planning problems from files in MiniMalloc's form: `id,lower,upper,size`, live from lower up to but without upper."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

from tinypeft.errors import DataError
from tinypeft.planner.live import ALIGNMENT, Buffer

COLUMNS = ("id", "lower", "upper", "size")
_FORM = f"the form is {','.join(COLUMNS)}, a header and a line a buffer"


@dataclass(frozen=True)
class Instance:
    """Buffers to place in one arena, those of `pinned` at the offset given there."""

    name: str
    buffers: list[Buffer]
    pinned: dict[str, int] = field(default_factory=dict)


def read_instances(path: Path) -> list[Instance]:
    """The instance of a .csv file, or those of all .csv files of a folder, by name. Raises DataError."""
    if path.is_dir():
        files = sorted(path.glob("*.csv"))
        if not files:
            raise DataError(f"{path} holds no .csv file", _FORM)
        return [read_instance(file) for file in files]
    return [read_instance(path)]


def read_instance(path: Path) -> Instance:
    """The instance of a .csv file; sizes are rounded up to the arena's alignment. Raises DataError."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return Instance(path.stem, _buffers(path, csv.DictReader(file)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table: {error}", _FORM) from error


def _buffers(path: Path, rows: csv.DictReader[str]) -> list[Buffer]:
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        found = ",".join(rows.fieldnames or ()) or "nothing"
        raise DataError(f"{path}, line 1: no column {', '.join(missing)}; found is {found}", _FORM)
    buffers: dict[str, Buffer] = {}
    for row in rows:
        where = f"{path}, line {rows.line_num}"
        lower, upper, size = (_number(where, name, row[name]) for name in COLUMNS[1:])
        name = row["id"]
        if name in buffers:
            raise DataError(f"{where}: id {name!r} is that of a line above", "give every buffer its own")
        if size < 1:
            raise DataError(f"{where}: size is {size}, it must be 1 or more", _FORM)
        if upper <= lower:
            raise DataError(f"{where}: upper is {upper}, it must be more than lower, {lower}", _FORM)
        buffers[name] = Buffer(name, -(-size // ALIGNMENT) * ALIGNMENT, lower, upper - 1)
    if not buffers:
        raise DataError(f"{path} has a header and no buffer", _FORM)
    return list(buffers.values())


def _number(where: str, column: str, text: str | None) -> int:
    try:
        return int(text or "")
    except ValueError:
        raise DataError(f"{where}: {column} is {text or 'missing'!r}, it must be a whole number", _FORM) from None

"""Two analysis files: what changed from the first to the second, and which limits that breaks."""

from __future__ import annotations

import math
import re
import tomllib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from tinypeft.analysis.snapshot import FIGURES, Snapshot
from tinypeft.config import ConfigError, suggestion
from tinypeft.errors import DataError

SCHEMA = "tinypeft.comparison/1"

_LIMIT = re.compile(r"0|[+-]\d+|[+-]\d+(\.\d+)?%")
_FORMS = 'write "+2%", "+1024", or "0" for no growth'


@dataclass(frozen=True)
class FigureChange:
    """A figure in both files."""

    name: str
    before: int
    after: int
    change: int


@dataclass(frozen=True)
class OperatorChange:
    """An operator that is `added`, `removed` or `changed`, with a sentence for each fact that differs."""

    graph: str
    name: str
    status: str
    changes: tuple[str, ...]


@dataclass(frozen=True)
class BrokenLimit:
    """A figure above what its limit allows."""

    name: str
    limit: str
    allowed: int
    before: int
    after: int

    def __str__(self) -> str:
        """By how much."""
        return (
            f"{self.name} went from {self.before:,} to {self.after:,} ({percent(self.before, self.after)}), the limit "
            f"{self.limit} allows {self.allowed:,}: {self.after - self.allowed:,} too much"
        )


@dataclass(frozen=True)
class Comparison:
    """All that `tinypeft compare` tells; the fields are the keys of its JSON form (schemas/comparison-1.json)."""

    schema: str
    before: str
    after: str
    equal: bool
    figures: tuple[FigureChange, ...]
    operators: tuple[OperatorChange, ...]
    broken: tuple[BrokenLimit, ...]
    notes: tuple[str, ...]


def compare(before: Snapshot, after: Snapshot, limits: dict[str, str] | None = None) -> Comparison:
    """What changed, and which of `limits` (figure -> as in the file) that breaks.

    Raises DataError for a limit of a figure that one file estimates and the other measured.
    """
    figures = tuple(
        FigureChange(n, before.figures[n], after.figures[n], after.figures[n] - before.figures[n]) for n in FIGURES
    )
    operators = _operators(before, after)
    notes = []
    if before.fingerprint != after.fingerprint:
        notes.append("the models differ")
    if before.board != after.board:
        notes.append(f"the boards differ: {before.board}, {after.board}")
    for name, basis in before.bases.items():
        if basis != after.bases[name]:
            notes.append(f"{name} is not alike: {basis} before, {after.bases[name]} after")
    return Comparison(
        SCHEMA,
        before.file,
        after.file,
        not operators and not any(figure.change for figure in figures),
        figures,
        operators,
        tuple(_broken(before, after, limits or {})),
        tuple(notes),
    )


def load_limits(path: Path | str) -> dict[str, str]:
    """The section [limits] of a TOML file, figure -> limit. Raises ConfigError, with what may have been meant."""
    file = Path(path)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}", "check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is no TOML: {error}", "correct that line") from error
    for section in content:
        if section != "limits":
            raise ConfigError(f"{file}: unknown section or key {section}", suggestion(section, ["limits"]))
    limits = content.get("limits", {})
    if not isinstance(limits, dict) or not limits:
        raise ConfigError(f"{file} has no limits", 'write [limits] and, say, ram_bytes = "+2%"')
    for name, limit in limits.items():
        if name not in FIGURES:
            raise ConfigError(f"{file}: unknown key limits.{name}", suggestion(name, FIGURES))
        if not isinstance(limit, str) or not _LIMIT.fullmatch(limit):
            raise ConfigError(f"{file}: limits.{name} is {limit!r}, no limit of growth", _FORMS)
    return limits


def percent(before: int, after: int) -> str:
    """The change in per cent of `before`."""
    if before == after:
        return "0%"
    return f"{(after - before) / before:+.2%}" if before else "new"


def _operators(before: Snapshot, after: Snapshot) -> tuple[OperatorChange, ...]:
    changes = []
    for key in dict.fromkeys([*before.operators, *after.operators]):
        old, new = before.operators.get(key), after.operators.get(key)
        if old is None or new is None:
            changes.append(OperatorChange(*key, "added" if old is None else "removed", ()))
        elif old != new:
            told = tuple(
                _told(fact, old.facts[fact], new.facts[fact])
                for fact in old.facts
                if old.facts[fact] != new.facts[fact]
            )
            changes.append(OperatorChange(*key, "changed", told))
    return tuple(changes)


def _told(fact: str, old: str | int, new: str | int) -> str:
    if isinstance(old, int) and isinstance(new, int):
        return f"{fact} {old:,} to {new:,}"
    return f"{fact} {old} to {new}"


def _broken(before: Snapshot, after: Snapshot, limits: dict[str, str]) -> list[BrokenLimit]:
    broken = []
    for name, limit in limits.items():
        if before.bases.get(name) != after.bases.get(name):
            raise DataError(
                f"{name} of {before.file} is {before.bases[name]}, of {after.file} {after.bases[name]}: no limit can "
                "be held against that",
                "analyse both alike: with --measure, or both without",
            )
        old, new = before.figures[name], after.figures[name]
        growth = old * Fraction(limit[:-1]) / 100 if limit.endswith("%") else Fraction(limit)
        allowed = math.floor(old + growth)
        if new > allowed:
            broken.append(BrokenLimit(name, limit, max(allowed, 0), old, new))
    return broken

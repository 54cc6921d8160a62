"""What a flasher declares: its tool, its settings in a board file, its command lines, and what its failures mean."""

from __future__ import annotations

import difflib
import re
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from tinypeft.errors import BoardError, OutputError, ToolError
from tinypeft.flashers.failures import Failure
from tinypeft.flashers.process import Finished, last_lines, run_tool

#: name -> the flasher's only instance
FLASHERS: dict[str, Flasher] = {}

Echo = Callable[[str], None]


class RegionLike(Protocol):
    """A memory of a board: bytes from `origin` up to, not including, `end`; `kind` is "flash" or "ram"."""

    @property
    def kind(self) -> str: ...

    @property
    def origin(self) -> int: ...

    @property
    def end(self) -> int: ...


class BoardLike(Protocol):
    """What a flasher needs of a board; `flashers` maps a flasher's name to its settings, in order of preference."""

    @property
    def name(self) -> str: ...

    @property
    def flashers(self) -> Mapping[str, Mapping[str, Any]]: ...

    @property
    def emulators(self) -> Mapping[str, Any]: ...

    @property
    def memories(self) -> Sequence[RegionLike]: ...


@dataclass(frozen=True)
class Setting:
    """A key of `[flashers.<name>]` in a board file: its types in words and in Python; an optional one has a default."""

    text: str
    kinds: tuple[type, ...]
    default: Any = None

    def accepts(self, value: object) -> bool:
        """Whether `value` is of the right type; a list must hold strings, an address must be one."""
        if isinstance(value, bool) or not isinstance(value, self.kinds):
            return False
        if isinstance(value, int):
            return 0 <= value < 1 << 32
        if isinstance(value, list | tuple):
            return bool(value) and all(isinstance(item, str) for item in value)
        return bool(value)


TEXT = (str,)
NUMBER = (int,)
TEXT_OR_LIST = (str, list, tuple)


@dataclass(frozen=True)
class Image:
    """The files of a built firmware, in the absolute folder `build`; each flasher takes one of them."""

    build: Path

    @property
    def elf(self) -> Path:
        """As linked; made by `build`."""
        return self.build / "firmware.elf"

    @property
    def bin(self) -> Path:
        """The flash's content from its first address on; made by `build`."""
        return self.build / "firmware.bin"

    @property
    def uf2(self) -> Path:
        """In UF2 blocks; made by the flasher that copies it."""
        return self.build / "firmware.uf2"


@dataclass(frozen=True)
class Plan:
    """What flashing does: write the text files `files`, then run `commands` one after the other."""

    commands: list[list[str]]
    files: dict[Path, str] = field(default_factory=dict)


def register(cls: type[Flasher]) -> type[Flasher]:
    """Class decorator: put the flasher into the registry; a second of the same name is a KeyError."""
    if cls.name in FLASHERS:
        raise KeyError(f"flasher {cls.name} is registered twice")
    FLASHERS[cls.name] = cls()
    return cls


class Flasher(ABC):
    """A way to bring a built firmware into a board's flash.

    program      the tool's name on the PATH
    install      how to get it; "" where there is nothing to install
    reaches      the boards it flashes, in words
    settings     key of `[flashers.<name>]` in a board file -> what it must be
    probe        what --probe takes
    failures     what the tool says when it fails -> what that means; the first that matches counts
    says_failed  a regular expression of what a tool that exits 0 all the same says where it fails; "" for the others
    """

    name: ClassVar[str]
    program: ClassVar[str]
    install: ClassVar[str]
    reaches: ClassVar[str]
    version_option: ClassVar[str] = "--version"
    settings: ClassVar[Mapping[str, Setting]]
    probe: ClassVar[str]
    failures: ClassVar[tuple[Failure, ...]]
    says_failed: ClassVar[str] = ""

    @abstractmethod
    def plan(self, image: Image, board: BoardLike, probe: str | None, *, dry_run: bool = False) -> Plan:
        """The files and commands that flash `image`. Needs neither the tool nor, for a dry run, a board."""

    def missing(self) -> str | None:
        """Why it cannot run on this computer and how to install it; None where it can."""
        if self.path() is not None:
            return None
        return f"{self.program} is not installed; {self.install}"

    def run(self, plan: Plan, image: Image, board: BoardLike, *, limit: float, echo: Echo) -> None:
        """Carry out `plan` within `limit` seconds a command; `echo` is called with what the tool says, as it says it.

        ToolError where a command fails, says that it failed, or takes too long.
        """
        for path, text in plan.files.items():
            try:
                path.write_text(text)
            except OSError as error:
                raise OutputError(f"cannot write {path}: {error.strerror}", "build the project first") from error
        for command in plan.commands:
            finished = run_tool(command, limit=limit, echo=echo)
            lied = bool(self.says_failed) and re.search(self.says_failed, finished.output, re.IGNORECASE) is not None
            if finished.code != 0 or lied:
                raise self._failed(finished, board)

    def settings_of(self, board: BoardLike) -> dict[str, Any]:
        """The board's settings for this flasher, defaults filled in; BoardError where one is missing or wrong."""
        table = f"board {board.name}: flashers.{self.name}"
        given = board.flashers[self.name]
        for key in given:
            if key not in self.settings:
                nearest = difflib.get_close_matches(key, self.settings, n=1)
                hint = f"did you mean {nearest[0]!r}?" if nearest else "known keys: " + ", ".join(self.settings)
                raise BoardError(f"{table} has the unknown key {key!r}", hint)
        values = {key: given.get(key, setting.default) for key, setting in self.settings.items()}
        for key, value in values.items():
            if value is None:
                raise BoardError(f"{table} lacks {key!r}, {self.settings[key].text}", "add it to board.toml")
            if not self.settings[key].accepts(value):
                raise BoardError(f"{table}.{key} is {value!r}, not {self.settings[key].text}", "correct board.toml")
        return values

    def executable(self) -> str:
        """The tool as a command line names it: a path only where the PATH does not lead to it."""
        path = None if shutil.which(self.program) else self.path()
        return path or self.program

    def path(self) -> str | None:
        """Where the tool is: on the PATH, or beside this Python, as in an environment that is not activated."""
        beside = Path(sys.executable).with_name(self.program)
        return shutil.which(self.program) or (str(beside) if beside.is_file() else None)

    def _known(self, finished: Finished) -> Failure | None:
        matching = (known for known in self.failures if re.search(known.pattern, finished.output, re.IGNORECASE))
        return next(matching, None)

    def _failed(self, finished: Finished, board: BoardLike) -> ToolError:
        known, values = self._known(finished), {"probe": self.probe, **self.settings_of(board)}
        meaning = f": {known.meaning.format_map(values)}" if known else ""
        hint = known.hint if known else "read what it said above; another of the board's flashers may do: --runner"
        return ToolError(
            f"{self.program} failed with exit code {finished.code}{meaning}{last_lines(finished.output)}",
            hint.format_map(values),
        )


def choose(board: BoardLike, runner: str | None, *, dry_run: bool = False) -> Flasher:
    """The board's flasher called `runner`; without one the first of the board's that is installed.

    For a dry run it need not be installed. BoardError for a board that cannot be flashed or not by `runner`,
    ToolError where the tool, or every tool, is missing.
    """
    if not board.flashers:
        raise BoardError(
            f"board {board.name} is emulated only: nothing can be flashed",
            f"tinypeft test DIR --on {next(iter(board.emulators), 'host')}",
        )
    unknown = [name for name in board.flashers if name not in FLASHERS]
    if unknown:
        raise BoardError(
            f"board {board.name}: there is no flasher {unknown[0]!r}", "known flashers: " + ", ".join(sorted(FLASHERS))
        )
    if runner is not None:
        if runner not in board.flashers:
            raise BoardError(
                f"board {board.name} is not flashed by {runner}",
                "flashers of this board: " + ", ".join(board.flashers),
            )
        reason = FLASHERS[runner].missing()
        if reason is not None and not dry_run:
            raise ToolError(
                f"{runner} cannot run here: {reason}", "or leave out --runner: " + ", ".join(board.flashers)
            )
        return FLASHERS[runner]
    own = [FLASHERS[name] for name in board.flashers]
    reasons = {flasher.name: flasher.missing() for flasher in own}
    installed = [flasher for flasher in own if reasons[flasher.name] is None]
    if installed or dry_run:
        return (installed or own)[0]
    raise ToolError(
        f"no flasher of board {board.name} is installed:\n"
        + "\n".join(f"  {name}: {reason}" for name, reason in reasons.items()),
        "install one of them",
    )

"""Build a project folder with make: quietly, with all cores, failures turned into one clear error."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from tinypeft.boards import Board
from tinypeft.errors import FitError, ToolError

#: Seconds after which a build is given up
TIME_LIMIT = 300.0

_CROSS_COMPILER = "arm-none-eabi-gcc"
_CROSS_HINT = "apt install gcc-arm-none-eabi libnewlib-arm-none-eabi"
_OVERFLOW = re.compile(r"region [`'](\w+)' overflowed by (\d+) bytes?")
_FIRST_LINES = 5


def build_firmware(project_dir: Path | str, board: Board, *, time_limit: float = TIME_LIMIT) -> Path:
    """Build `build/firmware.elf` and `firmware.bin`; returns the ELF's path.

    Raises FitError where a memory of `board` overflows, ToolError where a tool is missing, fails or takes longer than
    `time_limit` seconds.
    """
    _require(_CROSS_COMPILER, _CROSS_HINT)
    project = Path(project_dir).resolve()
    _make(project, [], time_limit, board)
    return project / "build" / "firmware.elf"


def build_twin(project_dir: Path | str, *, time_limit: float = TIME_LIMIT) -> Path:
    """Build `build/libtwin.so` with $CC_HOST, gcc or clang, whichever is there first; returns its path.

    Raises ToolError where a tool is missing, fails or takes longer than `time_limit` seconds.
    """
    project = Path(project_dir).resolve()
    _make(project, ["host", f"CC_HOST={host_compiler()}"], time_limit, None)
    return project / "build" / "libtwin.so"


def host_compiler() -> str:
    """The compiler for the twin: $CC_HOST, else gcc, else clang."""
    chosen = os.environ.get("CC_HOST")
    if chosen:
        _require(chosen, "set CC_HOST to an installed compiler, or unset it")
        return chosen
    for name in ("gcc", "clang"):
        if shutil.which(name):
            return name
    raise ToolError("neither gcc nor clang is installed", "apt install gcc")


def _require(program: str, hint: str) -> None:
    if not shutil.which(program):
        raise ToolError(f"{program} is not installed", hint)


def _make(project: Path, arguments: list[str], time_limit: float, board: Board | None) -> None:
    _require("make", "apt install make")
    if not (project / "Makefile").is_file():
        raise ToolError(f"{project} has no Makefile", "generate the project first: tinypeft generate --help")
    command = ["make", "--silent", "--no-print-directory", f"-j{os.cpu_count() or 1}", *arguments]
    # LC_ALL: the messages below are matched in English.
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    process = subprocess.Popen(
        command,
        cwd=project,
        env=environment | {"LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=time_limit)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise ToolError(
                f"building {project} took longer than {time_limit:g} s", "run `make` there to see where it stands"
            ) from error
        raise
    if process.returncode:
        raise _failure(project, output, board)


def _failure(project: Path, output: str, board: Board | None) -> FitError | ToolError:
    overflows = [(name, int(count)) for name, count in _OVERFLOW.findall(output)]
    if overflows and board:
        return _overflow(board, overflows)
    if "nano.specs" in output or re.search(r"fatal error: std\w+\.h: No such file", output):
        return ToolError("the C library of the cross compiler is not installed", _CROSS_HINT)
    if "undefined reference to `_sbrk'" in output:
        return ToolError(
            f"building {project} failed: a source uses the heap or stdio", "firmware has neither: remove it"
        )
    lines = output.splitlines()
    errors = [index for index, line in enumerate(lines) if re.search(r"\berror\b|undefined reference|\*\*\*", line)]
    first = errors[0] if errors else 0
    text = "\n".join(lines[first : first + _FIRST_LINES])
    return ToolError(f"building {project} failed:\n{text}", "run `make` there to see all of it")


def _overflow(board: Board, overflows: list[tuple[str, int]]) -> FitError:
    lengths = {region.name: region.length for region in board.memories}
    parts = []
    for name, count in dict(overflows).items():
        length = lengths.get(name, 0)
        parts.append(f"{name} needs {length + count:,} B, {board.name} has {length:,} B: {count:,} B too many")
    return FitError(
        "; ".join(parts), "use a smaller model or adapter rank, or a board with more memory: tinypeft boards"
    )

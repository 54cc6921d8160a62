"""What tinypeft needs of this computer: each tool and library, whether it is there, what for, how to get it."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tinypeft.errors import ToolError
from tinypeft.flashers import FLASHERS, Flasher
from tinypeft.project.build import host_compiler

_SECONDS = 20.0
_VERSION = re.compile(r"\d+(?:\.\d+)+")
_RENODE = "unpack the portable archive of https://github.com/renode/renode/releases and put it on the PATH"


@dataclass(frozen=True)
class Check:
    """One tool or library; `version` is None where it is missing or does not run."""

    name: str
    kind: str
    version: str | None
    path: str | None
    needed_for: str
    required: bool
    install: str

    @property
    def found(self) -> bool:
        """Whether it can be used."""
        return self.version is not None


@dataclass(frozen=True)
class _Need:
    """What to look for: `look` gives (version, path)."""

    name: str
    kind: str
    needed_for: str
    required: bool
    install: str
    look: Callable[[], tuple[str | None, str | None]]


def diagnose() -> list[Check]:
    """Every check, in the order to read them: Python, tools, libraries."""
    needs = [
        _Need("python", "tool", "everything", True, "apt install python3", _look_for_python),
        _tool("make", "building firmware and twin", True, "apt install make"),
        _Need("gcc or clang", "tool", "the host twin", True, "apt install gcc", _look_for_host_compiler),
        _tool("arm-none-eabi-gcc", "building firmware", True, "apt install gcc-arm-none-eabi"),
        _Need("newlib-nano", "tool", "linking firmware", True, "apt install libnewlib-arm-none-eabi", _look_for_newlib),
        _tool("qemu-system-arm", "running firmware in QEMU", True, "apt install qemu-system-arm"),
        _tool("renode", "running firmware in Renode", False, _RENODE),
        _tool("renode-test", "running Robot tests in Renode", False, _RENODE),
        _tool("cmake", "building a project with CMake instead of make", False, "apt install cmake"),
        *(_flasher(flasher) for flasher in FLASHERS.values() if flasher.install),
        _library("numpy", "everything", ""),
        _library("click", "the command line", ""),
        _library("rich", "tables and progress", ""),
        _library("jinja2", "generating C and project files", ""),
        _library("ai-edge-litert", "reading models and the reference kernels", ""),
        _library("flatbuffers", "writing merged models", ""),
        _library("safetensors", "adapter files", ""),
        _library("pyelftools", "measuring firmware", ""),
        _library("pyserial", "talking to real boards", ""),
        _library("cbor2", "talking to devices", ""),
        _library("tensorflow", "converting .keras and .h5 models", "keras"),
        _library("scikit-learn", "the demo's data set", "demo"),
    ]
    with ThreadPoolExecutor(len(needs)) as pool:
        seen = list(pool.map(lambda need: need.look(), needs))
    return [
        Check(need.name, need.kind, version, path, need.needed_for, need.required, need.install)
        for need, (version, path) in zip(needs, seen, strict=True)
    ]


def _tool(name: str, needed_for: str, required: bool, install: str) -> _Need:
    return _Need(name, "tool", needed_for, required, install, lambda: _look_for_program(name))


def _flasher(flasher: Flasher) -> _Need:
    def look() -> tuple[str | None, str | None]:
        return _version(flasher.path(), flasher.version_option)

    return _Need(flasher.program, "tool", f"flashing {flasher.reaches}", False, flasher.install, look)


def _library(name: str, needed_for: str, extra: str) -> _Need:
    install = f"pip install 'tinypeft[{extra}]'" if extra else f"pip install {name}"
    return _Need(name, "library", needed_for, not extra, install, lambda: _look_for_library(name))


def _look_for_python() -> tuple[str | None, str | None]:
    return platform.python_version(), sys.executable


def _look_for_program(name: str) -> tuple[str | None, str | None]:
    return _version(shutil.which(name), "--version")


def _version(path: str | None, option: str) -> tuple[str | None, str | None]:
    """(what the program at `path` says its version is, `path`); "unknown" for one that has no `option` to ask it."""
    if path is None:
        return None, None
    if not option:
        return "unknown", path
    output = _output([path, option])
    match = _VERSION.search(output) if output else None
    return (match.group() if match else output.strip()[:40] or "unknown") if output is not None else None, path


def _look_for_host_compiler() -> tuple[str | None, str | None]:
    try:
        return _look_for_program(host_compiler())
    except ToolError:
        return None, None


def _look_for_newlib() -> tuple[str | None, str | None]:
    compiler = shutil.which("arm-none-eabi-gcc")
    if compiler is None:
        return None, None
    specs = (_output([compiler, "-print-file-name=nano.specs"]) or "").strip()
    if not Path(specs).is_absolute():  # the bare name comes back where the file is missing
        return None, None
    macros = _output([compiler, "-E", "-dM", "-include", "newlib.h", "-x", "c", "/dev/null"]) or ""
    match = re.search(r'_NEWLIB_VERSION "([^"]+)"', macros)
    return (match.group(1) if match else None), specs


def _look_for_library(name: str) -> tuple[str | None, str | None]:
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None, None
    return distribution.version, str(distribution.locate_file(""))


def _output(command: list[str]) -> str | None:
    """What the command prints, or None where it does not run or fails."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout

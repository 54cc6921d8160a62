"""Where Arm's library lies: headers and, for a core, what its own CMake built."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tinypeft.errors import ToolError


@dataclass(frozen=True)
class Library:
    """The folder of headers, for `-isystem`, and the archive to link, in front of -lc and -lgcc."""

    include: Path
    archive: Path


def find_library(path: Path, core: str) -> Library:
    """The library below `path`: Include/arm_nnfunctions.h, and <core>/libcmsis-nn.a, the CMake build for that core."""
    library = Library(path / "Include", path / core / "libcmsis-nn.a")
    if not (library.include / "arm_nnfunctions.h").is_file():
        raise ToolError(f"{path} has no Include/arm_nnfunctions.h", "give the folder of CMSIS-NN's sources")
    if not library.archive.is_file():
        raise ToolError(
            f"{library.archive} does not exist",
            f"build CMSIS-NN for the core: cmake -S {path} -B {path / core}, then cmake --build {path / core}",
        )
    return library

"""Stand-ins for tools, boards and projects."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tinypeft.boards import Region
from tinypeft.flashers import Image


@dataclass
class FakeBoard:
    """What flashers need of a board."""

    name: str = "fake_board"
    flashers: dict[str, dict[str, Any]] = field(default_factory=dict)
    emulators: dict[str, Any] = field(default_factory=dict)
    memories: tuple[Region, ...] = (
        Region("flash", "flash", 0x1000_0000, 1 << 20, "made up"),
        Region("ram", "ram", 0x2000_0000, 1 << 16, "made up"),
    )


@pytest.fixture
def make_board() -> type[FakeBoard]:
    return FakeBoard


@pytest.fixture
def image(tmp_path: Path) -> Image:
    (tmp_path / "build").mkdir()
    return Image(tmp_path / "build")


@pytest.fixture
def only_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """(name=script, ...) puts these shell scripts on the PATH in front of a bare system, so that no real tool is there.

    `_` in a name stands for `-`.
    """
    folder = tmp_path / "tools"
    folder.mkdir()
    for program in ("sh", "sleep", "cat", "echo", "env", "make", "mkdir", "rm", "gcc", "as", "ld"):
        found = shutil.which(program)
        assert found is not None
        (folder / program).symlink_to(found)
    for program in ("arm-none-eabi-gcc", "arm-none-eabi-objcopy"):
        if found := shutil.which(program):
            (folder / program).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr("tinypeft.flashers.base.sys.executable", str(tmp_path / "nowhere" / "python"))

    def install(**scripts: str) -> Path:
        for name, script in scripts.items():
            program = folder / name.replace("_", "-")
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        return folder

    return install


def alive(process: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(name="alive")
def alive_fixture() -> Callable[[int], bool]:
    if not os.path.isdir("/proc/self"):
        pytest.skip("looks into /proc")
    return alive

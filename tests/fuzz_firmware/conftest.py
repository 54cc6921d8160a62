"""Makes the modules of this folder importable; builds each target once."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from targets import TARGETS, CannotFuzzError, Target, build, require_fuzzer


@pytest.fixture(scope="session")
def fuzzer() -> None:
    """Skips, aloud, where clang cannot fuzz."""
    try:
        require_fuzzer()
    except CannotFuzzError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def programs(fuzzer: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Target], Path]:
    """(target) -> its program."""
    built: dict[str, Path] = {}

    def program(target: Target) -> Path:
        if target.name not in built:
            built[target.name] = build(target, tmp_path_factory.mktemp(target.name))
        return built[target.name]

    return program


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


@pytest.fixture
def without_clang(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that is all of $PATH but for what a shell needs: programs may be put there."""
    for name in ("sh", "cat", "printf"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path

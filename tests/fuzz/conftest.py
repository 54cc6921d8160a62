"""Makes the modules of this folder, and the random cases of others, importable; what its tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from twins import Toolbox

_TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_TESTS / folder) for folder in ("fuzz", "frontend", "ops", "")]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of the tests compile firmware/ in, once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "fuzz"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def toolbox(shared: Path, tmp_path: Path) -> Toolbox:
    """What compiles and opens twins, in a folder of the test's own."""
    from twins import Toolbox

    return Toolbox(shared / "shared", tmp_path)

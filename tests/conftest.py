"""Fixtures of all tests; makes the modules that tests share importable."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from projects import Built

# Started in the background of a shell, the tests and all that they start would ignore Ctrl-C, which some of them send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "ops")]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models and recordings: $TINYPEFT_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("TINYPEFT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no evaluation data: {folder} does not exist; set TINYPEFT_DATA to the folder")
    return folder


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
    """(name in projects.CONFIGURATIONS) -> that project, generated and built once; to be left as it is."""
    from projects import builder

    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "projects"
    shared.mkdir(exist_ok=True)
    return builder(shared)

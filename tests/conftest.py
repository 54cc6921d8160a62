"""Fixtures of all tests; makes the modules that tests share importable."""

import os
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent / "ops")]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models and recordings: $TINYPEFT_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("TINYPEFT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no evaluation data: {folder} does not exist; set TINYPEFT_DATA to the folder")
    return folder

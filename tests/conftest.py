"""Fixtures of all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models and recordings: $TINYPEFT_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("TINYPEFT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no evaluation data: {folder} does not exist; set TINYPEFT_DATA to the folder")
    return folder

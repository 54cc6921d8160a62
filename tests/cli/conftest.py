"""Makes the modules of this folder importable; a project and samples for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from projects import Built  # noqa: E402


@pytest.fixture(scope="session")
def plain(project: Callable[[str], Built]) -> Built:
    return project("plain")


@pytest.fixture(scope="session")
def data(plain: Built, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twenty labelled samples, F.npz:x:y."""
    return plain.save_samples(tmp_path_factory.mktemp("data") / "data.npz")

"""The store in a shared library, mounted on simulated flash."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from devices import OK, Store, build


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return build(tmp_path_factory.mktemp("store"))


@pytest.fixture
def store(library: ctypes.CDLL) -> Iterator[Store]:
    mounted = Store(library)
    assert mounted.mount() == OK
    yield mounted
    mounted.check_rules()

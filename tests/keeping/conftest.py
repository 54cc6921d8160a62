"""Projects that keep adapters, each built once a worker."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import kept as projects_that_keep  # noqa: E402


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., projects_that_keep.Kept]:
    """(configuration, board, further fields of MemoryConfig) -> a built project."""
    built: dict[tuple[object, ...], projects_that_keep.Kept] = {}

    def build(name: str, board: str = "mps2_an386", **memory: int) -> projects_that_keep.Kept:
        key = (name, board, *memory.items())
        if key not in built:
            built[key] = projects_that_keep.generate(name, tmp_path_factory.mktemp("kept"), board, **memory)
        return built[key]

    return build

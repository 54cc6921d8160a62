"""The documents say what the code does: generated tables are current, commands and files that are named exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tinypeft.adapters import ADAPTERS
from tinypeft.boards import board_names
from tinypeft.cli import main
from tinypeft.frontend.lowering import LOWERINGS
from tinypeft.frontend.unsupported import UNSUPPORTED
from tinypeft.losses import LOSSES
from tinypeft.ops import OPS
from tinypeft.optimizers import OPTIMIZERS

ROOT = Path(__file__).resolve().parents[1]


def test_tables_are_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "write_docs.py", "--check"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_everything_registered_is_in_a_table() -> None:
    operators, boards = ((ROOT / "docs" / name).read_text() for name in ("operators.md", "boards.md"))
    for name in [*LOWERINGS, *UNSUPPORTED, *(name for name, op in OPS.items() if op.importable)]:
        assert f"| {name} |" in operators
    for name in board_names():
        assert f"| `{name}` |" in boards
    adapters = (ROOT / "docs" / "adapters.md").read_text()
    for registry in (ADAPTERS, LOSSES, OPTIMIZERS):
        for name, entry in registry.items():
            assert f"| `{name}` | {entry.summary} |" in adapters and entry.summary


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "docs/trustzone.md"])
def test_files_that_are_named_exist(document: str) -> None:
    text = (ROOT / document).read_text()
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists(), f"{document} links to {target}"
    for path in re.findall(r"`((?:tinypeft|firmware|templates|boards|tests|tools|benchmarks|docs)/[\w./]+)`", text):
        assert (ROOT / path).exists(), f"{document} names {path}"


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    for name in main.list_commands(None):  # type: ignore[arg-type]
        assert f"`{name}`" in text, f"README.md lacks the command {name}"

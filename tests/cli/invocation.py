"""How the tests of this folder call the command line, and what a refusal must look like."""

from __future__ import annotations

import json
import re
from pathlib import Path

from click.testing import CliRunner, Result
from projects import BOARD

from tinypeft.cli import main


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def succeeded(*arguments: str | Path) -> dict:
    """The one JSON object on stdout."""
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(result: Result, message: str, code: int = 1) -> None:
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.stdout == "" and "Traceback" not in result.stderr
    assert re.search(message, result.stderr), result.stderr
    if code == 1:
        assert result.stderr.startswith("error: ") and "\ntry: " in result.stderr, result.stderr


def generate(model: Path | str, folder: Path, *extra: str, board: str = BOARD) -> Result:
    return CliRunner().invoke(main, ["generate", str(model), "--board", board, "-o", str(folder), *extra])


def generate_refused(result: Result, folder: Path, message: str, hint: str = "", code: int = 1) -> None:
    """One error, one thing to try, no traceback, nothing written beside what the test itself wrote."""
    assert result.exit_code == code, result.output
    assert result.stdout == "" and "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert re.search(message, result.stderr), result.stderr
    if code == 1:
        assert result.stderr.startswith("error: ") and re.search(f"^try: .*{hint}", result.stderr, re.MULTILINE), (
            result.stderr
        )
    assert not folder.exists()
    assert not [p for p in folder.parent.glob(".*") if p.is_dir()] if folder.parent.exists() else True

"""Where commands print: results on stdout, for people or as one JSON object; progress on stderr."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from rich.console import Console

_Command = TypeVar("_Command", bound=Callable[..., Any])

#: Columns where stdout is no terminal, so that tables in a file or a log are not folded
_FILE_WIDTH = 160


def json_option(command: _Command) -> _Command:
    """Decorator: the option --json, passed to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object, nothing else.")(command)


def console() -> Console:
    """For results that people read, on stdout."""
    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _FILE_WIDTH)


def progress_console() -> Console:
    """For progress, on stderr."""
    return Console(stderr=True, highlight=False, emoji=False)


def print_json(value: Mapping[str, Any]) -> None:
    """Print `value` as one JSON object on stdout; dataclasses, paths and NumPy values are converted."""
    click.echo(json.dumps(value, indent=2, default=_plain))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")

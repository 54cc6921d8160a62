"""Results that are expensive to compute, kept on disk under a hash of all that determines them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinypeft.errors import OutputError

_CHECKSUMS = "sha256.json"


def cache_folder() -> Path:
    """$TINYPEFT_CACHE, or ~/.cache/tinypeft; made where it does not exist. OutputError if that fails."""
    folder = Path(os.environ.get("TINYPEFT_CACHE") or Path.home() / ".cache" / "tinypeft")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"the cache {folder} cannot be made: {error.strerror}",
            "set the environment variable TINYPEFT_CACHE to a folder that can be written",
        ) from error
    return folder


def digest(*parts: Any) -> str:
    """A hash, 16 hexadecimal digits, of arrays (dtype, shape, bytes), bytes, dataclasses and what JSON can hold."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            head, body = f"array {part.dtype.str} {part.shape}", np.ascontiguousarray(part).tobytes()
        elif isinstance(part, bytes):
            head, body = "bytes", part
        else:
            plain = dataclasses.asdict(part) if dataclasses.is_dataclass(part) else part  # type: ignore[arg-type]
            head, body = "json", json.dumps(plain, sort_keys=True).encode()
        total.update(f"{head} {len(body)}\0".encode() + body)
    return total.hexdigest()[:16]


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`; None where there is no such file, or one that is damaged."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `path` as a whole or not at all."""
    with _writing(path), tempfile.TemporaryDirectory(dir=_made(path.parent), prefix=".") as folder:
        written = Path(folder, path.name)
        written.write_text(json.dumps(value, sort_keys=True, allow_nan=False) + "\n")
        written.replace(path)


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` at the end if nothing was raised; an older `path` is replaced."""
    with _writing(path), tempfile.TemporaryDirectory(dir=_made(path.parent), prefix=".") as temporary:
        folder = Path(temporary, path.name)
        folder.mkdir()
        yield folder
        write_json(folder / _CHECKSUMS, _checksums(folder))
        if path.exists():
            path.rename(Path(temporary, "old"))
        folder.rename(path)


def folder_is_intact(path: Path) -> bool:
    """Whether `path` was written by `new_folder`, and every file in it is still as it was."""
    expected = read_json(path / _CHECKSUMS)
    return expected is not None and expected == _checksums(path)


def clear(folder: Path) -> None:
    """Remove `folder` and all in it."""
    shutil.rmtree(folder, ignore_errors=True)


def _checksums(folder: Path) -> dict[str, Any]:
    files = sorted(path for path in folder.iterdir() if path.name != _CHECKSUMS)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written: {error.strerror or error}",
            "set the environment variable TINYPEFT_CACHE to a folder that can be written",
        ) from error

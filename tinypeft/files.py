"""Files and folders written whole or not at all: a path and content in."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tinypeft.errors import OutputError


def write_file(path: Path | str, content: str | bytes) -> None:
    """Write `content` to the file `path`, or on any failure leave it as it was. Raises OutputError."""
    target = Path(path)
    stage: str | None = None
    try:
        # Beside the target, so that both are on one file system and a rename suffices.
        handle, stage = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
        os.chmod(stage, 0o666 & ~_umask())
        os.replace(stage, target)
    except OSError as error:
        if stage is not None:
            with contextlib.suppress(OSError):
                os.unlink(stage)
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}", "choose another file, in a folder that exists"
        ) from error


def write_folder(directory: Path | str, files: Mapping[str, bytes]) -> None:
    """Write `files`, by name, into a folder, which is made where it does not exist. Raises OutputError."""
    target = Path(directory)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            for name, data in files.items():
                (stage / name).write_bytes(data)
            target.mkdir(exist_ok=True)
            for name in files:
                (stage / name).replace(target / name)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}", "choose another output folder"
        ) from error


def check_folder(directory: Path | str, names: set[str], what: str) -> Path:
    """`directory` as a path; raises OutputError where it holds other files than `names`, those of `what`."""
    target = Path(directory)
    if target.exists() and (not target.is_dir() or {p.name for p in target.iterdir()} - names):
        raise OutputError(f"{target} exists and holds something other than {what}", "choose another output folder")
    return target


def check_writable(path: Path | str) -> None:
    """Raise OutputError where `path` lies in no folder, before work is done for it."""
    if not Path(path).parent.is_dir() or Path(path).is_dir():
        reason = "Is a directory" if Path(path).is_dir() else "No such file or directory"
        raise OutputError(f"cannot write {path}: {reason}", "choose another file, in a folder that exists")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

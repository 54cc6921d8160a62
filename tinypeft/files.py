"""Files written whole or not at all: a path and text in."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from tinypeft.errors import OutputError


def write_file(path: Path | str, text: str) -> None:
    """Write `text` to the file `path`, or on any failure leave it as it was. Raises OutputError."""
    target = Path(path)
    stage: str | None = None
    try:
        # Beside the target, so that both are on one file system and a rename suffices.
        handle, stage = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as stream:
            stream.write(text.encode())
        os.chmod(stage, 0o666 & ~_umask())
        os.replace(stage, target)
    except OSError as error:
        if stage is not None:
            with contextlib.suppress(OSError):
                os.unlink(stage)
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}", "choose another file, in a folder that exists"
        ) from error


def check_writable(path: Path | str) -> None:
    """Raise OutputError where `path` lies in no folder, before work is done for it."""
    if not Path(path).parent.is_dir() or Path(path).is_dir():
        reason = "Is a directory" if Path(path).is_dir() else "No such file or directory"
        raise OutputError(f"cannot write {path}: {reason}", "choose another file, in a folder that exists")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

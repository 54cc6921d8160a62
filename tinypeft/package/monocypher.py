"""Monocypher's C sources, from the user's copy or out of the archive of pymonocypher: for firmware that has a key."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tinypeft.errors import ToolError

VERSION = "4.0.3.4"
ARCHIVE = f"pymonocypher-{VERSION}.tar.gz"
_SHA256 = "5e56e3d3eb770a53e0b9f6274146663c11a11f3d0de5cd48e3be0428d1b07a4a"
FILES = ("monocypher.c", "monocypher.h")
#: what the firmware calls, in Monocypher from 4.0 on
_CALLED = ("crypto_eddsa_check_equation", "crypto_eddsa_reduce")
_TIME_LIMIT = 180.0
_OWN_COPY = "give a copy of Monocypher 4: --monocypher DIR"


def monocypher_files(directory: Path | str | None = None) -> dict[str, bytes]:
    """monocypher.c and monocypher.h by name, from `directory`, or from the package registry, kept in the user's cache.

    Raises ToolError where there are none, or other ones than are expected.
    """
    return _from_archive(_archive()) if directory is None else _from_folder(Path(directory))


def _from_folder(directory: Path) -> dict[str, bytes]:
    folder = next((f for f in (directory, directory / "src") if (f / FILES[0]).is_file()), directory)
    try:
        files = {name: (folder / name).read_bytes() for name in FILES}
    except OSError as error:
        raise ToolError(
            f"{directory} holds no {' and '.join(FILES)}: {error.strerror}", "give the folder of Monocypher's sources"
        ) from error
    for function in _CALLED:
        if any(function.encode() not in data for data in files.values()):
            raise ToolError(f"the Monocypher in {directory} lacks {function}()", "give Monocypher 4.0 or later")
    return files


def _from_archive(archive: Path) -> dict[str, bytes]:
    files = {}
    with tarfile.open(archive) as opened:
        for name in FILES:
            member = opened.extractfile(f"{ARCHIVE.removesuffix('.tar.gz')}/{name}")
            assert member is not None  # of an archive whose hash was compared
            files[name] = member.read()
    return files


def _archive() -> Path:
    """The archive in the user's cache, downloaded the first time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinypeft"
    kept = cache / ARCHIVE
    if kept.is_file() and _sha256(kept) == _SHA256:
        return kept
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            _download(Path(folder))
            found = Path(folder) / ARCHIVE
            if not found.is_file() or _sha256(found) != _SHA256:
                raise ToolError(f"the package registry's {ARCHIVE} is not the one that was checked", _OWN_COPY)
            os.replace(found, kept)  # in one step: another process may be doing the same
    except OSError as error:
        raise ToolError(f"cannot keep Monocypher in {cache}: {error.strerror or error}", _OWN_COPY) from error
    return kept


def _download(folder: Path) -> None:
    requirement = folder / "requirements.txt"
    requirement.write_text(f"pymonocypher=={VERSION} --hash=sha256:{_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "pymonocypher", "--quiet"]
    command += ["--disable-pip-version-check", "--retries", "1", "-r", str(requirement), "-d", str(folder)]
    try:
        run = subprocess.run(
            command, check=False, capture_output=True, text=True, errors="replace", timeout=_TIME_LIMIT
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(f"pip took more than {_TIME_LIMIT:.0f} s to download {ARCHIVE}", _OWN_COPY) from error
    if run.returncode != 0:
        last = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ToolError(f"pip could not download {ARCHIVE}, which checks signatures: {last}", _OWN_COPY)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()

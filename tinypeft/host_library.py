"""Shared libraries for this computer, built from C on first use and kept in the user's cache, by source hash."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

_TIME_LIMIT = 60.0


def build_library(source: Path, others: Sequence[Path] = (), *, purpose: str) -> tuple[Path | None, str | None]:
    """(the library made of `source`, None), or (None, why there is none).

    `others` are what it includes; `purpose` names it in the reason and in the cache.
    """
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in (source, *others))).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinypeft"
    library = cache / f"{purpose.replace(' ', '-')}-{digest}.so"
    if library.is_file():
        return library, None
    compiler = next((name for name in ("gcc", "clang", "cc") if shutil.which(name)), None)
    if compiler is None:
        return None, f"the {purpose} needs a C compiler of this computer: apt install gcc"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            built = Path(folder) / library.name
            command = [compiler, "-std=c11", "-O2", "-fPIC", "-shared", str(source), "-o", str(built)]
            run = subprocess.run(
                command, check=False, capture_output=True, text=True, errors="replace", timeout=_TIME_LIMIT
            )
            if run.returncode != 0:
                return None, f"{compiler} could not build the {purpose}: {run.stderr.strip()[:300]}"
            os.replace(built, library)  # in one step: another process may be doing the same
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"the {purpose} could not be built in {cache}: {error}"
    return library, None

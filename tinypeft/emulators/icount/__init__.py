"""Exact instruction counts on QEMU: a plugin built from `plugin.c` on first use, and the file it writes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent
_SOURCES = ("plugin.c", "qemu_plugin_abi.h")
_TIME_LIMIT = 60.0


def build_plugin() -> tuple[Path | None, str | None]:
    """(the plugin's path, None), or (None, why there is none). Built once into the user's cache, by source hash."""
    digest = hashlib.sha256(b"".join((_FOLDER / name).read_bytes() for name in _SOURCES)).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinypeft"
    plugin = cache / f"icount-{digest}.so"
    if plugin.is_file():
        return plugin, None
    compiler = next((name for name in ("gcc", "clang", "cc") if shutil.which(name)), None)
    if compiler is None:
        return None, "counting needs a C compiler of this computer: apt install gcc"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            built = Path(folder) / plugin.name
            command = [compiler, "-std=c11", "-O2", "-fPIC", "-shared", str(_FOLDER / "plugin.c"), "-o", str(built)]
            run = subprocess.run(
                command, check=False, capture_output=True, text=True, errors="replace", timeout=_TIME_LIMIT
            )
            if run.returncode != 0:
                return None, f"{compiler} could not build the counting plugin: {run.stderr.strip()[:300]}"
            os.replace(built, plugin)  # in one step: another process may be doing the same
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"the counting plugin could not be built in {cache}: {error}"
    return plugin, None


def last_count(counts: Path) -> int | None:
    """The newest line of the plugin's file; None before the first region has ended."""
    lines = counts.read_text().split() if counts.exists() else []
    return int(lines[-1]) if lines else None

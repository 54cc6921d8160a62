"""Exact instruction counts on QEMU: a plugin built from `plugin.c` on first use, and the file it writes."""

from __future__ import annotations

from pathlib import Path

from tinypeft.host_library import build_library

_FOLDER = Path(__file__).resolve().parent


def build_plugin() -> tuple[Path | None, str | None]:
    """(the plugin's path, None), or (None, why there is none)."""
    return build_library(_FOLDER / "plugin.c", [_FOLDER / "qemu_plugin_abi.h"], purpose="counting plugin")


def last_count(counts: Path) -> int | None:
    """The newest line of the plugin's file; None before the first region has ended."""
    lines = counts.read_text().split() if counts.exists() else []
    return int(lines[-1]) if lines else None

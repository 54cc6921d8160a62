"""Where the files that are not Python live, templates, firmware and boards: in a checkout or inside a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def resource_path(*parts: str) -> Path:
    """The path of a shipped file or folder; the parts are, say, "firmware" and "kernels".

    A checkout (or an editable install of it) keeps them at its top; a wheel carries them in `tinypeft/_resources`.
    """
    installed = _PACKAGE / "_resources"
    top = installed if installed.is_dir() else _PACKAGE.parent
    return top.joinpath(*parts)

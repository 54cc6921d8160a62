"""Where the files that are not Python live, templates, firmware and boards: in a checkout or inside a wheel."""

from __future__ import annotations

import functools
from pathlib import Path

import jinja2

_PACKAGE = Path(__file__).resolve().parent


def resource_path(*parts: str) -> Path:
    """The path of a shipped file or folder; the parts are, say, "firmware" and "kernels".

    A checkout (or an editable install of it) keeps them at its top; a wheel carries them in `tinypeft/_resources`.
    """
    installed = _PACKAGE / "_resources"
    top = installed if installed.is_dir() else _PACKAGE.parent
    return top.joinpath(*parts)


def template(name: str) -> jinja2.Template:
    """The template `templates/<name>`: trimmed blocks, names that must be defined; .html.j2 escapes what it inserts."""
    return _environment().get_template(name)


@functools.cache
def _environment() -> jinja2.Environment:
    """One for all: it keeps every template that was compiled."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource_path("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
    )

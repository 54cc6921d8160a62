"""Sizes that people write, 40KB, 40KiB or 65536, in flags and in tinypeft.toml: text in, bytes out."""

from __future__ import annotations

import re
from typing import Any

import click

_UNITS = {"": 1, "b": 1, "kb": 1000, "kib": 1024, "mb": 1000**2, "mib": 1024**2}


def parse_bytes(text: str) -> int:
    """Bytes of a number with B, KB (1000), KiB (1024), MB or MiB, or none; ValueError unless that is a whole number."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].lower() not in _UNITS:
        raise ValueError(f"{text!r} is no size such as 40KB, 40KiB or 65536")
    size = float(match[1]) * _UNITS[match[2].lower()]
    if size != int(size):
        raise ValueError(f"{text!r} is no whole number of bytes")
    return int(size)


class ByteSize(click.ParamType):
    """An option's size in bytes, at least 1."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The size as an int."""
        try:
            size = parse_bytes(str(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
        if size < 1:
            self.fail(f"{value} is not at least 1 byte.", param, ctx)
        return size

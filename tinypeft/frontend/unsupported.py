"""TFLite operators that cannot be in an int8 model, or that tinypeft leaves out, each with the reason."""

from __future__ import annotations

#: TFLite operator -> why it is not supported, as one sentence
UNSUPPORTED: dict[str, str] = {}

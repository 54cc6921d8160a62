"""Random TFLite nodes of operators that move or resize data."""

from __future__ import annotations

from collections.abc import Callable

from tflite_builder import Node

LAYOUT_CASES: dict[str, Callable[..., Node]] = {}

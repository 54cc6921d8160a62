"""Random TFLite nodes of reductions."""

from __future__ import annotations

from collections.abc import Callable

from tflite_builder import Node

REDUCTION_CASES: dict[str, Callable[..., Node]] = {}

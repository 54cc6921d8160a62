"""Random TFLite nodes of elementwise operators and activation functions."""

from __future__ import annotations

from collections.abc import Callable

from tflite_builder import Node

ELEMENTWISE_CASES: dict[str, Callable[..., Node]] = {}

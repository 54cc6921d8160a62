"""The demo: a small digit recogniser, and a device that sees digits in its own way."""

from tinypeft.demo.data import DemoFiles, make_model

__all__ = ["DemoFiles", "make_model"]

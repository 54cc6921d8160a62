"""Losses: one module each, found by importing this folder. See `base.Loss` for what one declares."""

import importlib
import pkgutil

from tinypeft.losses.base import (
    INPUT,
    LABEL,
    LOSSES,
    TARGETS,
    VECTOR,
    Loss,
    register,
    target_argument,
    target_on_device,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "INPUT",
    "LABEL",
    "LOSSES",
    "TARGETS",
    "VECTOR",
    "Loss",
    "register",
    "target_argument",
    "target_on_device",
]

"""Optimisers: one module each, found by importing this folder. See `base.Optimizer` for what one declares."""

import importlib
import pkgutil

from tinypeft.optimizers.base import OPTIMIZERS, Optimizer, Shared, register

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["OPTIMIZERS", "Optimizer", "Shared", "register"]

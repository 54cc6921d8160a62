"""Flashers: one module each, found by importing this folder. See `base.Flasher` for what one declares."""

import importlib
import pkgutil

from tinypeft.flashers.base import FLASHERS, BoardLike, Flasher, Image, Plan, choose, register

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["FLASHERS", "BoardLike", "Flasher", "Image", "Plan", "choose", "register"]

"""Emulators: one module each, found by importing this folder. See `base.Emulator` for what one declares."""

import importlib
import pkgutil

from tinypeft.emulators.base import EMULATORS, BoardLike, Emulator, find_emulator, register

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["EMULATORS", "BoardLike", "Emulator", "find_emulator", "register"]

"""Kernel backends: other ways than the portable C to compute an operation on a core, with the same bits."""

import importlib
import pkgutil

from tinypeft.kernels.base import BACKENDS, Kernel, KernelBackend, Routine, Target, register
from tinypeft.kernels.config import ARENA_GROWTH, DEFAULT_KERNELS, PORTABLE_KERNELS, KernelConfig
from tinypeft.kernels.select import Choice, choose_kernels

for _module in pkgutil.iter_modules(__path__):
    if _module.ispkg:  # a backend, which registers itself
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "ARENA_GROWTH",
    "BACKENDS",
    "DEFAULT_KERNELS",
    "PORTABLE_KERNELS",
    "Choice",
    "Kernel",
    "KernelBackend",
    "KernelConfig",
    "Routine",
    "Target",
    "choose_kernels",
    "register",
]

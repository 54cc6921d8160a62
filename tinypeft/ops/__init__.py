"""Operators: one module each, found by importing this folder. See `base.Op` for what one declares."""

import importlib
import pkgutil

from tinypeft.ops.base import OPS, Builder, CArray, CFunction, CPointers, CStruct, KernelCall, Op, RowFunction, register

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "OPS",
    "Builder",
    "CArray",
    "CFunction",
    "CPointers",
    "CStruct",
    "KernelCall",
    "Op",
    "RowFunction",
    "register",
]

"""Adapter kinds: one module each, found by importing this folder. See `base.AdapterKind` for what one declares."""

import importlib
import pkgutil

from tinypeft.adapters.base import (
    ADAPTERS,
    AdaptedGraph,
    AdapterConfig,
    AdapterKind,
    Insertion,
    MergedLayer,
    Option,
    Parameter,
    Targets,
    base_layer,
    register,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "ADAPTERS",
    "AdaptedGraph",
    "AdapterConfig",
    "AdapterKind",
    "Insertion",
    "MergedLayer",
    "Option",
    "Parameter",
    "Targets",
    "base_layer",
    "register",
]

"""The backend `mve`: kernels for the Cortex-M55's Helium in C with its instructions, one module an operator family."""

import importlib
import pkgutil

from tinypeft.kernels.mve.backend import MveBackend

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["MveBackend"]

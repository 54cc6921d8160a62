"""float32 functions of the C library, which LiteRT fills its tables with: NumPy's own round differently. No operator.

They are within 3 units of the last place of the exact value on every platform, so that tables made on two platforms
differ, if at all, where a value lies within that of a tie.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np


@functools.cache
def _library() -> Any:
    # the C library is loaded already, everywhere but on Windows under the process's own name
    return ctypes.CDLL("ucrtbase" if os.name == "nt" else None)


def _function(name: str) -> Callable[[np.ndarray], np.ndarray]:
    def elementwise(x: np.ndarray) -> np.ndarray:
        function = _library()[name]
        function.argtypes, function.restype = [ctypes.c_float], ctypes.c_float
        return np.array([function(float(value)) for value in x.reshape(-1)], np.float32).reshape(x.shape)

    elementwise.__doc__ = f"{name} of each float32."
    return elementwise


expf = _function("expf")
expm1f = _function("expm1f")
logf = _function("logf")
tanhf = _function("tanhf")
erfcf = _function("erfcf")

"""How integer results become the mantissas of a gradient, of 16 bits or 8. Defines no operator.

With 16 bits the shift follows from a bound that is known beforehand. With 8 the bits that a bound wastes would be
missed: the results are computed twice, the first time to find the largest.
"""

from __future__ import annotations

import numpy as np

from tinypeft.arithmetic import ACCUMULATOR_MAX, common_exponent, narrow_shift, round_half_up_shift
from tinypeft.ir import DTYPES, Tensor
from tinypeft.ops.base import BlockFloat


def mantissa_limit(tensor: Tensor) -> int:
    """The largest mantissa of a gradient: 32767 or 127."""
    return int(np.iinfo(DTYPES[tensor.dtype]).max)


def narrowed(tensor: Tensor, results: np.ndarray, exponent: int, bound: int) -> BlockFloat:
    """results * 2**exponent, none beyond `bound`, as a value of `tensor`: shifted into its mantissas, half up."""
    if tensor.dtype == "bfp8":
        bound = int(np.abs(results).max(initial=0))
    shift = narrow_shift(bound, mantissa_limit(tensor))
    return stored(tensor, round_half_up_shift(results, shift), exponent + shift)


def added(tensor: Tensor, results: np.ndarray, exponent: int, bound: int, addend: BlockFloat) -> BlockFloat:
    """results * 2**exponent, none beyond `bound`, plus `addend` as a value of `tensor`.

    Each is rounded half up to the exponent at which both bounds fit; with 8 bits, at which they fit int32, and their
    sum again.
    """
    limit = mantissa_limit(tensor) if tensor.dtype == "bfp16" else ACCUMULATOR_MAX
    common = common_exponent(bound, exponent, addend.peak, addend.exponent, limit)
    total = round_half_up_shift(results, common - exponent)
    total = total + round_half_up_shift(addend.mantissa, common - addend.exponent).reshape(total.shape)
    return narrowed(tensor, total, common, limit)


def stored(tensor: Tensor, mantissas: np.ndarray, exponent: int) -> BlockFloat:
    """Mantissas that fit, in the dtype and shape of `tensor`."""
    return BlockFloat(np.ascontiguousarray(mantissas).astype(DTYPES[tensor.dtype]).reshape(tensor.shape), exponent)

"""How integer results become the mantissas of a gradient, of 16 bits or 8. Defines no operator.

With 16 bits the shift follows from a bound that is known beforehand. With 8 the bits that a bound wastes would be
missed: the results are computed twice, the first time to find the largest.
"""

from __future__ import annotations

import numpy as np

from tinypeft.arithmetic import common_exponent, narrow_shift, round_half_up_shift
from tinypeft.ir import DTYPES, Tensor
from tinypeft.ops.base import BlockFloat

#: Bits below the coarser of two exponents that a sum keeps while its largest result is sought
SUM_BITS = 12


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

    Each is rounded half up to the exponent at which both bounds fit, or, with 8 bits, to a finer one and their sum
    again.
    """
    own, other = results.astype(np.int64), addend.mantissa.reshape(results.shape)
    if tensor.dtype != "bfp8":
        common = common_exponent(bound, exponent, addend.peak, addend.exponent)
        return stored(tensor, _sum_at(common, own, exponent, other, addend.exponent), common)
    low, high = sorted((exponent if bound else addend.exponent, addend.exponent if addend.peak else exponent))
    fine = max(low, high - SUM_BITS)
    return narrowed(tensor, _sum_at(fine, own, exponent, other, addend.exponent), fine, 0)


def stored(tensor: Tensor, mantissas: np.ndarray, exponent: int) -> BlockFloat:
    """Mantissas that fit, in the dtype and shape of `tensor`."""
    return BlockFloat(np.ascontiguousarray(mantissas).astype(DTYPES[tensor.dtype]).reshape(tensor.shape), exponent)


def _sum_at(common: int, a: np.ndarray, exponent_a: int, b: np.ndarray, exponent_b: int) -> np.ndarray:
    return round_half_up_shift(a, common - exponent_a) + round_half_up_shift(b, common - exponent_b)

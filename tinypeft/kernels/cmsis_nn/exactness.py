"""When CMSIS-NN rounds and pads as the portable kernels do. Its default build requantises as `requantize_double`."""

from __future__ import annotations

import functools

import numpy as np

from tinypeft.arithmetic import REQUANTIZE_MAX
from tinypeft.ir import Operation
from tinypeft.ops.weighted import ACCUMULATOR_LIMIT, accumulator_bound
from tinypeft.ops.window import Window

#: Most of any extent, and of the taps of a filter: the library holds coordinates as int16 and counts as uint16.
MAX_EXTENT, MAX_TAPS = (1 << 15) - 1, (1 << 16) - 1
#: A padded column, and one that the library reads where none should be read.
_PADDED, _WRONG = -1, -2


def bound_of(op: Operation) -> int:
    """The largest |accumulator| of a layer, of merged weights what any may have."""
    return accumulator_bound(op) if op.inputs["filter"].data is not None else ACCUMULATOR_LIMIT


def requantization_problem(shift: np.ndarray, bound: int) -> str | None:
    """None, or why the library's shifts of values up to `bound` are not those of `requantize_double`."""
    left = int(shift.max(initial=0))
    if left > 0 and bound > REQUANTIZE_MAX >> left:
        return f"no kernel for accumulators up to {bound} that are shifted to the left by {left}, beyond int32"
    return None


@functools.cache
def once_rounded_multiplier(multiplier: int, shift: int, bound: int, low: int, high: int) -> tuple[int, int] | None:
    """A (multiplier, shift) of which CMSIS-NN's two roundings are the one of `requantize_single`, where there is any.

    For every |accumulator| <= bound it gives the same result, of which only what is inside [low, high] counts. Its
    shift is not to the right, so the library's second rounding has nothing to round. Both results grow with the
    accumulator: they are equal if they reach each step at the same one.
    """
    left = max(shift, 0)
    if bound > REQUANTIZE_MAX >> left:
        return None
    if not multiplier:
        return 0, 0
    least, most = 1, (1 << 31) - 1
    for step in range(low + 1, high + 1):
        # the first accumulator of which one rounding gives `step`: a half goes away from zero
        product = ((2 * step - 1) << (30 - shift)) + (1 if step <= 0 else 0)
        first = -(-product // multiplier)
        # of two roundings: the first with accumulator * multiplier >= threshold
        threshold = (2 * step - 1) << (30 - left)
        reached, below = max(first, -bound), min(first - 1, bound)
        if reached <= bound:
            low_end, high_end = _factors(reached, threshold)
            least, most = max(least, low_end), min(most, high_end)
        if below >= -bound:
            low_end, high_end = _factors(-below, 1 - threshold)
            least, most = max(least, low_end), min(most, high_end)
        if least > most:
            return None
    nearest = multiplier >> max(-shift, 0)
    return min(max(nearest, least), most), left


def _factors(x: int, threshold: int) -> tuple[int, int]:
    """The least and the most m of 1 to 2**31 - 1 with x * m >= threshold; (1, 0) where none is."""
    if x > 0:
        return -(-threshold // x), (1 << 31) - 1
    if x < 0:
        return 1, -threshold // -x
    return (1, (1 << 31) - 1) if threshold <= 0 else (1, 0)


def sees_the_image(window: Window) -> bool:
    """Whether every position has a tap inside the image."""
    return bool(window.inside().any(axis=(2, 3)).all())


def window_problem(window: Window) -> str | None:
    """None, or what no kernel of the library is for: windows that begin inside the image, numbers that it cuts off."""
    if window.pad_top < 0 or window.pad_left < 0:
        return "no kernel for windows that begin inside the image"
    extents = {**window.fields(), "rows": int(window.rows().max()), "columns": int(window.columns().max())}
    name, largest = max(extents.items(), key=lambda item: item[1])
    if largest > MAX_EXTENT:
        return f"no kernel for {name} of {largest}, the most is {MAX_EXTENT}"
    return None


@functools.cache
def one_row_parts(window: Window) -> tuple[int, int, int, int] | None:
    """(left, inside, right, padding at the right) of arm_convolve_1_x_n_s8 with MVE; None where it does as if general.

    It computes `left` positions from a copy with padding in front, `inside` from the input, `right` from a copy with
    padding behind.
    """
    odd = _odd_padding(window)
    at_right = window.pad_left + odd
    right = max(1, int((at_right + window.stride_w - 1) / window.stride_w)) if at_right else 0
    left = max(1, (window.pad_left + window.stride_w - 1) // window.stride_w) if window.pad_left else 0
    inside = max(window.output_w - right - left, 0)
    if left + inside + right != window.output_w:
        return None
    return left, inside, right, right if odd else window.pad_left


def one_row_exact(window: Window) -> bool:
    """Whether arm_convolve_1_x_n_s8 with MVE reads the taps of every position."""
    if _total_padding(window) != 2 * window.pad_left + _odd_padding(window):
        return False
    parts = one_row_parts(window)
    if parts is None:
        return True
    left, inside, right, padding = parts
    first = window.stride_w * (left + inside) - window.pad_left
    fits = window.kernel_w <= window.input_w and first + window.kernel_w - 1 <= window.input_w
    if window.output_h != 1 or window.pad_top or not fits:
        return False
    image = np.arange(window.input_w)
    in_front = np.r_[np.full(window.pad_left, _PADDED), image[: window.kernel_w]]
    behind = np.r_[image[first : first + window.kernel_w - 1], np.full(padding, _PADDED)]
    copies = (in_front, 0, left), (image, window.stride_w * left - window.pad_left, inside), (behind, 0, right)
    read = [_columns(source, start, count, window) for source, start, count in copies]
    columns = window.columns()
    wanted = np.where((columns >= 0) & (columns < window.input_w), columns, _PADDED)
    return bool((np.concatenate(read) == wanted).all())


def _total_padding(window: Window) -> int:
    return (window.output_w - 1) * window.stride_w + window.kernel_w - window.input_w


def _odd_padding(window: Window) -> int:
    """What C gives as the remainder by 2 of the padding: the sign of the padding where it is odd."""
    total = _total_padding(window)
    return total % 2 if total >= 0 else -(total % 2)


def _columns(source: np.ndarray, start: int, count: int, window: Window) -> np.ndarray:
    """(count, KW): the columns that positions at strides from `start` read of a copy of them."""
    taps = start + np.arange(count)[:, None] * window.stride_w + np.arange(window.kernel_w)
    inside = (taps >= 0) & (taps < len(source))
    return np.where(inside, source[np.clip(taps, 0, len(source) - 1)], _WRONG)

"""How far in front of its input a kernel may write its output over it, row by row. Defines no operator."""

from __future__ import annotations

import numpy as np

from tinypeft.ops.window import Window

_MULTIPLE = 4


def window_distance(window: Window, gathered: bool) -> int:
    """Bytes by which an int8 image must start behind the output of a sliding window for `Op.behind`.

    The kernel computes position after position. `gathered`: it reads all of a position before it writes there; else
    what a position's outputs cover must not be read by it either.
    """
    rows, columns = _first_inside(window.rows(), window.input_h), _first_inside(window.columns(), window.input_w)
    lowest = (rows[:, None] * window.input_w + columns[None, :]).reshape(-1) * window.input_c
    return _distance(lowest, window.output_c, gathered)


def rows_distance(rows: int, input_c: int, output_c: int) -> int:
    """The same for a kernel that computes `rows` outputs of `output_c` bytes from as many inputs of `input_c`."""
    return _distance(np.arange(rows) * input_c, output_c, False)


def _first_inside(taps: np.ndarray, extent: int) -> np.ndarray:
    """(outputs,): the first of (outputs, kernel) coordinates in [0, extent), or extent where none is."""
    return np.where((taps >= 0) & (taps < extent), taps, extent).min(axis=1)


def _distance(lowest: np.ndarray, written: int, gathered: bool) -> int:
    """`lowest[p]`: the first byte that position p reads; it writes `written` bytes behind those of the ones before."""
    still_read = np.minimum.accumulate(lowest[::-1])[::-1]
    overwritten = (np.arange(len(lowest)) + (0 if gathered else 1)) * written
    needed = max(int((overwritten - still_read).max()), 0)
    return -(-needed // _MULTIPLE) * _MULTIPLE

"""Assembly for Cortex-M4: mantissas of two channels into the planes that `plane_filter` reads."""

from __future__ import annotations

from tinypeft.kernels.base import Routine
from tinypeft.kernels.dsp import assembly

_REACH = 4095
#: columns of a loop, and the most without one
_UNROLL, _STRAIGHT = 6, 12
#: cycles of a column as it is, of what is around rows, and around a loop
_COLUMN_CYCLES, _ROWS_CYCLES, _LOOP_CYCLES = 6, 13, 8
#: registers of a row, of columns that are loaded together
_UPPER, _LOWER = ("r5", "r6", "r7"), ("r8", "r9", "r10")
_UPPER_SCALED, _LOWER_SCALED = ("r5", "r6"), ("r8", "r9")


def fits(stride: int) -> bool:
    """Whether offsets reach two columns."""
    return 2 * stride <= _REACH


def gather_routine(count: int, step: int, stride: int, width: int) -> Routine:
    """Of two rows each, `count` columns of two channels, `stride` elements apart, to words of two planes of `width`.

    A pair of rows lies `step` elements behind the one before. In a plane a word holds both rows of a column, and the
    words of two rows lie one behind the other. Where a mask has not only ones, mantissas are shifted left and the words
    masked.
    """
    lines = ["push {r4-r12, lr}", "ldm r3, {r3, r4, r5, r7}", "add r4, r0, r4", "mov lr, r5", "cmn r7, #1"]
    lines += ["bne.w 3f", *_rows(count, step, stride, width, False), "pop {r4-r12, pc}"]
    lines += ["3:", *_rows(count, step, stride, width, True), "pop {r4-r12, pc}"]
    comment = (
        f"{count} columns of two channels, {stride} elements apart, of pairs of rows to planes of {width} columns.\n"
        "r0 upper row, r1 and r2 planes, r3 tp_gather_block. r4 lower row; where it scales, lr shift, r7 mask."
    )
    text = assembly.listing(lines)
    name = f"tp_gather_{count}x{step}x{stride}_{width}_dsp"
    return Routine(name, text, comment, 4 * len(lines), "tp_gather_routine")


def gather_cycles(count: int, stride: int) -> int:
    """Cycles of a pair of rows as they are."""
    _, loops, _ = _loops(count, stride)
    return count * _COLUMN_CYCLES + -(-count // 3) + _ROWS_CYCLES + (loops * _LOOP_CYCLES if loops > 1 else 0)


def _rows(count: int, step: int, stride: int, width: int, scaled: bool) -> list[str]:
    """r3 pairs of rows."""
    unroll, loops, rest = _loops(count, stride)
    lines, block = ["1:"], _columns(unroll, stride, scaled)
    if unroll < count:
        block += _move(unroll, stride)
    if loops > 1:
        block = [f"movw r12, #{loops}", "2:", *block, "subs r12, #1", "bne.w 2b"]
    lines += [*block, *_columns(rest, stride, scaled)]
    moved = unroll * loops if unroll < count else 0
    for pointer in ("r0", "r4"):
        lines += assembly.add(pointer, 2 * (step - moved * stride), "r11")
    for pointer in ("r1", "r2"):
        lines += assembly.add(pointer, 4 * (width - moved), "r11")
    return [*lines, "subs r3, #1", "bne.w 1b"]


def _loops(count: int, stride: int) -> tuple[int, int, int]:
    """Columns of a loop, how often it runs, and columns behind it."""
    reached = _REACH // (2 * stride) + 1
    unroll = count if count <= min(_STRAIGHT, reached) else min(_UNROLL, reached)
    return unroll, count // unroll, count % unroll


def _columns(count: int, stride: int, scaled: bool) -> list[str]:
    uppers, lowers = (_UPPER_SCALED, _LOWER_SCALED) if scaled else (_UPPER, _LOWER)
    lines: list[str] = []
    for first in range(0, count, len(uppers)):
        columns = list(zip(uppers, lowers, range(first, count), strict=False))
        lines += [f"ldr {upper}, [r0, #{2 * stride * x}]" for upper, _, x in columns]
        lines += [f"ldr {lower}, [r4, #{2 * stride * x}]" for _, lower, x in columns]
        for upper, lower, x in columns:
            lines += [f"lsl {upper}, {upper}, lr", f"lsl {lower}, {lower}, lr"] if scaled else []
            lines += [f"pkhbt r11, {upper}, {lower}, lsl #16", f"pkhtb {upper}, {lower}, {upper}, asr #16"]
            lines += ["and r11, r11, r7", f"and {upper}, {upper}, r7"] if scaled else []
            lines += [f"str r11, [r1, #{4 * x}]", f"str {upper}, [r2, #{4 * x}]"]
    return lines


def _move(columns: int, stride: int) -> list[str]:
    lines = [line for pointer in ("r0", "r4") for line in assembly.add(pointer, 2 * stride * columns, "r11")]
    return lines + [line for pointer in ("r1", "r2") for line in assembly.add(pointer, 4 * columns, "r11")]

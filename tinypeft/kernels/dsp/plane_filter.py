"""Assembly for Cortex-M4: a 3x3 filter over a plane of mantissas of one channel, narrowed to mantissas again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tinypeft.kernels.base import Routine
from tinypeft.kernels.dsp import assembly

TAPS = 3
_REACH = 4095
#: accumulators of the upper and the lower row, of even and of odd columns
_ACCUMULATORS = ("r10", "r11"), ("r12", "lr")
#: columns in the middle of a row that follow each other without a branch: in a loop, and the most without one
_UNROLL, _STRAIGHT = 6, 8
_LOOP_CYCLES = 9


def plane_width(width: int) -> int:
    """Columns of a plane for `width` results a row."""
    return width + TAPS - 1


def fits(width: int) -> bool:
    """Whether offsets reach what a routine reads."""
    return 8 * plane_width(width) <= _REACH


@dataclass(frozen=True)
class PlaneFilter:
    """A routine: result[y,x] = (half + sum plane[y+i,x+j] * taps[i,j]) >> 16, `stride` elements apart, x < width.

    A word of the plane holds two rows of a column, those of the plane (rows/2 + 1, width + 2). Two rows of results are
    computed together, a column of the plane after the other: it ends the sums of one column, goes on with those of the
    next, and starts a third.

    odd        whether the number of rows may be odd
    doublings  how often sums are doubled first
    parity     of a plane that has nothing in every second row, the odd ones, nor in every second column: the first
               column, 0 or 1, that is not empty. Words then hold the rows around an empty one, (rows/2, columns)
    """

    width: int
    stride: int
    odd: bool
    doublings: int
    parity: int | None = None

    @property
    def columns(self) -> int:
        """Columns that the plane has."""
        every = plane_width(self.width)
        return every if self.parity is None else (every - self.parity + 1) // 2

    def routine(self) -> Routine:
        """Its assembly."""
        lines = ["subs r3, #1", "push {r3-r11, lr}", "sub sp, #8", "ldm r2, {r4-r9}"]
        lines += ["beq.w 4f"] if self.odd else []
        lines += ["1:", *self._row(2, "2"), "ldr r2, [sp, #8]", "subs r2, #2", "str r2, [sp, #8]", "bgt.w 1b"]
        lines += ["bmi.w 5f", "4:", *self._row(1, "3"), "5:"] if self.odd else []
        lines += ["add sp, #8", "pop {r3-r11, pc}"]
        comment = (
            f"A 3x3 filter over a plane of {self.columns} columns, results {self.stride} elements apart.\n"
            "r0 plane, r1 result, r2 taps (two words a column), r3 rows. r4-r9 taps."
        )
        form = f"{'_odd' if self.odd else ''}{f'_{1 << self.doublings}' if self.doublings else ''}"
        form += "" if self.parity is None else f"_every_second_{self.parity}"
        text = assembly.listing(lines)
        name = f"tp_plane_3x3_{self.width}x{self.stride}{form}_dsp"
        return Routine(name, text, comment, 4 * len(lines), "tp_plane_routine")

    def cycles(self, rows: int) -> int:
        """Of a call."""
        products, loads = (3 * TAPS, 3) if self.parity is None else (TAPS // 2 * 3, 2)
        around = loads * self.columns + self._loops * _LOOP_CYCLES + 9
        both = self.width * (products * 4 // 3 + 5 + 2 * self.doublings) + around
        return rows // 2 * both + rows % 2 * (self.width * (9 + self.doublings) + around) + 40

    @property
    def _loops(self) -> int:
        middle = self.width - TAPS + 1
        return 0 if self.width <= _STRAIGHT else middle // _UNROLL

    def _row(self, rows: int, label: str) -> list[str]:
        """One or two rows of results; moves on by two."""
        lines = [line for x in range(TAPS - 1) for line in self._column(rows, x, x, 0)]
        column, loops = TAPS - 1, self._loops
        if loops:
            lines += [f"movw r2, #{loops}", "str r2, [sp]", f"{label}:"]
            lines += [line for i in range(_UNROLL) for line in self._column(rows, column + i, column + i, i)]
            lines += [
                *assembly.add("r0", 4 * self._words(_UNROLL), "r2"),
                *assembly.add("r1", 2 * self.stride * _UNROLL, "r2"),
            ]
            lines += ["ldr r2, [sp]", "subs r2, #1", "str r2, [sp]", f"bne.w {label}b"]
            column += loops * _UNROLL
        moved = loops * _UNROLL
        for x in range(column, plane_width(self.width)):
            lines += self._column(rows, x, x - moved, x - moved - TAPS + 1)
        lines += assembly.add("r0", 4 * (self.columns - self._words(moved)), "r2")
        return [*lines, *assembly.add("r1", 2 * self.stride * (2 * self.width - moved), "r2")]

    def _words(self, columns: int) -> int:
        """Words of an even number of columns."""
        return columns if self.parity is None else columns // 2

    def _empty(self, x: int) -> bool:
        return self.parity is not None and (x - self.parity) % 2 == 1

    def _column(self, rows: int, x: int, at: int, to: int) -> list[str]:
        """What column x of the plane, `at` columns behind r0, adds to; results go `to` columns behind r1."""
        lines: list[str] = []
        if self.parity is None:
            lines += [f"ldr r2, [r0, #{4 * at}]", f"ldr r3, [r0, #{4 * (at + self.columns)}]"]
        elif not self._empty(x):
            lines += [f"ldr r2, [r0, #{4 * self._words(at - self.parity)}]"]
        for tap in reversed(range(TAPS)):
            if not 0 <= x - tap < self.width:
                continue
            accumulators = _ACCUMULATORS[(x - tap) % 2]
            if not self._empty(x):
                starts = tap == 0 or (tap == 1 and self._empty(x - 1))
                lines += self._products(rows, tap, accumulators, starts)
            if tap == TAPS - 1:
                lines += self._store(rows, accumulators, to)
        return lines

    def _products(self, rows: int, tap: int, accumulators: tuple[str, str], starts: bool) -> Iterator[str]:
        """The words of a column, r2 and r3, times the taps of one."""
        (upper, lower), first, second = accumulators, f"r{4 + 2 * tap}", f"r{5 + 2 * tap}"
        start = lower if rows == 2 else upper
        if starts:
            yield f"mov {start}, #{0x8000 >> self.doublings}"
        yield f"smlad {upper}, r2, {first}, {start if starts else upper}"
        if self.parity is None:
            yield f"smlabt {upper}, r3, {second}, {upper}"
        if rows == 2:
            yield f"smlatb {lower}, r2, {first if self.parity is None else second}, {lower}"
        if rows == 2 and self.parity is None:
            yield f"smlad {lower}, r3, {second}, {lower}"

    def _store(self, rows: int, accumulators: tuple[str, str], to: int) -> Iterator[str]:
        """The upper halves of sums are results; r11 or lr is free where there is one row."""
        upper, lower = accumulators
        for register in accumulators[:rows]:
            if self.doublings:
                yield f"lsl {register}, {register}, #{self.doublings}"
        yield f"pkhtb {upper}, {lower}, {upper}, asr #16" if rows == 2 else f"asr {upper}, {upper}, #16"
        yield from _store_half(upper, 2 * self.stride * to, lower)
        if rows == 2:
            yield f"lsr {upper}, {upper}, #16"
            yield from _store_half(upper, 2 * self.stride * (to + self.width), lower)


def _store_half(register: str, offset: int, free: str) -> list[str]:
    if offset <= _REACH:
        return [f"strh {register}, [r1, #{offset}]"]
    return [*assembly.constant(free, offset), f"strh {register}, [r1, {free}]"]

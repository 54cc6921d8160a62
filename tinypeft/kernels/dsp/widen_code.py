"""Assembly that widens pixels of four int8 channels to four planes of int16, two pixels at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from tinypeft.kernels.base import Routine

#: Columns without a loop at most, and in a turn of one.
_STRAIGHT, _TURN = 20, 8
_REACH = 4096
#: Instructions of 2 bytes where offsets are short and aligned. Groups: offsets of words and of halfwords.
_NARROW = re.compile(
    r"(ldr|str) r[0-7], \[(r[0-7](, #(?P<words>\d+))?|sp(, #\d+)?)\]"
    r"|strh r[0-7], \[r[0-7], #(?P<halfwords>\d+)\]"
    r"|(subs|movs) r[0-7], .*#\d+|nop|it \w+|bx r12"
)


@dataclass(frozen=True)
class WidenRoutine:
    """void routine(const int8_t *x, int16_t *row, int32_t count): `count` times `columns` pixels, `pixel` bytes apart.

    Four channels go to four rows, `plane_bytes` apart. Each time x moves on by x_step bytes, row by row_step bytes.
    `odd`: row is a halfword behind a word.
    """

    pixel: int
    columns: int
    odd: bool
    plane_bytes: int
    x_step: int
    row_step: int

    @property
    def _one_pointer(self) -> bool:
        return 3 * self.plane_bytes + 2 * _STRAIGHT + 2 < _REACH

    @property
    def _parts(self) -> tuple[int, int, int, int]:
        """(single pixels in front, turns of a loop, columns behind it, single pixels at the end)."""
        front = min(int(self.odd), self.columns)
        pairs = (self.columns - front) // 2
        turns = pairs * 2 // _TURN if pairs * 2 > _STRAIGHT else 0
        return front, turns, pairs * 2 - turns * _TURN, (self.columns - front) % 2

    @property
    def cycles(self) -> int:
        """Of a time on a Cortex-M4."""
        front, turns, rest, end = self._parts
        quads, pairs = divmod(rest, 4)
        loop = turns * (_TURN // 4 * 25 + 5 + self._pointers - 1) + (1 + self._pointers if turns else 0)
        return (front + end) * 10 + quads * 25 + pairs // 2 * 13 + loop + 5 + self._pointers

    @property
    def _pointers(self) -> int:
        return 1 if self._one_pointer else 4

    @cached_property
    def routine(self) -> Routine:
        """The assembly: r0 input, r1 and r10 to r12 rows, r2 times to go, r9 turns to go."""
        front, turns, rest, end = self._parts
        lines = ["push {r4-r11, lr}"]
        if not self._one_pointer:
            lines += [f"movw r3, #{self.plane_bytes & 0xFFFF}", f"movt r3, #{self.plane_bytes >> 16}"]
            lines += ["add r10, r1, r3", "add r11, r10, r3", "add r12, r11, r3"]
        lines.append("2:")
        moved_x = moved_row = 0
        lines += self._single(0, 0) * front
        if turns:
            lines += [*self._move_x(front * self.pixel), *self._move_rows(2 * front), f"mov r9, #{turns}", "1:"]
            lines += [line for i in range(0, _TURN, 4) for line in self._pixels(4, i * self.pixel, 2 * i)]
            lines += [*self._move_x(_TURN * self.pixel), *self._move_rows(2 * _TURN), "subs r9, r9, #1", "bne.w 1b"]
            moved_x, moved_row = (front + turns * _TURN) * self.pixel, 2 * (front + turns * _TURN)
        column = front + turns * _TURN
        while column < front + turns * _TURN + rest + end:
            left = front + turns * _TURN + rest - column
            count = min(left, 4) if left else 1
            if (column + 3) * self.pixel - moved_x >= _REACH:
                lines += self._move_x(column * self.pixel - moved_x)
                moved_x = column * self.pixel
            at = column * self.pixel - moved_x, 2 * column - moved_row
            lines += self._pixels(count, *at) if left else self._single(*at)
            column += count
        lines += [*self._move_x(self.x_step - moved_x), *self._move_rows(self.row_step - moved_row)]
        lines += ["subs r2, r2, #1", "bne.w 2b", "pop {r4-r11, pc}"]
        name = (
            f"tp_widen_{self.columns}{'odd' if self.odd else ''}_x{self.pixel}_{self.x_step}"
            f"_p{self.plane_bytes}_{self.row_step}"
        )
        comment = (
            f"{self.columns} pixels, {self.pixel} bytes apart, of four channels to int16 rows {self.plane_bytes} bytes "
            f"apart: r0 pixels, r1 first row, r2 how often, {self.x_step} and {self.row_step} bytes further on"
        )
        return Routine(name, "\n".join(lines), comment, code_bytes(lines), "tp_widen_function")

    def _place(self, plane: int, offset: int) -> str:
        if self._one_pointer:
            return f"[r1, #{plane * self.plane_bytes + offset}]"
        return f"[{('r1', 'r10', 'r11', 'r12')[plane]}, #{offset}]"

    def _pixels(self, count: int, x: int, row: int) -> list[str]:
        """Two or four pixels from byte `x` on, to words from byte `row` on."""
        lines = [f"ldr r{3 + i}, [r0, #{x + i * self.pixel}]" for i in range(count)]
        for i in range(0, count, 2):
            left, right = f"r{3 + i}", f"r{4 + i}"
            lines += [f"pkhbt r7, {left}, {right}, lsl #16", f"pkhtb r8, {right}, {left}, asr #16"]
            lines += [f"sxtb16 {left}, r7", "sxtb16 r7, r7, ror #8", f"sxtb16 {right}, r8", "sxtb16 r8, r8, ror #8"]
            lines += [
                f"str {register}, {self._place(plane, row + 2 * i)}"
                for plane, register in enumerate((left, "r7", right, "r8"))
            ]
        return lines

    def _single(self, x: int, row: int) -> list[str]:
        lines = [f"ldr r3, [r0, #{x}]", "sxtb16 r4, r3", "sxtb16 r3, r3, ror #8"]
        lines += [f"strh r4, {self._place(0, row)}", f"strh r3, {self._place(1, row)}"]
        lines += ["lsr r4, r4, #16", "lsr r3, r3, #16"]
        return [*lines, f"strh r4, {self._place(2, row)}", f"strh r3, {self._place(3, row)}"]

    def _move_x(self, amount: int) -> list[str]:
        return add_constant("r0", amount)

    def _move_rows(self, amount: int) -> list[str]:
        rows = ("r1",) if self._one_pointer else ("r1", "r10", "r11", "r12")
        return [line for row in rows for line in add_constant(row, amount)]


def add_constant(register: str, amount: int) -> list[str]:
    """Add a constant, by way of register 3 where it is large."""
    if amount == 0:
        return []
    operation, size = ("add", amount) if amount > 0 else ("sub", -amount)
    if size < 4096:
        return [f"{operation}{'.' if size < 256 else ''}w {register}, {register}, #{size}"]
    high = [f"movt r3, #{size >> 16}"] if size >> 16 else []
    return [f"movw r3, #{size & 0xFFFF}", *high, f"{operation} {register}, {register}, r3"]


def code_bytes(lines: Sequence[str]) -> int:
    """The size of assembly, nearly: labels are nothing, an instruction is 4 bytes or 2."""
    return sum(0 if line.endswith(":") else 2 if _narrow(line) else 4 for line in lines)


def _narrow(line: str) -> bool:
    match = _NARROW.fullmatch(line)
    if match is None:
        return False
    words, halfwords = int(match["words"] or 0), int(match["halfwords"] or 0)
    return words % 4 == 0 and words < 128 and halfwords % 2 == 0 and halfwords < 64

"""Assembly for Cortex-M4: mantissas of four columns times an int8 filter, narrowed to mantissas again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinypeft.kernels.base import Routine

#: positions that a call of the routine serves
POSITIONS = 4
#: largest offset of a load from flash or RAM
_REACH = 4095
_ACCUMULATORS = ("r4", "r5", "r6", "r7"), ("r8", "r9", "r10", "r11")
#: cycles of a pair of rows and a pair of channels; of what is around their loop; of adding to a pair of results
_PAIR_CYCLES, _PACKED_CYCLES, _AROUND_CYCLES, _ADD_CYCLES = 19, 17, 78, 9
#: pairs of rows of a loop, and the most without one
_UNROLL, _STRAIGHT = 8, 64


@dataclass(frozen=True)
class Columns:
    """A routine: result[p,k] = (half + sum_c columns[c,p] * filter[c,k]) >> shift [+ a rounded addend], p < 4.

    columns int16 (ceil(rows / 2), 4, 2): of two rows, all positions. filter int8 (rows, channels), result int16
    (4, channels). `channels` is even; what lies beside the last of an odd number of rows is not used.
    adds      whether it adds
    straight  whether all rows follow each other without a branch
    packed    whether the filter is `packed_filter`
    """

    rows: int
    channels: int
    adds: bool
    straight: bool = False
    packed: bool = False

    @property
    def fits(self) -> bool:
        """Whether offsets reach what the routine touches."""
        reached = not self.straight or (self._step * self._pairs <= _REACH + 1 and self._pairs <= _STRAIGHT)
        return self.channels % 2 == 0 and (POSITIONS - 1) * 2 * self.channels <= _REACH and reached

    @property
    def name(self) -> str:
        """Its C name."""
        form = f"{'_add' if self.adds else ''}{'_straight' if self.straight else ''}{'_packed' if self.packed else ''}"
        return f"tp_columns_{self.rows}x{self.channels}{form}_dsp"

    @property
    def cycles(self) -> int:
        """Of a call."""
        loops = 0 if self._unroll >= self._pairs else 9 * (self._pairs // self._unroll)
        around = _AROUND_CYCLES + (POSITIONS * _ADD_CYCLES if self.adds else 0)
        pairs = -(-self.rows // 2) * (_PACKED_CYCLES if self.packed else _PAIR_CYCLES)
        return self.channels // 2 * (pairs + loops + around)

    @property
    def _pairs(self) -> int:
        """Whole pairs of rows."""
        return self.rows // 2

    @property
    def _step(self) -> int:
        """Bytes of the filter from a pair of rows to the next."""
        return 4 if self.packed else 2 * self.channels

    @property
    def _unroll(self) -> int:
        """How many pairs of rows follow each other without a branch: a divisor of all."""
        if self.straight:
            return max(self._pairs, 1)
        most = max(1, min(_UNROLL, (_REACH + 1) // self._step))
        return max(n for n in range(1, most + 1) if self._pairs % n == 0)

    def routine(self) -> Routine:
        """Its assembly."""
        lines = ["push {r3-r11, lr}", "sub sp, #12", "str r0, [sp]", "str r2, [sp, #4]"]
        lines += [*_constant("r4", self.channels // 2), "str r4, [sp, #8]"]
        lines += ["1:", "ldr r12, [sp, #12]", "ldr r4, [r12]"]
        lines += [f"mov {register}, r4" for register in (*_ACCUMULATORS[0][1:], *_ACCUMULATORS[1])]
        lines += ["ldr r0, [sp]", *self._multiply()]
        if not self.packed:
            lines += [*_constant("r12", self.rows * self.channels - 2), "sub r1, r1, r12"]
        lines += ["ldr r12, [sp, #12]", "ldr r0, [sp, #4]"]
        lines += _narrow_adding(self.channels) if self.adds else _narrow(self.channels)
        lines += ["adds r0, #4", "str r0, [sp, #4]", "ldr r12, [sp, #8]", "subs r12, #1", "str r12, [sp, #8]"]
        lines += ["bne.w 1b", "add sp, #12", "pop {r3-r11, pc}"]
        comment = (
            f"Four columns of {self.rows} mantissas times a filter ({self.rows},{self.channels})"
            f"{' plus an addend' if self.adds else ''}.\n"
            "r0 columns, r1 filter, r2 result, r3 tp_narrow_block. Two channels at a time: r4-r7, r8-r11 accumulate."
        )
        text = "\n".join(line if line.endswith(":") else f"  {line}" for line in lines)
        return Routine(self.name, text, comment, 4 * len(lines), "tp_column_routine")

    def _multiply(self) -> list[str]:
        """Two channels, r1, times the columns, r0; r1 moves on."""
        lines: list[str] = []
        if self._pairs:
            unroll = self._unroll
            block = [line for pair in range(unroll) for line in self._pair(16 * pair, self._step * pair, whole=True)]
            lines += [*block, *_add("r1", self._step * unroll)]
            if unroll < self._pairs:
                lines = [*_constant("r12", self._pairs // unroll), "str r12, [sp, #-4]!", "2:", *lines]
                lines += [*_add("r0", 16 * unroll), "ldr r12, [sp]", "subs r12, #1", "str r12, [sp]"]
                lines += ["bne.w 2b", "add sp, #4"]
            elif self.rows % 2:
                lines += _add("r0", 16 * unroll)
        if self.rows % 2:
            lines += [*self._pair(0, 0, whole=False), *_add("r1", 4 if self.packed else self.channels)]
        return lines

    def _pair(self, column: int, filters: int, whole: bool) -> list[str]:
        """A pair of rows, or what is left of one, of four columns times two channels."""
        lines = [f"ldr r2, [r1, #{filters}]" if self.packed else f"ldrh r2, [r1, #{filters}]"]
        both = whole and not self.packed
        lines += [f"ldrh r3, [r1, #{filters + self.channels}]"] if both else []
        lines += [f"ldr r12, [r0, #{column}]", f"ldr lr, [r0, #{column + 4}]"]
        lines += ["orr r2, r2, r3, lsl #16"] if both else []
        lines += ["sxtb16 r3, r2", "sxtb16 r2, r2, ror #8"]
        for half in range(2):
            if half:
                lines += [f"ldr r12, [r0, #{column + 8}]", f"ldr lr, [r0, #{column + 12}]"]
            for register, position in (("r12", 2 * half), ("lr", 2 * half + 1)):
                for weights, accumulators in zip(("r3", "r2"), _ACCUMULATORS, strict=True):
                    a = accumulators[position]
                    lines.append(f"smlad {a}, {register}, {weights}, {a}")
        return lines


def packed_filter(filters: np.ndarray) -> np.ndarray:
    """int8 (rows, channels) as words of two channels of two rows, those of two channels one behind the other."""
    rows, channels = filters.shape
    even = np.concatenate([filters, np.zeros((rows % 2, channels), np.int8)])
    return np.ascontiguousarray(even.reshape(-1, 2, channels // 2, 2).transpose(2, 0, 1, 3)).reshape(-1)


def _narrow(channels: int) -> list[str]:
    """Accumulators to mantissas at r0, a pair at a time, and their extremes; r12: tp_narrow_block."""
    lines = ["ldr r2, [r12, #4]", "ldr r3, [r12, #8]", "ldr lr, [r12, #12]"]
    for p, (a, b) in enumerate(zip(*_ACCUMULATORS, strict=True)):
        lines += [f"asr {a}, {a}, r2", f"asr {b}, {b}, r2", f"pkhbt {a}, {a}, {b}, lsl #16"]
        lines += [f"str {a}, [r0, #{2 * p * channels}]", *_extremes(a, b)]
    return [*lines, "str r3, [r12, #8]", "str lr, [r12, #12]"]


def _narrow_adding(channels: int) -> list[str]:
    """The same plus addends, each scaled by itself. A shift by r11 reads its lowest byte."""
    lines = ["ldr r2, [r12, #4]", "ldr r3, [r12, #8]", "ldr lr, [r12, #12]"]
    for a, b in zip(*_ACCUMULATORS, strict=True):
        lines += [f"asr {a}, {a}, r2", f"asr {b}, {b}, r2", f"pkhbt {a}, {a}, {b}, lsl #16"]
    lines += ["ldr r2, [r12, #16]", "ldr r10, [r12, #20]", "ldr r11, [r12, #24]"]
    for p, a in enumerate(_ACCUMULATORS[0]):
        lines += [f"ldr r8, [r2, #{2 * p * channels}]", "smlabt r9, r8, r11, r10", "smlatt r8, r8, r11, r10"]
        lines += ["asr r9, r9, r11", "asr r8, r8, r11", "pkhbt r8, r9, r8, lsl #16", f"sadd16 {a}, {a}, r8"]
        lines += [f"str {a}, [r0, #{2 * p * channels}]", *_extremes(a, "r8")]
    return [*lines, "adds r2, #4", "str r2, [r12, #16]", "str r3, [r12, #8]", "str lr, [r12, #12]"]


def _extremes(pair: str, spare: str) -> list[str]:
    """Keep the largest of each half in r3, the smallest in lr."""
    return [f"ssub16 {spare}, {pair}, r3", f"sel r3, {pair}, r3", f"ssub16 {spare}, lr, {pair}", f"sel lr, {pair}, lr"]


def _add(register: str, value: int) -> list[str]:
    if value <= _REACH:
        return [f"addw {register}, {register}, #{value}"]
    return [*_constant("r12", value), f"add {register}, {register}, r12"]


def _constant(register: str, value: int) -> list[str]:
    low = [f"movw {register}, #{value & 0xFFFF}"]
    return low if value < 1 << 16 else [*low, f"movt {register}, #{value >> 16}"]

"""Assembly for Cortex-M4: mantissas of up to four columns times an int8 filter, narrowed to mantissas again."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from tinypeft.kernels.base import Routine
from tinypeft.kernels.dsp import assembly

#: most positions that a call of the routine serves
POSITIONS = 4
#: largest offset of a load from flash or RAM
_REACH = 4095
_ACCUMULATORS = ("r4", "r5", "r6", "r7"), ("r8", "r9", "r10", "r11")
#: pairs of rows of a loop, of one for a part of the positions, and the most without one
_UNROLL, _UNROLL_PART, _STRAIGHT = 8, 4, 64
#: words on the stack: where the routine is, a copy of tp_narrow_block, and the address of that
_FRAME = ("columns", "result", "result_end", "columns_end")
_BLOCK = ("half", "shift", "largest", "smallest", "addend", "addend_half", "addend_scale")
_AT = {name: 4 * i for i, name in enumerate((*_FRAME, *_BLOCK, "block"))}
#: cycles of a branch beyond its own, and of entering and leaving
_TAKEN, _CALL_CYCLES = 2, 60


class Form(enum.Enum):
    """How the filter lies: as it is; as `packed_filter`; as `wide_filter`, whose rows follow each other in code."""

    PLAIN = "plain"
    PACKED = "packed"
    WIDE = "wide"


@dataclass(frozen=True)
class Columns:
    """A routine: result[p,k] = (half + sum_c columns[c,p] * filter[c,k]) >> shift [+ a rounded addend].

    columns int16 (ceil(rows / 2), 4, 2): of two rows, all positions. filter (rows, channels), result int16
    (positions, channels). `channels` is even; what lies beside the last of an odd number of rows is not used.
    adds       whether it adds
    form       how the filter lies
    positions  at most four
    """

    rows: int
    channels: int
    adds: bool
    form: Form = Form.PLAIN
    positions: int = POSITIONS

    @property
    def fits(self) -> bool:
        """Whether offsets reach what the routine touches."""
        reached = (POSITIONS - 1) * 2 * self.channels <= _REACH
        return self.channels % 2 == 0 and reached and (self.form is not Form.WIDE or self._pairs <= _STRAIGHT)

    @property
    def cycles(self) -> int:
        """Of a call."""
        loops = self._pairs // self._unroll if self._loops else 1
        around = assembly.cost([*self._start(), *self._odd_row(), *self._finish()]) + _TAKEN * loops
        return self.channels // 2 * (loops * assembly.cost(self._block()) + around) + _CALL_CYCLES

    @property
    def _pairs(self) -> int:
        """Whole pairs of rows."""
        return self.rows // 2

    @property
    def _step(self) -> int:
        """Bytes of the filter from a pair of rows to the next."""
        return {Form.PLAIN: 2 * self.channels, Form.PACKED: 4, Form.WIDE: 8}[self.form]

    @property
    def _unroll(self) -> int:
        """How many pairs of rows follow each other without a branch: a divisor of all."""
        if self.form is Form.WIDE:
            return max(self._pairs, 1)
        most = max(1, min(_UNROLL if self.positions == POSITIONS else _UNROLL_PART, (_REACH + 1) // self._step))
        return max(n for n in range(1, most + 1) if self._pairs % n == 0)

    @property
    def _loops(self) -> bool:
        """Whether pairs of rows are in a loop. A load then moves its pointer on, and so starts in front of its data."""
        return self._unroll < self._pairs

    @property
    def _behind(self) -> int:
        """By how many bytes columns lie behind such a pointer: the last that is loaded is where it moves to."""
        return 4 * (POSITIONS + 1 - self.positions) if self._loops else 0

    @property
    def _accumulators(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Of two channels, at each position."""
        first, second = _ACCUMULATORS
        return first[: self.positions], second[: self.positions]

    def routine(self) -> Routine:
        """Its assembly."""
        lines = ["push {r3-r11, lr}", "ldm r3, {r4-r10}", "push {r4-r10}"]
        if self._loops:
            lines += [f"subs r0, #{self._behind}", *(["subs r1, #4"] if self.form is Form.PACKED else [])]
        lines += [*assembly.constant("r12", 2 * self.channels), "add r12, r2, r12"]
        lines += [*assembly.constant("lr", 16 * self._pairs), "add lr, r0, lr", "push {r0, r2, r12, lr}"]
        lines += ["1:", *self._start(), "2:", *self._block(), *self._odd_row(), *self._finish()]
        lines += [f"ldr r12, [sp, #{_AT['block']}]"]
        lines += [f"str {r}, [r12, #{4 * _BLOCK.index(n)}]" for r, n in (("r3", "largest"), ("lr", "smallest"))]
        lines += [f"add sp, #{_AT['block']}", "pop {r3-r11, pc}"]
        comment = (
            f"Columns of {self.rows} mantissas at {self.positions} positions times a {self.form.value} filter "
            f"({self.rows},{self.channels}){' plus an addend' if self.adds else ''}.\n"
            "r0 columns, r1 filter, r2 result, r3 tp_narrow_block. Two channels at a time: r4-r7, r8-r11 accumulate."
        )
        text = assembly.listing(lines)
        part = "" if self.positions == POSITIONS else f"x{self.positions}"
        name = f"tp_columns_{self.rows}x{self.channels}{part}_{self.form.value}{'_add' if self.adds else ''}_dsp"
        return Routine(name, text, comment, assembly.size(lines), "tp_column_routine")

    def _start(self) -> list[str]:
        """What two channels start from; without a loop the first rows take it from the last accumulator."""
        *others, last = (a for accumulators in self._accumulators for a in accumulators)
        lines = [_load(last, "half"), _load("r0", "columns")]
        return [*lines, *(f"mov {a}, {last}" for a in others)] if self._loops else lines

    def _block(self) -> list[str]:
        """Pairs of rows that follow each other, and the end of their loop. r1 moves on, in a loop r0 too."""
        if not self._pairs:
            return []
        lines: list[str] = []
        for pair in range(self._unroll):
            moves = "!" if self._loops and pair == self._unroll - 1 else ""
            lines += self._rows(self._step * pair, 16 * pair + self._behind, moves, pair == 0)
        if not self._loops:
            return [*lines, *assembly.add("r1", self._step * self._unroll, "r12")]
        lines += assembly.add("r1", self._step * self._unroll, "r12") if self.form is Form.PLAIN else []
        return [*lines, _load("r12", "columns_end"), "cmp r0, r12", "bne.w 2b"]

    def _odd_row(self) -> list[str]:
        """What is left of an odd number of rows."""
        if self.rows % 2 == 0:
            return []
        column = self._behind if self._loops else 16 * self._pairs
        lines = self._rows(0, column, "", not self._pairs, whole=False)
        return [*lines, *assembly.add("r1", self.channels if self.form is Form.PLAIN else self._step, "r12")]

    def _rows(self, filters: int, column: int, moves: str, first: bool, whole: bool = True) -> list[str]:
        """Two rows, or one, of all columns times two channels; the first ones are added to the last accumulator."""
        if self.form is Form.WIDE:
            lines, unpack = [f"ldr r3, [r1, #{filters}]", f"ldr r2, [r1, #{filters + 4}]"], []
        else:
            unpack = ["sxtb16 r3, r2", "sxtb16 r2, r2, ror #8"]
            if self.form is Form.PACKED:
                lines = [f"ldr r2, [r1, #{filters + (4 if self._loops else 0)}]{moves}"]
            else:
                lines = [f"ldrh r2, [r1, #{filters}]"]
                if whole:
                    lines += [f"ldrh r3, [r1, #{filters + self.channels}]"]
                    unpack.insert(0, "orr r2, r2, r3, lsl #16")
        accumulators = self._accumulators
        for begin in range(0, self.positions, 2):
            loaded = list(zip(range(begin, self.positions), ("r12", "lr"), strict=False))
            for p, register in loaded:
                lines.append(f"ldr {register}, [r0, #{column + 4 * p}]{moves if p == self.positions - 1 else ''}")
            lines += unpack if begin == 0 else []
            for p, register in loaded:
                for weights, sums in zip(("r3", "r2"), accumulators, strict=True):
                    start = accumulators[1][-1] if first and not self._loops else sums[p]
                    lines.append(f"smlad {sums[p]}, {register}, {weights}, {start}")
        return lines

    def _finish(self) -> list[str]:
        """Mantissas of two channels from their accumulators, and on to the next two."""
        lines = [*assembly.constant("r12", self.rows * self.channels - 2), "sub r1, r1, r12"]
        lines = lines if self.form is Form.PLAIN else []
        lines += [_load("r2", "shift"), _load("r3", "largest"), _load("lr", "smallest"), _load("r0", "result")]
        lines += [_load("r12", "result_end")]
        for a, b in zip(*self._accumulators, strict=True):
            lines += [f"asr {a}, {a}, r2", f"asr {b}, {b}, r2", f"pkhbt {a}, {a}, {b}, lsl #16"]
        results = self._accumulators[0]
        lines += _add_addend(results, self.channels) if self.adds else []
        lines += [f"str {a}, [r0, #{2 * p * self.channels}]" for p, a in enumerate(results)]
        lines += [*_extremes(results), _store("r3", "largest"), _store("lr", "smallest")]
        return [*lines, "adds r0, #4", _store("r0", "result"), "cmp r0, r12", "bne.w 1b"]


def packed_filter(filters: np.ndarray) -> np.ndarray:
    """int8 (rows, channels) as words of two channels of two rows, those of two channels one behind the other."""
    rows, channels = filters.shape
    even = np.concatenate([filters, np.zeros((rows % 2, channels), filters.dtype)])
    return np.ascontiguousarray(even.reshape(-1, 2, channels // 2, 2).transpose(2, 0, 1, 3)).reshape(-1)


def wide_filter(filters: np.ndarray) -> np.ndarray:
    """The same as int16: of two rows a word of either channel."""
    packed = packed_filter(filters.astype(np.int16)).reshape(-1, 2, 2)
    return np.ascontiguousarray(packed.transpose(0, 2, 1)).reshape(-1)


def _add_addend(results: tuple[str, ...], channels: int) -> list[str]:
    """Add addends, each scaled by itself. A shift by r11 reads its lowest byte."""
    lines = [_load("r2", "addend"), _load("r10", "addend_half"), _load("r11", "addend_scale")]
    for p, a in enumerate(results):
        lines += [f"ldr r8, [r2, #{2 * p * channels}]", "smlabt r9, r8, r11, r10", "smlatt r8, r8, r11, r10"]
        lines += ["asr r9, r9, r11", "asr r8, r8, r11", "pkhbt r8, r9, r8, lsl #16", f"sadd16 {a}, {a}, r8"]
    return [*lines, "adds r2, #4", _store("r2", "addend")]


def _extremes(results: tuple[str, ...]) -> list[str]:
    """Keep the largest of each half in r3, the smallest in lr."""
    lines: list[str] = []
    found = [("r8", "r9"), ("r10", "r11")]
    ordered: list[tuple[str, str]] = []
    for i in range(0, len(results), 2):
        if i + 1 == len(results):
            ordered.append((results[i], results[i]))
            continue
        (a, b), (larger, smaller) = results[i : i + 2], found[i // 2]
        lines += [f"ssub16 r2, {a}, {b}", f"sel {larger}, {a}, {b}", f"sel {smaller}, {b}, {a}"]
        ordered.append((larger, smaller))
    for larger, smaller in ordered:
        lines += [f"ssub16 r2, r3, {larger}", f"sel r3, r3, {larger}"]
        lines += [f"ssub16 r2, {smaller}, lr", f"sel lr, lr, {smaller}"]
    return lines


def _load(register: str, name: str) -> str:
    return f"ldr {register}, [sp, #{_AT[name]}]"


def _store(register: str, name: str) -> str:
    return f"str {register}, [sp, #{_AT[name]}]"

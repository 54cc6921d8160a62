"""Assembly for Cortex-M4: rows of a LoRA's A times int8 inputs at all positions of a line, two or four at a time.

    ONE     a row at four positions
    TWO     two rows at two positions
    FOUR    four rows at two positions
    PACKED  the same with two rows in each halfword, 256 * high + low: SMLAD gives S = 256 * high + low, with the low
            bytes alone low; for sums below 2**23

A comes as words: of each four inputs the even ones of all rows, then the odd ones. Sums start from words as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from tinypeft.kernels.base import Routine
from tinypeft.kernels.dsp import assembly

#: The most words of inputs in a row of code, in a loop and without one; bytes that a load reaches
_UNROLL, _STRAIGHT, _REACH = 8, 24, 4095
#: The most inputs of PACKED: 256 products of up to 127 * 255, and what rounds
PACKED_INPUTS = 256
_COUNT, _X, _A, _HIDDEN, _BLOCK = 60, 8, 12, 16, 20


class Form(IntEnum):
    """How rows are computed; the values are TP_LORA_DOWN_* of the C header."""

    ONE = 0
    TWO = 1
    FOUR = 2
    PACKED = 3

    @property
    def positions(self) -> int:
        """That are computed together."""
        return 4 if self is Form.ONE else 2

    @property
    def rows(self) -> int:
        """That are computed together, of which some may be zeros."""
        return (1, 2, 4, 4)[self]

    @property
    def words(self) -> int:
        """Of A for four inputs."""
        return (2, 4, 8, 4)[self]


@dataclass(frozen=True)
class Down:
    """A routine: hidden[p,j] for `rows` rows of A, each `lines` of `width` inputs, a multiple of 4, `step` bytes apart.

    Positions lie `distance` bytes apart, their hidden values `rank` elements.
    """

    form: Form
    rows: int
    lines: int
    width: int
    step: int
    distance: int
    rank: int

    @property
    def fits(self) -> bool:
        """Whether loads reach all inputs, and sums are not too large."""
        last = (self.form.positions - 1) * self.distance
        inputs = (self.lines - 1) * self.step + self.width if self._straight else 4 * self._unroll
        small = self.form is not Form.PACKED or self.lines * self.width <= PACKED_INPUTS
        return small and last + inputs <= _REACH and self._code_words * 4 * self.form.words <= _REACH

    def routine(self) -> Routine:
        """Its assembly."""
        lines = [*self._prologue(), *self._start(), *self._sums(), *self._store(), *self._next()]
        text = assembly.listing(lines)
        shape = f"{self.lines}x{self.width}_{self.step}_{self.distance}"
        name = f"tp_lora_down_{self.form.name.lower()}{self.rows}_{shape}_r{self.rank}_dsp"
        comment = (
            f"{self.rows} rows of A, {self.form.name}, at all positions: {self.lines} lines of {self.width} inputs.\n"
            "r0 inputs, r1 rows of A, r2 hidden values, r3 what sums start from, then their shift; stack: positions."
        )
        return Routine(name, text, comment, assembly.size(lines), "tp_lora_down_routine")

    @property
    def cycles(self) -> int:
        """Of `form.positions` positions."""
        around = assembly.cost([*self._start(), *self._store(), *self._next()]) + 4
        if self._straight:
            return around + assembly.cost(self._words(self.lines, self.width // 4))
        loops = self._loops
        inner = assembly.cost(self._words(1, self._unroll)) + 2 + (7 if loops > 1 else 0)
        return around + self.lines * (loops * inner + (9 if self.lines > 1 else 0))

    @property
    def _straight(self) -> bool:
        return self.lines * self.width // 4 <= (_STRAIGHT if self.lines > 1 else _UNROLL)

    @property
    def _code_words(self) -> int:
        return self.lines * self.width // 4 if self._straight else self._unroll

    @property
    def _unroll(self) -> int:
        words = self.width // 4
        return max(n for n in range(1, _UNROLL + 1) if words % n == 0)

    @property
    def _loops(self) -> int:
        return self.width // 4 // self._unroll

    @property
    def _accumulators(self) -> list[list[str]]:
        """Of each position."""
        names = [f"r{i}" for i in range(4, 12)]
        count = (1, 2, 4, 4)[self.form]
        return [names[count * p : count * (p + 1)] for p in range(self.form.positions)]

    def _prologue(self) -> list[str]:
        return ["push {r0-r11, lr}", "sub sp, #8", "1:"]

    def _start(self) -> list[str]:
        """The sums of all positions."""
        first, *others = self._accumulators
        lines = [f"ldr r12, [sp, #{_BLOCK}]", f"ldm r12, {{{', '.join(first)}}}"]
        return lines + [f"mov {to}, {source}" for each in others for to, source in zip(each, first, strict=True)]

    def _sums(self) -> list[str]:
        if self._straight:
            return self._words(self.lines, self.width // 4)
        words, size = self._words(1, self._unroll), 4 * self._unroll
        body = [*words, f"add r0, r0, #{size}", *assembly.add("r1", self.form.words * size, "r12")]
        if self._loops > 1:
            body = [f"mov r12, #{self._loops}", "str r12, [sp]", "2:", *body]
            body += ["ldr r12, [sp]", "subs r12, #1", "str r12, [sp]", "bne.w 2b"]
        if self.lines > 1:
            body = [
                *assembly.constant("r12", self.lines),
                "str r12, [sp, #4]",
                "3:",
                *body,
                *assembly.add("r0", self.step - self.width, "r12"),
            ]
            body += ["ldr r12, [sp, #4]", "subs r12, #1", "str r12, [sp, #4]", "bne.w 3b"]
        return body

    def _words(self, lines: int, words: int) -> list[str]:
        """The products of so many words of inputs of each line."""
        code: list[str] = []
        for line in range(lines):
            for word in range(words):
                code += self._word(line * self.step + 4 * word, 4 * self.form.words * (line * words + word))
        return code

    def _word(self, x: int, a: int) -> list[str]:
        accumulators, at = self._accumulators, [x + p * self.distance for p in range(self.form.positions)]
        if self.form is Form.ONE:
            lines = [f"ldr r{8 + p}, [r0, #{at[p]}]" for p in range(4)]
            lines += [f"ldr r12, [r1, #{a}]", f"ldr lr, [r1, #{a + 4}]"]
            for p in range(4):
                acc, value = accumulators[p][0], f"r{8 + p}"
                lines += [f"sxtb16 r2, {value}", f"sxtb16 {value}, {value}, ror #8"]
                lines += [f"smlad {acc}, r2, r12, {acc}", f"smlad {acc}, {value}, lr, {acc}"]
            return lines
        if self.form is Form.TWO:
            rows = ["r8", "r9", "r10", "r11"]
            lines = [f"ldr r12, [r0, #{at[0]}]", f"ldr lr, [r0, #{at[1]}]"]
            lines += [f"ldr {register}, [r1, #{a + 4 * i}]" for i, register in enumerate(rows)]
            for value, (first, second) in zip(("r12", "lr"), accumulators, strict=True):
                lines += [f"sxtb16 r2, {value}", f"sxtb16 {value}, {value}, ror #8"]
                lines += [f"smlad {first}, r2, r8, {first}", f"smlad {second}, r2, r9, {second}"]
                lines += [f"smlad {first}, {value}, r10, {first}", f"smlad {second}, {value}, r11, {second}"]
            return lines
        lines = []
        for half, rotated in enumerate(("", ", ror #8")):
            here = a + half * 2 * self.form.words
            lines += [f"ldr r2, [r0, #{at[0]}]", f"ldr r3, [r0, #{at[1]}]"]
            lines += [f"ldr r12, [r1, #{here}]", f"ldr lr, [r1, #{here + 4}]"]
            lines += [f"sxtb16 r2, r2{rotated}", f"sxtb16 r3, r3{rotated}"]
            packed = self.form is Form.PACKED
            lines += _products(accumulators, (0, 2) if packed else (0, 1))
            lines += ["sxtb16 r12, r12", "sxtb16 lr, lr"] if packed else []
            lines += [] if packed else [f"ldr r12, [r1, #{here + 8}]", f"ldr lr, [r1, #{here + 12}]"]
            lines += _products(accumulators, (1, 3) if packed else (2, 3))
        return lines

    def _store(self) -> list[str]:
        """The sums to hidden values at r2."""
        lines = [f"ldr r12, [sp, #{_BLOCK}]", f"ldr r12, [r12, #{4 * len(self._accumulators[0])}]"]
        lines += [f"ldr r2, [sp, #{_HIDDEN}]"]
        lines += ["add lr, r12, #8"] if self.form is Form.PACKED else []
        for p, acc in enumerate(self._accumulators):
            place = 2 * p * self.rank
            values = list(acc)
            if self.form is Form.PACKED:
                s0, low0, s1, low1 = acc
                values = [s0, s1, low0, low1][: self.rows]
                lines += [f"sub {s0}, {s0}, {low0}", f"sub {s1}, {s1}, {low1}"]
                lines += [f"asr {v}, {v}, {'lr' if v in (s0, s1) else 'r12'}" for v in values]
            else:
                values = values[: self.rows]
                lines += [f"asr {v}, {v}, r12" for v in values]
            for i in range(0, self.rows - 1, 2):
                lines += [f"pkhbt {values[i]}, {values[i]}, {values[i + 1]}, lsl #16"]
                lines += [f"str {values[i]}, [r2, #{place + 2 * i}]"]
            lines += [f"strh {values[-1]}, [r2, #{place + 2 * (self.rows - 1)}]"] if self.rows % 2 else []
        return lines

    def _next(self) -> list[str]:
        """On to the next positions; the last ones may overlap with others."""
        n = self.form.positions
        lines = [f"ldr r3, [sp, #{_COUNT}]", f"ldr r0, [sp, #{_X}]", f"ldr r1, [sp, #{_A}]", f"subs r3, #{n}", "ble 9f"]
        back = ["cmp r3, #1", "bne 8f"] if n == 2 else ["cmp r3, #4", "bge 8f"]
        lines += [*assembly.add("r0", n * self.distance, "r12"), *assembly.add("r2", 2 * n * self.rank, "r12"), *back]
        if n == 2:
            lines += [*assembly.add("r0", -self.distance, "r12"), *assembly.add("r2", -2 * self.rank, "r12")]
        else:
            lines += ["rsb r3, r3, #4", *assembly.constant("r12", self.distance), "mls r0, r3, r12, r0"]
            lines += [*assembly.constant("r12", 2 * self.rank), "mls r2, r3, r12, r2"]
        lines += [
            f"mov r3, #{n}",
            "8:",
            f"str r0, [sp, #{_X}]",
            f"str r2, [sp, #{_HIDDEN}]",
            f"str r3, [sp, #{_COUNT}]",
        ]
        return [*lines, "b.w 1b", "9:", "add sp, #24", "pop {r4-r11, pc}"]


def _products(accumulators: Sequence[Sequence[str]], rows: tuple[int, int]) -> list[str]:
    return [
        f"smlad {acc[row]}, {x}, {a}, {acc[row]}"
        for row, a in zip(rows, ("r12", "lr"), strict=True)
        for acc, x in zip(accumulators, ("r2", "r3"), strict=True)
    ]

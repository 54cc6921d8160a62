"""Assembly for Cortex-M4: inner products of an int8 vector with int8 rows that lie as they are, four at a time."""

from __future__ import annotations

from dataclasses import dataclass

from tinypeft.kernels.base import Routine
from tinypeft.kernels.dsp import assembly

#: Rows that are computed together, if there are so many
ROWS = 4
_REACH = 4095
#: Where the stack holds the place for the next sums, where the looped inputs end, and how many blocks of rows are left
_SUMS, _END, _BLOCKS = 0, 4, 44
_ACCUMULATORS, _WORDS = ("r2", "r3", "r4", "r5"), ("r8", "r9", "r10", "r11")


@dataclass(frozen=True)
class RowDots:
    """sums[j] = sum of row[j,i] * (x[i] + offset) for blocks of `rows` rows of `size` elements.

    Loops over `unroll` words of four inputs.
    """

    size: int
    rows: int
    unroll: int

    @property
    def fits(self) -> bool:
        """Whether loads reach all rows of a block."""
        return (self.rows - 1) * self.size <= _REACH

    def routine(self) -> Routine:
        """Its assembly."""
        lines = [*self._prologue(), "1:", *self._block(), *self._next(), *self._epilogue()]
        text = assembly.listing(lines)
        comment = (
            f"An input of {self.size} elements times blocks of {self.rows} rows.\n"
            "r0 inputs, r1 rows, r2 sums, r3 what adds to inputs, in both halves; stack: blocks."
        )
        name = f"tp_row_dots_{self.size}x{self.rows}_u{self.unroll}_dsp"
        return Routine(name, text, comment, assembly.size(lines), "tp_row_dots_function")

    def cycles(self, blocks: int) -> int:
        """Of one call."""
        products = assembly.cost(self._start()) + assembly.cost(self._rest())
        if self._looped:
            products += self._loops * (self.unroll * assembly.cost(self._word()) + 6)
        unaligned = 0 if self.size % 4 == 0 else self.size // 4 * (self.rows - 1)
        each = products + unaligned + assembly.cost(self._next()) + 2
        return assembly.cost([*self._prologue(), *self._epilogue()]) + blocks * each

    @property
    def _words(self) -> int:
        return self.size // 4

    @property
    def _loops(self) -> int:
        return self._words // self.unroll if self.unroll else 0

    @property
    def _looped(self) -> bool:
        return self._loops > 1

    def _prologue(self) -> list[str]:
        lines = ["push {r2-r11,lr}", "mov lr,r3"]
        if self._looped:
            lines += [f"movw r12,#{4 * self.unroll * self._loops}", "add r12,r12,r0", f"str r12,[sp,#{_END}]"]
        return lines

    def _epilogue(self) -> list[str]:
        return ["add sp,sp,#8", "pop {r4-r11,pc}"]

    def _start(self) -> list[str]:
        return [f"mov {acc},#0" for acc in _ACCUMULATORS[: self.rows]]

    def _block(self) -> list[str]:
        lines = self._start()
        if self._looped:
            lines += ["2:", *self._word() * self.unroll, f"ldr r12,[sp,#{_END}]", "cmp r0,r12", "bne.w 2b"]
        return lines + self._rest()

    def _rest(self) -> list[str]:
        """What is behind the loop, or all of it."""
        words = self._words % self.unroll if self._looped else self._words
        return self._word() * words + self._element() * (self.size % 4)

    def _loads(self, load: str, step: int) -> list[str]:
        """The next inputs, and as much of each row; the first moves the pointer on and so comes last."""
        rows = [f"{load} {word},[r1,#{i * self.size}]" for i, word in enumerate(_WORDS[: self.rows])][1:]
        return [f"{load} r6,[r0],#{step}", *rows, f"{load} {_WORDS[0]},[r1],#{step}"]

    def _word(self) -> list[str]:
        lines = [*self._loads("ldr", 4), "sxtab16 r7,lr,r6,ror #8", "sxtab16 r6,lr,r6"]
        for acc, word in zip(_ACCUMULATORS[: self.rows], _WORDS, strict=False):
            lines += [f"sxtb16 r12,{word}", f"smlad {acc},r6,r12,{acc}"]
            lines += [f"sxtb16 {word},{word},ror #8", f"smlad {acc},r7,{word},{acc}"]
        return lines

    def _element(self) -> list[str]:
        products = [f"smlabb {a},r6,{w},{a}" for a, w in zip(_ACCUMULATORS[: self.rows], _WORDS, strict=False)]
        return [*self._loads("ldrsb", 1), "sxtah r6,r6,lr", *products]

    def _next(self) -> list[str]:
        """The sums to where they belong, then the next rows."""
        sums = ",".join(_ACCUMULATORS[: self.rows])
        lines = [f"ldr r12,[sp,#{_SUMS}]", f"stm r12!,{{{sums}}}" if self.rows > 1 else f"str {sums},[r12],#4"]
        lines += [f"str r12,[sp,#{_SUMS}]", f"movw r12,#{self.size}", "sub r0,r0,r12"]
        lines += [f"addw r1,r1,#{(self.rows - 1) * self.size}"] if self.rows > 1 else []
        return [*lines, f"ldr r12,[sp,#{_BLOCKS}]", "subs r12,r12,#1", f"str r12,[sp,#{_BLOCKS}]", "bne.w 1b"]

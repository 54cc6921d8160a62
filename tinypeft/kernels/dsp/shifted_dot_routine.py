"""Assembly for Cortex-M4: mantissas, each shifted as its channel asks for, times four columns of weights."""

from __future__ import annotations

from dataclasses import dataclass

from tinypeft.kernels.base import Routine
from tinypeft.kernels.dsp import assembly

#: columns of a call
COLUMNS = 4
#: words of a pair of channels in the table: their shifts and the columns
PAIR_WORDS = 1 + COLUMNS
#: pairs of channels of a loop
_UNROLL = 8
#: most channels: a constant of an instruction holds the bytes of their table
MOST_CHANNELS = 6000
_ACCUMULATORS = "r4", "r5", "r6", "r7"
#: bytes on the stack: where results go, where the table ends, a copy of tp_shifted_dot_block, and its address
_BLOCK = ("half", "shift", "positions", "step", "largest", "smallest")
_AT = {name: 4 * i for i, name in enumerate(("result", "table_end", *_BLOCK, "block"))}
#: cycles of a branch beyond its own, and of a call
_TAKEN, _CALL_CYCLES = 2, 60


@dataclass(frozen=True)
class ShiftedDot:
    """A routine: result[p,j] = (half + sum_c round(mantissa[p,c] * 2^-shift[c]) * column[c,j]) >> shift, j < 4.

    mantissas int16 (positions, channels), channels even; result int16, positions `step` bytes apart.
    """

    channels: int

    @property
    def fits(self) -> bool:
        """Whether instructions hold the constants."""
        return self.channels % 2 == 0 and self.channels <= MOST_CHANNELS

    @property
    def cycles(self) -> int:
        """Of a position, where a quarter of the pairs of mantissas are zero."""
        test, pair = assembly.cost(_test(0, "")), assembly.cost(_pair(0))
        pairs = self._pairs * (4 * test + _TAKEN + 3 * pair) // 4
        return pairs + self._loops * (assembly.cost(self._next()) + _TAKEN) + _TAKEN + assembly.cost(self._around())

    @property
    def _pairs(self) -> int:
        return self.channels // 2

    @property
    def _unroll(self) -> int:
        return min(_UNROLL, self._pairs)

    @property
    def _loops(self) -> int:
        return -(-self._pairs // self._unroll)

    @property
    def _absent(self) -> int:
        """Pairs that the first loop leaves out: it starts in the middle."""
        return self._loops * self._unroll - self._pairs

    def routine(self) -> Routine:
        """Its assembly."""
        lines = [
            "push {r3-r11, lr}",
            "ldm r3, {r4-r9}",
            "push {r4-r9}",
            *assembly.constant("r3", self._table),
            "add r3, r1, r3",
        ]
        lines += ["push {r2, r3}", f"subw r1, r1, #{4 * PAIR_WORDS * self._absent}", "subs r0, #4"]
        lines += ["mov r8, #16384", "1:", *self._start()]
        for i in range(self._unroll):
            lines += ["2:"] if i == 0 else []
            lines += ["4:"] if self._absent and i == self._absent else []
            lines += [*_test(i, "!" if i == self._unroll - 1 else ""), *_pair(i), "3:"]
        lines += [*self._next(), *self._finish(), f"ldr r12, [sp, #{_AT['block']}]"]
        lines += [f"str {r}, [r12, #{4 * _BLOCK.index(n)}]" for r, n in (("r10", "largest"), ("r11", "smallest"))]
        lines += [f"add sp, #{_AT['block']}", "pop {r3-r11, pc}"]
        comment = (
            f"{self.channels} mantissas of positions, each shifted, times four columns.\n"
            "r0 mantissas, r1 table (of two channels their factors of 2^-15 and the columns), r2 result, r3\n"
            "tp_shifted_dot_block. r4-r7 accumulate, r8 rounds. What is zero is left out: clamped outputs are."
        )
        text = assembly.listing(lines)
        return Routine(
            f"tp_shifted_dot_{self.channels}_dsp", text, comment, assembly.size(lines), "tp_shifted_dot_routine"
        )

    @property
    def _table(self) -> int:
        """Bytes of the table."""
        return 4 * PAIR_WORDS * self._pairs

    def _around(self) -> list[str]:
        return [*self._start(), *self._finish()]

    def _start(self) -> list[str]:
        first, *others = _ACCUMULATORS
        lines = [f"ldr {first}, [sp, #{_AT['half']}]", *(f"mov {a}, {first}" for a in others)]
        return [*lines, f"subs r0, #{4 * self._absent}", "b.w 4f"] if self._absent else lines

    def _next(self) -> list[str]:
        lines = [f"addw r1, r1, #{4 * PAIR_WORDS * self._unroll}"]
        return [*lines, f"ldr r2, [sp, #{_AT['table_end']}]", "cmp r1, r2", "bne.w 2b"] if self._loops > 1 else lines

    def _finish(self) -> list[str]:
        """Four mantissas from their accumulators, and on to the next position."""
        names = {"r2": "shift", "r3": "result", "r9": "step", "r10": "largest", "r11": "smallest", "r12": "positions"}
        lines = [f"ldr {register}, [sp, #{_AT[name]}]" for register, name in names.items()]
        lines += [f"asr {a}, {a}, r2" for a in _ACCUMULATORS]
        lines += ["pkhbt r4, r4, r5, lsl #16", "pkhbt r6, r6, r7, lsl #16", "str r4, [r3]", "str r6, [r3, #4]"]
        lines += ["add r3, r3, r9", f"str r3, [sp, #{_AT['result']}]"]
        lines += ["ssub16 r2, r4, r6", "sel r5, r4, r6", "sel r7, r6, r4"]
        lines += ["ssub16 r2, r5, r10", "sel r10, r5, r10", "ssub16 r2, r11, r7", "sel r11, r7, r11"]
        lines += [f"str r10, [sp, #{_AT['largest']}]", f"str r11, [sp, #{_AT['smallest']}]"]
        lines += [*assembly.constant("r3", self._table + 4 * PAIR_WORDS * self._absent), "sub r1, r1, r3"]
        return [*lines, "subs r12, #1", f"str r12, [sp, #{_AT['positions']}]", "bne.w 1b"]


def _test(i: int, moves: str) -> list[str]:
    """Two mantissas, r2, which are left out where both are zero; r0 starts in front of them."""
    return [f"ldr r2, [r0, #{4 * i + 4}]{moves}", "cbz r2, 3f"]


def _pair(i: int) -> list[str]:
    """They are shifted, and multiplied."""
    at = 4 * PAIR_WORDS * i
    columns = "r9", "r10", "r11", "r12"
    lines = [f"ldr {register}, [r1, #{at + 4 * j}]" for j, register in enumerate(("r3", *columns))]
    lines += ["smlatt lr, r2, r3, r8", "smlabb r2, r2, r3, r8", "lsl lr, lr, #1", "pkhtb r2, lr, r2, asr #15"]
    return [*lines, *(f"smlad {a}, r2, {c}, {a}" for a, c in zip(_ACCUMULATORS, columns, strict=True))]

"""Assembly for Cortex-M4: mantissas of two or four rows times two channels, added to scaled mantissas in place."""

from __future__ import annotations

from dataclasses import dataclass

from tinypeft.kernels.base import Routine
from tinypeft.kernels.dsp import assembly

#: ranks that the routine is for
RANKS = (2, 4)
#: largest offset of a load; positions of a loop; the most loops that a halfword counts
_REACH, _UNROLL, _LOOPS = 4095, 6, 1 << 15
#: cycles of a branch beyond its own, and of a call with what its caller does for it
_TAKEN, _CALL_CYCLES = 2, 90


@dataclass(frozen=True)
class LowRank:
    """A routine: result[p,k] = result[p,k] * factor + ((sum_c hidden[p,c] * rows[c,k] * scale) >> 32), rounded, k < 2.

    hidden int16 (positions, rank), result int16 (positions, channels), channels even; of rows, for either channel all
    pairs: a word each.
    """

    rank: int
    channels: int
    positions: int

    @property
    def fits(self) -> bool:
        """Whether offsets reach what the routine touches."""
        return self.rank in RANKS and self.channels % 2 == 0 and self._step <= _REACH and self._loops <= _LOOPS

    @property
    def cycles(self) -> int:
        """Of all channels."""
        loop = assembly.cost(self._next()) + _TAKEN
        each = assembly.cost(self._position(0)) * self.positions + loop * self._loops + _CALL_CYCLES
        return self.channels // 2 * each

    @property
    def _step(self) -> int:
        """Bytes from a position's results to the next."""
        return 2 * self.channels

    @property
    def _unroll(self) -> int:
        """Positions that follow each other without a branch."""
        return min(_UNROLL, self.positions, _REACH // self._step)

    @property
    def _loops(self) -> int:
        return -(-self.positions // self._unroll)

    def routine(self) -> Routine:
        """Its assembly. The first loop starts in the middle where the last would be a part of one."""
        absent = self._loops * self._unroll - self.positions
        rows = "r4-r7" if self.rank == 4 else "r4, r6"
        lines = ["push {r3-r11, lr}", f"ldm r2, {{{rows}}}", "ldm r3, {r8-r11}", f"movt r9, #{self._loops - 1}"]
        lines += [f"subw r0, r0, #{2 * self.rank * absent + 4}", *self._back(absent)]
        for i in range(self._unroll):
            lines += ["1:"] if i == 0 else []
            lines += ["2:"] if absent and i == absent else []
            lines += self._position(i)
        lines += [*self._next(), "ldr r3, [sp]", "str r10, [r3, #8]", "str r11, [r3, #12]", "pop {r3-r11, pc}"]
        comment = (
            f"{self.positions} positions of {self.rank} mantissas times rows of two channels of {self.channels}, added "
            "to what is there.\nr0 mantissas, r1 result, r2 rows (a word of each two, of either channel), r3 "
            "tp_low_rank_block. r4-r7 rows,\nr8 scale, r9 factor and, above it, how many loops are left, r10 largest, "
            "r11 smallest."
        )
        text = assembly.listing(lines)
        name = f"tp_low_rank_{self.rank}x{self.channels}_{self.positions}_dsp"
        return Routine(name, text, comment, assembly.size(lines), "tp_low_rank_routine")

    def _back(self, absent: int) -> list[str]:
        return [f"subw r1, r1, #{self._step * absent}", "b.w 2f"] if absent else []

    def _position(self, i: int) -> list[str]:
        """One position, r1 from the first of a loop on; the last one's load moves r0, which starts in front of it."""
        at, moves = 2 * self.rank * i + 4, "!" if i == self._unroll - 1 else ""
        if self.rank == 4:
            lines = [f"ldr r2, [r0, #{at}]", f"ldr r3, [r0, #{at + 4}]{moves}", f"ldr r12, [r1, #{self._step * i}]"]
            lines += ["smuad lr, r2, r4", "smuad r2, r2, r6", "smlad lr, r3, r5, lr", "smlad r2, r3, r7, r2"]
        else:
            lines = [f"ldr r2, [r0, #{at}]{moves}", f"ldr r12, [r1, #{self._step * i}]"]
            lines += ["smuad lr, r2, r4", "smuad r2, r2, r6"]
        lines += ["smulbb r3, r12, r9", "smultb r12, r12, r9", "smmlar lr, lr, r8, r3", "smmlar r2, r2, r8, r12"]
        lines += ["pkhbt lr, lr, r2, lsl #16", f"str lr, [r1, #{self._step * i}]"]
        lines += ["ssub16 r2, lr, r10", "sel r10, lr, r10", "ssub16 r2, r11, lr", "sel r11, lr, r11"]
        return lines

    def _next(self) -> list[str]:
        return [f"addw r1, r1, #{self._step * self._unroll}", "subs r9, r9, #65536", "bpl.w 1b"]

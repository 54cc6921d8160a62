"""Assembly for Cortex-M4: sums over positions of up to four columns of int16 times two channels of x."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tinypeft.kernels.base import Routine
from tinypeft.kernels.dsp import assembly

#: columns that a routine serves
COLUMNS = 4
#: the most pairs of positions of a loop; bytes that a load reaches
_UNROLL, _REACH = 8, 4095
_ACCUMULATORS = ("r4", "r5", "r6", "r7"), ("r8", "r9", "r10", "r11")
#: slots of the frame: lines that are left, loops that are left, the sums, their shift
_LINES, _LOOPS, _SUMS, _SHIFT = "[sp]", "[sp,#4]", "[sp,#8]", "[sp,#12]"


@dataclass(frozen=True)
class Correlation:
    """A routine: sums[j,c] = start[j] + sum over positions of columns[j] * x[c], for channels c < 2.

    x int8 or int16, `lines` of `positions` that are `distance` bytes apart, lines `line_step` bytes. `start` (count) is
    in front of the columns, which come in pairs of positions, (lines, ceil(positions / 2), count, 2): of an odd line
    the first position is alone, with 0 in the high half. Sums int32 are `column_step` and `channel_step` bytes apart.
    bits    8 or 16, of x; those of 16 bits are gradients, many of which are 0 next to each other
    adds    whether sums start from what they are, beside start
    shifts  whether sums are shifted to the right at the end, half up
    """

    bits: int
    lines: int
    positions: int
    distance: int
    line_step: int
    count: int
    column_step: int
    channel_step: int
    adds: bool
    shifts: bool

    @property
    def fits(self) -> bool:
        """Whether offsets reach what the routine touches."""
        return max(self.distance, (self.count - 1) * self.column_step + self.channel_step) <= _REACH

    @property
    def name(self) -> str:
        """Its C name."""
        x = f"s{self.bits}_{self.lines}x{self.positions}_{self.distance}_{self.line_step}"
        form = f"{'_add' if self.adds else ''}{'_shift' if self.shifts else ''}"
        return f"tp_correlate_{x}_{self.count}_{self.column_step}_{self.channel_step}{form}_dsp"

    @property
    def cycles(self) -> int:
        """Of a call, none of whose positions is left out."""
        line = self._pairs * assembly.cost(self._position(0, 0, alone=False))
        line += assembly.cost(self._position(0, 0, alone=True)) if self._odd else 0
        line += 0 if self._straight else 8 + 9 * -(-self._pairs // self._unroll)
        around = 42 + (9 if self.shifts else 5) * self.count + (4 * self.count if self.adds else 0)
        return around + self.lines * (line + (9 if self.lines > 1 else 0))

    @property
    def _odd(self) -> int:
        return self.positions % 2

    @property
    def _pairs(self) -> int:
        return self.positions // 2

    @property
    def _straight(self) -> bool:
        """Whether a line has no loop."""
        return self._pairs <= _UNROLL and (self.positions - 1) * self.distance <= _REACH

    @property
    def _unroll(self) -> int:
        """Pairs of positions that follow each other without a branch."""
        if self._straight:
            return self._pairs
        return max(n for n in range(1, _UNROLL + 1) if (2 * n - 1) * self.distance <= _REACH)

    def routine(self) -> Routine:
        """Its assembly."""
        lines = ["push {r0-r11,lr}", "mov r3,#0", "msr APSR_nzcvq,r3", *self._start()]
        lines += [*assembly.constant("r3", self.lines), f"str r3,{_LINES}", "1:"] if self.lines > 1 else []
        lines += self._line()
        if self.lines > 1:
            lines += [f"ldr r3,{_LINES}", "subs r3,r3,#1", f"str r3,{_LINES}", "bne.w 1b"]
        lines += [f"ldr r2,{_SUMS}", *(self._rounding() if self.shifts else []), *self._sums("str")]
        lines += ["mrs r0,APSR", "and r0,r0,#0x08000000", "add sp,sp,#16", "pop {r4-r11,pc}"]
        comment = (
            f"{self.lines} lines of {self.positions} positions: {self.count} columns times two channels of"
            f" int{self.bits}.\n"
            "r0 x, r1 start and columns, r2 sums, r3 their shift. r4-r7, r8-r11: a channel each.\n"
            "Gives the flag Q: whether a sum left int32."
        )
        text = assembly.listing(lines)
        return Routine(self.name, text, comment, assembly.size(lines), "tp_correlate_routine")

    def _start(self) -> list[str]:
        """The accumulators; r1 moves on to the columns, r2 points to the sums."""
        near, far = _ACCUMULATORS
        start = [f"ldr {near[j]},[r1],#4" for j in range(self.count)]
        start += [f"mov {far[j]},{near[j]}" for j in range(self.count)]
        for line in self._sums("ldr") if self.adds else ():
            _, accumulator, place = re.split("[ ,]", line, maxsplit=2)
            start += [f"ldr r3,{place}", f"qadd {accumulator},{accumulator},r3"]
        return start

    def _sums(self, access: str) -> list[str]:
        """Load or store the accumulators, r2 pointing to the sums."""
        return [
            f"{access} {_ACCUMULATORS[c][j]},[r2,#{j * self.column_step + c * self.channel_step}]"
            for j in range(self.count)
            for c in range(2)
        ]

    def _rounding(self) -> list[str]:
        """Shift the accumulators; the carry, which a shift by 0 leaves as it is, rounds."""
        accumulators = [a for channel in _ACCUMULATORS for a in channel[: self.count]]
        each = [line for a in accumulators for line in (f"asrs {a},{a},r3", f"adc {a},{a},#0")]
        return [f"ldr r3,{_SHIFT}", "adds r3,r3,#0", *each]

    def _line(self) -> list[str]:
        """All positions of a line; r0 and r1 move on to the next."""
        words, odd, unroll = 4 * self.count, self._odd, self._unroll
        lines = self._position(0, 0, alone=True) if odd else []
        if self._straight:
            for i in range(self._pairs):
                lines += self._position((odd + 2 * i) * self.distance, (odd + i) * words, alone=False)
            if self.lines == 1:
                return lines
            return [
                *lines,
                *assembly.add("r0", self.line_step, "r3"),
                *assembly.add("r1", (odd + self._pairs) * words, "r3"),
            ]
        missing = -self._pairs % unroll  # the loop is entered behind so many pairs
        lines += [
            *assembly.add("r0", (odd - 2 * missing) * self.distance, "r3"),
            *assembly.add("r1", (odd - missing) * words, "r3"),
        ]
        lines += [*assembly.constant("r3", -(-self._pairs // unroll)), f"str r3,{_LOOPS}"]
        lines += ["b.w 4f", "3:"] if missing else ["3:"]
        for i in range(unroll):
            lines += ["4:"] if i == missing and missing else []
            lines += self._position(2 * i * self.distance, i * words, alone=False)
        lines += [*assembly.add("r0", 2 * unroll * self.distance, "r3"), *assembly.add("r1", unroll * words, "r3")]
        lines += [f"ldr r3,{_LOOPS}", "subs r3,r3,#1", f"str r3,{_LOOPS}", "bne.w 3b"]
        return lines + (
            assembly.add("r0", self.line_step - self.positions * self.distance, "r3") if self.lines > 1 else []
        )

    def _position(self, x: int, columns: int, *, alone: bool) -> list[str]:
        """One position or a pair of them; lr and r3 become what two channels have there."""
        first = f"ldr r12,[r1,#{columns}]"
        if self.bits == 16:
            lines = [f"ldr r2,[r0,#{x}]", first, "mov lr,r2", "asr r3,r2,#16"]
            if not alone:
                lines = [f"ldr r2,[r0,#{x}]", f"ldr r3,[r0,#{x + self.distance}]", first, "orrs lr,r2,r3", "beq 2f"]
                lines += ["pkhbt lr,r2,r3,lsl #16", "pkhtb r3,r3,r2,asr #16"]
        else:
            lines = [f"ldrh r2,[r0,#{x}]", first]
            if not alone:
                lines = [f"ldrh r2,[r0,#{x}]", f"ldrh r3,[r0,#{x + self.distance}]", first, "orr r2,r2,r3,lsl #16"]
            lines += ["sxtb16 lr,r2", "sxtb16 r3,r2,ror #8"]
        lines += self._products(0, "r12")
        if self.count > 1:
            lines.append(f"ldr r12,[r1,#{columns + 4}]")
        if self.count > 2:
            lines.append(f"ldr r2,[r1,#{columns + 8}]")
        lines += self._products(1, "r12") + self._products(2, "r2")
        if self.count > 3:
            lines += [f"ldr r12,[r1,#{columns + 12}]", *self._products(3, "r12")]
        return [*lines, "2:"] if self.bits == 16 and not alone else lines

    def _products(self, column: int, word: str) -> list[str]:
        if column >= self.count:
            return []
        pair = zip(("lr", "r3"), _ACCUMULATORS, strict=True)
        return [f"smlad {a[column]},{x},{word},{a[column]}" for x, a in pair]

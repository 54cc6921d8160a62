"""Assembly of depthwise convolutions over planes of int16, all weights of a channel in registers: 3x3 and smaller."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tinypeft.kernels.base import Routine
from tinypeft.kernels.dsp.assembly import cost
from tinypeft.kernels.dsp.rescale import Rescale
from tinypeft.kernels.dsp.taps import Product, TapPlan, plan_taps
from tinypeft.kernels.dsp.widen_code import add_constant, code_bytes

#: Blocks of one or two outputs, of a row or of several, that stand after each other, at most: for speed, and for size.
FAST_BLOCKS, COMPACT_BLOCKS = 18, 3
#: Registers that hold weights, data, and the accumulators of a row of outputs and of the one below.
HELD = [f"r{n}" for n in range(4, 10)]
DATA = ("r2", "r3")
ACCUMULATORS = (("r12", "lr"), ("r10", "r11"))
#: Of a loop in memory: load, count, store, branch.
LOOP_CYCLES = 8


@dataclass(frozen=True)
class Planes:
    """Planes of int16 in memory: `rows` rows of `pitch` halfwords of each channel, one channel behind the other."""

    rows: int
    pitch: int

    @property
    def row_bytes(self) -> int:
        """From a row to the next."""
        return 2 * self.pitch

    @property
    def channel_bytes(self) -> int:
        """From a plane to the next."""
        return self.rows * self.row_bytes


@dataclass(frozen=True)
class HeldRoutine:
    """A routine that keeps all weights of a channel in registers.

    void routine(const int16_t *planes, int8_t *output, const int32_t *table, int32_t phase): `height` rows of outputs
    of `channels` channels. With `turning`, the planes are rings: their row `phase` is the first, and `height` is 1.
    At most `blocks` blocks of outputs stand after each other without a loop.

    Two rows of outputs share what they read where that fits. Registers: r0 data, r1 output, r4 to r9 weights; of a row
    by itself r10 multiplier, r11 addend. Stack: 0 bias, 4 table, 8 channels to go, 12 entry, 16 turns to go of a row,
    20 turns to go, 24 multiplier, 28 addend.
    """

    planes: Planes
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    width: int
    height: int
    channels: int
    output_c: int
    turning: bool
    rescale: Rescale
    blocks: int = FAST_BLOCKS

    @cached_property
    def pair(self) -> TapPlan:
        """The products of a row for two outputs."""
        return plan_taps(self.kernel_w, self.stride_w, 2 if self.width > 1 else 1)

    @cached_property
    def single(self) -> TapPlan:
        """The same for the last of an odd number of outputs."""
        return plan_taps(self.kernel_w, self.stride_w, 1, self.pair.weights)

    @property
    def words(self) -> int:
        """Packed words of weights of a row of the kernel."""
        return len(self.single.weights)

    @property
    def fits(self) -> bool:
        """Whether the registers and the offsets of instructions suffice."""
        if self.words * self.kernel_h > len(HELD) or self.planes.channel_bytes >= 1 << 16 or self.output_c >= 4096:
            return False
        rows = self.kernel_h + self._rows * self.stride_h
        return self.planes.row_bytes * rows + 8 * self.stride_w * self.blocks < 4000

    @property
    def _row_blocks(self) -> int:
        return (self.width + 1) // 2

    @cached_property
    def _rows(self) -> int:
        """Rows a turn: the divisor of the height that takes the fewest cycles."""
        below = self.width * self.output_c + self.output_c < 4096  # the row below in reach of a store
        if self._row_blocks > max(self.blocks // 2, 2):  # a loop within the row
            return 2 if below and self.height % 2 == 0 and self.blocks >= 8 else 1
        most = max(self.blocks // self._row_blocks, 1) if below else 1
        return min((n for n in range(1, most + 1) if self.height % n == 0), key=self._plane_cycles)

    def _unrolled(self, rows: int) -> tuple[int, int, int]:
        """(pairs a turn, turns, pairs behind the loop) of one or two rows of outputs."""
        pairs = self.width // 2
        if self._row_blocks <= max(self.blocks // 2, 2):
            return 0, 0, pairs
        most = max(self.blocks * 2 // 5 // rows, 2)
        turn = min(range(most // 2 + 1, most + 1), key=lambda n: (pairs // n * 7 + pairs % n, n))
        return turn, pairs // turn, pairs % turn

    @cached_property
    def cycles(self) -> int:
        """Of one call on a Cortex-M4, about."""
        around = self.words * self.kernel_h + (32 if self.turning else 24) + 2 * (self._rows > 1)
        return self.channels * (self._plane_cycles(self._rows) + around) + 25

    def _plane_cycles(self, rows: int) -> int:
        """Of all rows of a channel, so many a turn."""
        turns = self.height // rows
        double, single = (self._row_cycles(n) if n <= rows else 0 for n in (2, 1))
        loop = (LOOP_CYCLES + 1) * turns + 2 if turns > 1 else 0
        return turns * (rows // 2 * double + rows % 2 * (single + (3 if rows > 1 else 0))) + loop

    def _row_cycles(self, rows: int) -> int:
        _, turns, _ = self._unrolled(rows)
        pairs = self.width // 2 * cost(self._block(self.pair, 0, rows))
        odd = cost(self._block(self.single, 0, rows)) if self.width % 2 else 0
        return pairs + odd + (turns * LOOP_CYCLES + 2 if turns else 0) + (1 if rows == 2 else 0)

    @cached_property
    def routine(self) -> Routine:
        """The assembly."""
        lines = ["push {r4-r11, lr}", "sub sp, sp, #32", f"movw r12, #{self.channels}", "str r12, [sp, #8]"]
        if self.turning:
            lines += ["adr.w r12, 2f", "add.w r3, r3, r3, lsl #1", "add.w r12, r12, r3, lsl #2", "orr r12, r12, #1"]
            lines += ["str r12, [sp, #12]", "bx r12", "2:"]
            for phase in range(self.kernel_h):
                lines += self._entry(phase)
        else:
            lines += ["2:", load_multiple(HELD[: self.words * self.kernel_h])]
        lines += ["3:", "ldm r2!, {r3, r10, r11}", "str r3, [sp]", "str r2, [sp, #4]"]
        if self._rows > 1:
            lines += ["str r10, [sp, #24]", "str r11, [sp, #28]"]
        lines += self._plane()
        lines += add_constant("r1", 1 - self.height * self.width * self.output_c)
        lines += ["ldr r2, [sp, #4]", "ldr r3, [sp, #8]", "subs r3, r3, #1", "str r3, [sp, #8]"]
        lines += ["it ne", "ldrne pc, [sp, #12]"] if self.turning else ["bne.w 2b"]
        lines += ["add sp, sp, #32", "pop {r4-r11, pc}"]
        kind = "row_of_ring" if self.turning else f"{self.height}_rows"
        name = (
            f"tp_depthwise_{kind}_k{self.kernel_h}x{self.kernel_w}_s{self.stride_h}x{self.stride_w}_w{self.width}"
            f"_p{self.planes.rows}x{self.planes.pitch}_c{self.channels}of{self.output_c}_b{self.blocks}"
            f"_{self.rescale.key}"
        )
        comment = (
            f"{self.height} rows of {self.width} outputs of {self.channels} channels: r0 planes of "
            f"{self.planes.rows}x{self.planes.pitch} int16, r1 output, r2 table of packed weights, bias, multiplier "
            f"and addend, r3 {'the row of the ring that is the first' if self.turning else 'not read'}"
        )
        return Routine(name, "\n".join(lines), comment, code_bytes(lines), "tp_depthwise_held_function")

    def _entry(self, phase: int) -> list[str]:
        """12 bytes that load the weights so that the kernel's first row meets row `phase` of the ring."""
        behind, front = HELD[phase * self.words : self.kernel_h * self.words], HELD[: phase * self.words]
        loads = [load_multiple(behind)] + ([load_multiple(front)] if front else [])
        return [*loads, "b.w 3f"] + (["nop.w"] if not front else [])

    def _plane(self) -> list[str]:
        """All rows of a channel; register 0 goes on to the next plane."""
        lines: list[str] = []
        turns, step = self.height // self._rows, self.planes.row_bytes * self.stride_h
        if turns > 1:
            lines += [f"movw r3, #{turns}", "str r3, [sp, #20]", "4:"]
        moved = 0
        for row in range(0, self._rows - 1, 2):
            lines += [*self._line(step * row, 2), *add_constant("r1", self.width * self.output_c)]
            moved = self._moved(2)
        if self._rows % 2:
            lines += ["ldr r10, [sp, #24]", "ldr r11, [sp, #28]"] if self._rows > 1 else []
            lines += self._line(step * (self._rows - 1), 1)
            moved = self._moved(1)
        if turns > 1:
            lines += [*add_constant("r0", step * self._rows - moved), "ldr r3, [sp, #20]", "subs r3, r3, #1"]
            lines += ["str r3, [sp, #20]", "bne.w 4b"]
            moved = turns * step * self._rows
        return lines + add_constant("r0", self.planes.channel_bytes - moved)

    def _moved(self, rows: int) -> int:
        """Bytes by which a loop within a row leaves register 0 further on."""
        turn, turns, _ = self._unrolled(rows)
        return turn * turns * 4 * self.stride_w

    def _line(self, offset: int, rows: int) -> list[str]:
        """One or two rows of outputs, of which the data begin `offset` bytes behind register 0."""
        turn, turns, rest = self._unrolled(rows)
        step = 4 * self.stride_w
        lines = []
        if turns:
            lines += [f"movs r3, #{turns}", "str r3, [sp, #16]", "1:"]
            lines += [line for i in range(turn) for line in self._block(self.pair, offset + i * step, rows)]
            lines += [f"add r0, r0, #{turn * step}", "ldr r3, [sp, #16]", "subs r3, r3, #1"]
            lines += ["str r3, [sp, #16]", "bne.w 1b"]
        lines += [line for i in range(rest) for line in self._block(self.pair, offset + i * step, rows)]
        return lines + (self._block(self.single, offset + rest * step, rows) if self.width % 2 else [])

    def _block(self, plan: TapPlan, offset: int, rows: int) -> list[str]:
        """Up to two outputs of one or two rows, whose first tap is `offset` bytes behind register 0."""
        lines: list[str] = []
        started: set[str] = set()
        reads = [(row, word) for row in range(self.kernel_h + (rows - 1) * self.stride_h) for word in plan.words]
        reads = [read for read in reads if self._products(plan, *read, rows)]
        for group in (reads[i : i + 2] for i in range(0, len(reads), 2)):
            products: list[tuple[Product, int, str, str]] = []
            loads = []
            for register, (row, word) in zip(DATA, group, strict=False):
                loads.append(f"ldr {register}, [r0, #{offset + self.planes.row_bytes * row + 4 * word}]")
                products += [(p, y, register, weight) for p, y, weight in self._products(plan, row, word, rows)]
            products.sort(key=lambda product: -product[0].output)
            moves = []
            for first, second in ACCUMULATORS[:rows]:
                y = 0 if first == ACCUMULATORS[0][0] else 1
                here = {p.output for p, of, _, _ in products if of == y}
                if here and first not in started:
                    lines.append(f"ldr {first}, [sp]")
                    started.add(first)
                    if plan.outputs > 1 and 1 not in here:
                        moves.append(f"mov {second}, {first}")
                        started.add(second)
            lines += [*loads, *moves]
            for product, y, register, weight in products:
                acc = ACCUMULATORS[y][product.output]
                start = acc if acc in started else ACCUMULATORS[y][0]
                started.add(acc)
                lines.append(f"{product.instruction} {acc}, {register}, {weight}, {start}")
        return lines + self._results(plan.outputs, rows)

    def _products(self, plan: TapPlan, row: int, word: int, rows: int) -> list[tuple[Product, int, str]]:
        """What a word of data is multiplied with: (product, row of outputs, register of weights)."""
        found = []
        for y in range(rows):
            kernel_row = row - y * self.stride_h
            if 0 <= kernel_row < self.kernel_h:
                held = HELD[kernel_row * self.words : (kernel_row + 1) * self.words]
                found += [(p, y, held[p.weight]) for p in plan.products if p.word == word]
        return found

    def _results(self, outputs: int, rows: int) -> list[str]:
        """Requantise and store the accumulators of a block."""
        lines, constants = [], ("r10", "r11")
        if rows == 2:
            constants = DATA
            lines += ["ldr r2, [sp, #24]", "ldr r3, [sp, #28]"]
        accumulators = [row[:outputs] for row in ACCUMULATORS[:rows]]
        for row in accumulators:
            for acc in row:
                lines += self.rescale.code(acc, *constants)
        near = self.output_c <= 255
        for i in range(outputs):
            for y, row in reversed(list(enumerate(accumulators))):
                offset = y * self.width * self.output_c + (0 if near else i * self.output_c)
                behind = f", #{self.output_c}" if near and y == 0 else ""
                lines.append(f"strb {row[i]}, [r1, #{offset}]{behind}" if offset else f"strb {row[i]}, [r1]{behind}")
        return lines if near else lines + add_constant("r1", outputs * self.output_c)


def load_multiple(registers: list[str], base: str = "r2") -> str:
    """4 bytes that load registers from `base` on and move it on."""
    if len(registers) == 1:
        return f"ldr.w {registers[0]}, [{base}], #4"
    return f"ldm.w {base}!, {{{', '.join(registers)}}}"

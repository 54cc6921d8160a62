"""Assembly of depthwise convolutions with any kernel: a row of a channel, the weights loaded as they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tinypeft.kernels.base import Routine
from tinypeft.kernels.dsp.depthwise_held import load_multiple
from tinypeft.kernels.dsp.rescale import Rescale
from tinypeft.kernels.dsp.taps import TapPlan, plan_taps
from tinypeft.kernels.dsp.widen_code import add_constant, code_bytes

#: Outputs of a block.
BLOCK = 4


@dataclass(frozen=True)
class LoadedRoutine:
    """A routine that loads weights as it needs them: any kernel.

    void routine(const int16_t **segments, int8_t *output, const int32_t *table): `width` outputs of one channel.
    A segment is a run of `taps` taps of a kernel's row; the pointers to their data move on and are left anywhere.
    The table is bias, multiplier, addend, then the packed weights of each segment.
    """

    taps: int
    segments: int
    stride_w: int
    width: int
    output_c: int
    rescale: Rescale

    @cached_property
    def block(self) -> TapPlan:
        """The products of a segment for a block of outputs."""
        return plan_taps(self.taps, self.stride_w, min(BLOCK, self.width))

    @cached_property
    def rest(self) -> TapPlan | None:
        """The same for the last outputs where they are fewer."""
        count = self.width % BLOCK
        return plan_taps(self.taps, self.stride_w, count, self.block.weights) if count else None

    @property
    def cycles(self) -> int:
        """Of one call on a Cortex-M4, about."""
        total = 30
        rest = self.rest
        for plan, count in ((self.block, self.width // BLOCK), *([(rest, 1)] if rest else [])):
            segment = 9 + len(plan.weights) + 1 + len(plan.words) * 3 // 2 + 1 + len(plan.products)
            total += count * (self.segments * segment + 24 + plan.outputs * (2 + self.rescale.instructions))
        return total

    @cached_property
    def routine(self) -> Routine:
        """The assembly. Stack: 0 segments, 4 output, 8 table, 12 blocks to go."""
        lines = ["push {r4-r11, lr}", "sub sp, sp, #20", "str r0, [sp]", "str r1, [sp, #4]", "str r2, [sp, #8]"]
        blocks = self.width // BLOCK
        if blocks > 1:
            lines += [f"movw r3, #{blocks}", "str r3, [sp, #12]", "2:"]
        if blocks:
            lines += self._outputs(self.block)
        if blocks > 1:
            lines += ["ldr r0, [sp, #12]", "subs r0, r0, #1", "str r0, [sp, #12]", "bne.w 2b"]
        if self.rest is not None:
            lines += self._outputs(self.rest)
        lines += ["add sp, sp, #20", "pop {r4-r11, pc}"]
        name = (
            f"tp_depthwise_row_t{self.taps}x{self.segments}_s{self.stride_w}_w{self.width}_c{self.output_c}"
            f"_{self.rescale.key}"
        )
        comment = (
            f"{self.width} outputs of a channel from {self.segments} segments of {self.taps} taps: r0 pointers to "
            f"their data, r1 output, r2 table of bias, multiplier, addend, packed weights"
        )
        return Routine(name, "\n".join(lines), comment, code_bytes(lines), "tp_depthwise_loaded_function")

    def _outputs(self, plan: TapPlan) -> list[str]:
        """A block of outputs: accumulators r2 to r5, data r6 and r7, weights r8 to r11."""
        accumulators = [f"r{2 + i}" for i in range(plan.outputs)]
        weights = [f"r{8 + i}" for i in range(len(plan.weights))]
        step = 2 * BLOCK * self.stride_w
        lines = ["ldr r1, [sp, #8]", "ldr lr, [sp]", "ldr r2, [r1], #12", *(f"mov {a}, r2" for a in accumulators[1:])]
        lines += [f"mov r0, #{self.segments}", "1:", "ldr r12, [lr]", f"add r12, r12, #{step}", "str r12, [lr], #4"]
        lines.append(load_multiple(weights, "r1"))
        words = plan.words
        for group in (words[i : i + 2] for i in range(0, len(words), 2)):
            registers = dict(zip(group, ("r6", "r7"), strict=False))
            lines += [f"ldr {register}, [r12, #{4 * word - step}]" for word, register in registers.items()]
            for product in (p for p in plan.products if p.word in registers):
                acc = accumulators[product.output]
                lines.append(
                    f"{product.instruction} {acc}, {registers[product.word]}, {weights[product.weight]}, {acc}"
                )
        lines += ["subs r0, r0, #1", "bne.w 1b", "ldr r1, [sp, #8]", "ldr r12, [sp, #4]", "ldr r6, [r1, #4]"]
        lines.append("ldr r7, [r1, #8]")
        for acc in accumulators:
            lines += self.rescale.code(acc, "r6", "r7")
        for acc in accumulators:
            lines += [f"strb {acc}, [r12]", *add_constant("r12", self.output_c)]
        return [*lines, "str r12, [sp, #4]"]


def loaded_taps(kernel_w: int, stride_w: int, dilation_w: int) -> int:
    """Taps of a segment so that its weights fit the registers: all of a row, an even part of it, or one."""
    if dilation_w > 1:
        return 1
    most = 8 if stride_w % 2 == 0 else 5
    if kernel_w <= most:
        return kernel_w
    even = most // 2 * 2
    count = -(-kernel_w // even)
    return -(-kernel_w // count // 2) * 2

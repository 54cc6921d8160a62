"""The generated routine of convolutions: all output channels of positions one behind the other, two at a time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from tinypeft.kernels.base import Routine
from tinypeft.kernels.dsp import assembly
from tinypeft.kernels.dsp.inputs import COPIES, LAST, OUTPUT, POSITIONS, STARTS, Inputs
from tinypeft.kernels.dsp.packing import BLOCK
from tinypeft.kernels.dsp.requantize import Rounded, Stepped


@dataclass(frozen=True)
class Results:
    """What becomes of accumulators: their requantisation, the output's zero point and range, the number of channels."""

    form: Stepped | Rounded
    zero_point: int
    activation: tuple[int, int]
    channels: int

    @property
    def name(self) -> str:
        """Part of a routine's name."""
        tail = f"_t{self.channels % BLOCK}" if self.channels % BLOCK else ""
        return assembly.form_name(self.form, self.zero_point, self.activation) + tail


@dataclass(frozen=True)
class Dot:
    """A routine, and its cycles: a call, a pair of positions, a block of channels of such a pair."""

    routine: Routine
    call_cycles: int
    pair_cycles: int
    block_cycles: int

    def cycles(self, pairs: int, channels: int) -> int:
        """Of one call, estimated."""
        return self.call_cycles + pairs * (self.pair_cycles + -(-channels // BLOCK) * self.block_cycles)


@dataclass(frozen=True)
class Start:
    """What accumulators start from if not from the layer's words. It may use r0 and r2 to lr.

    name    part of the routine's name
    ctype   its C type, "" for that of the inputs
    pair    at the beginning of a pair of positions
    begin   at the beginning of a block: r2 to r9
    """

    name: str
    ctype: str
    pair: tuple[str, ...]
    begin: tuple[str, ...]


#: Words of each position, eight a block, in the place of the layer's.
STARTED = Start("started_", "", (), (f"ldr r10,[sp,#{STARTS}]", "ldm r10!,{r2-r9}", f"str r10,[sp,#{STARTS}]"))


def dot_routine(inputs: Inputs, results: Results, start: Start | None = None) -> Dot:
    """The routine for inputs and results, the accumulators starting from the layer's words or by `start`."""
    prologue = ["sub r1,r1,#4", "push {r0-r11,lr}", "sub sp,sp,#12", *inputs.prologue()]
    pair, pair_cycles = inputs.pair()
    if start is not None:
        pair, pair_cycles = [*start.pair, *pair], pair_cycles + assembly.cost(start.pair)
        begin = [*start.begin, *inputs.block(kept=False)]
    else:
        begin = [*inputs.block(), *(f"ldr r{2 + i},[r1,#{4 * i + 4}]{'!' if i == 3 else ''}" for i in range(4))]
        begin += COPIES if inputs.looped else []
    products, product_cycles = inputs.products(first=start is None and not inputs.looped)
    finish, tail = _finish(inputs, results)
    next_pair = [*inputs.next_pair(), "bgt.w 1b"]
    epilogue = ["add sp,sp,#28", "pop {r4-r11,pc}"]
    lines = [*prologue, "1:", *pair, "2:", *begin, *products, *finish, *tail, *next_pair, *epilogue]
    text = assembly.listing(lines)
    name = f"tp_dot_{start.name if start else ''}{inputs.name}_{results.name}"
    ctype = start.ctype if start and start.ctype else inputs.ctype
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    cycles = assembly.cost
    return Dot(
        Routine(f"{name}_{digest}", text, _comment(inputs), assembly.size(lines), ctype),
        cycles(prologue) + cycles(epilogue) + 6,
        pair_cycles + cycles(next_pair) + 2,
        cycles(begin) + product_cycles + cycles(finish) + 2,
    )


def _finish(inputs: Inputs, results: Results) -> tuple[list[str], list[str]]:
    """From a block's accumulators to the next block, and how the last differs where it is not whole."""
    lines = assembly.requantize(results.form, results.zero_point, POSITIONS)
    lines += assembly.clamp(("r3", "r7"), results.activation)
    lines += [f"ldr lr,[sp,#{OUTPUT}]", f"ldr r10,[sp,#{inputs.second}]", f"ldr r11,[sp,#{LAST}]"]
    # The second position first: where there is only one, the first overwrites it.
    whole = ["str r7,[lr,r10]", "str r3,[lr],#4", f"str lr,[sp,#{OUTPUT}]"]
    left = results.channels % BLOCK
    if not left:  # behind a load the first of these stores takes one cycle
        return [*lines, *whole, "cmp r1,r11", "bne.w 2b"], []
    tail = [*assembly.store_some(left, "r7", "[lr,r10]"), *assembly.store_some(left, "r3", "[lr]")]
    tail += [f"add lr,lr,#{left}", f"str lr,[sp,#{OUTPUT}]"]
    return [*lines, "cmp r1,r11", "beq 8f", *whole, "b.w 2b"], ["8:", *tail]


def _comment(inputs: Inputs) -> str:
    return (
        f"{type(inputs).__name__}: four channels at two positions, {inputs.name}.\n"
        "r0 = inputs, r1 = words of the layer, r2 = output, r3 = positions; on the stack the output channels, the\n"
        "last of the words, where accumulators start, scratch."
    )

"""Assembly for Cortex-M4: mantissas times the scales of their channels, 0 where an output was clamped."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tinypeft.kernels.base import Routine
from tinypeft.kernels.dsp import assembly

#: cycles of four elements, and of what is around those of a position
_CYCLES = {"mask": 28, "outputs": 31}
_LOOP_CYCLES, _POSITION_CYCLES = 4, 14
#: channels of the loop that is long
_LONG = 32


def loops(channels: int, clamp: str) -> list[int]:
    """How many channels a loop of the routine may take at once, the most first; none: it does not serve them."""
    short = [n for n in ((8, 4) if clamp == "outputs" else (8,)) if channels % n == 0][:1]
    return [*([_LONG] if channels % _LONG == 0 else []), *short]


def scale_cycles(positions: int, channels: int, clamp: str, loop: int) -> int:
    """Cycles of the routine."""
    return positions * (channels // 4 * _CYCLES[clamp] + channels // loop * _LOOP_CYCLES + _POSITION_CYCLES)


def scale_routine(clamp: str, loop: int) -> Routine:
    """result[p,c] = (half + g[p,c] * multiplier[c]) >> shift where element (p,c) was not clamped, else 0.

    clamp: "mask", where a bit of each element tells that, or "outputs", where an int8 does; `loop` channels at a time.

    r5 holds the shift in its lowest byte, which is what a shift by a register reads, and a counter above it.
    """
    labels = itertools.count(3)
    body = [part for _ in range(0, loop, 8) for part in _mask(labels)] if clamp == "mask" else _outputs(loop, labels)
    lines = ["push {r3-r11, lr}", "sub sp, #12", "ldrd r8, r9, [r3, #24]", "strd r8, r9, [sp]"]
    lines += ["ldr r8, [r3, #32]", "str r8, [sp, #8]", "ldr r4, [r3, #4]", "ldr r5, [r3, #8]", "ldr r6, [r3, #12]"]
    if clamp == "outputs":
        lines += ["ldr r7, [r3, #16]", "ldr r8, [r3, #20]", "mov r9, #0"]
    else:
        lines += ["mov r7, #0x00010001"]
    lines += ["ldr r3, [r3]", "sub r5, #256", "1:", "ldr r12, [sp, #8]", "add r5, r5, r12", "2:"]
    lines += [line for part, _ in body for line in part]
    lines += ["subs r5, #256", "bpl.w 2b", "ldr r12, [sp, #4]", "sub r3, r3, r12"]
    lines += ["ldr r12, [sp]", "subs r12, #1", "str r12, [sp]", "bne.w 1b"]
    lines += ["ldr r3, [sp, #12]", "str r6, [r3, #12]", "add sp, #12", "pop {r3-r11, pc}"]
    lines += [line for _, part in body for line in part]
    comment = (
        f"Gradients through channel scales and a clamp, told from {'a mask' if clamp == 'mask' else clamp}.\n"
        f"r0 mantissas, r1 {clamp}, r2 result, r3 tp_scale_block. r4 half, r5 shift, r6 square of the peak."
    )
    text = assembly.listing(lines)
    return Routine(f"tp_scale_{clamp}_{loop}_dsp", text, comment, 4 * len(lines), "tp_scale_routine")


Part = tuple[list[str], list[str]]


def _mask(labels: Iterator[int]) -> list[Part]:
    """Eight elements, of a byte of the mask: bits i and i + 1 of it in bits i and i + 16 make two halves of ones."""
    parts = []
    for at in (0, 4):
        lines = ["ldrb r8, [r1], #1"] if at == 0 else []
        lines += ["ldr r9, [r0, #4]", "ldr r10, [r3, #4]", "ldr r11, [r0], #8", "ldr r12, [r3], #8"]
        lines += ["orr r8, r8, r8, lsl #15"] if at == 0 else []
        lines += [*_scaled("r11", "r12"), *_scaled("r9", "r10")]
        for register, bit in (("r11", at), ("r9", at + 2)):
            lines += [f"and lr, r7, r8, lsr #{bit}" if bit else "and lr, r7, r8", "rsb lr, lr, lr, lsl #16"]
            lines += [f"and {register}, {register}, lr"]
        parts.append(_put("r11", "r9", lines, labels))
    return parts


def _outputs(loop: int, labels: Iterator[int]) -> list[Part]:
    """Four elements at a time. Outputs less the first that passes, as upper bytes of halves, are below a limit."""
    parts = []
    for _ in range(0, loop, 4):
        lines = ["ldr r12, [r1], #4", "ldr r10, [r0], #4", "ldr r11, [r3], #4", "usub8 r12, r12, r7"]
        lines += [*_scaled("r10", "r11"), "lsl lr, r12, #8", "pkhbt lr, lr, r12, lsl #16", "usub16 lr, lr, r8"]
        lines += ["sel r10, r9, r10", "pkhtb r12, r12, r12, asr #8", "usub16 r12, r12, r8"]
        lines += ["ldr r11, [r0], #4", "ldr r12, [r3], #4", *_scaled("r11", "r12"), "sel r11, r9, r11"]
        parts.append(_put("r10", "r11", lines, labels))
    return parts


def _scaled(pair: str, multipliers: str) -> list[str]:
    """Two mantissas times two multipliers, narrowed."""
    lines = [f"smlabb lr, {pair}, {multipliers}, r4", f"smlatt {pair}, {pair}, {multipliers}, r4"]
    return [*lines, "asr lr, lr, r5", f"asr {pair}, {pair}, r5", f"pkhbt {pair}, lr, {pair}, lsl #16"]


def _put(first: str, second: str, lines: list[str], labels: Iterator[int]) -> Part:
    """`lines` and the store of two pairs; and, elsewhere, what raises r6, only if the sum of all squares is larger."""
    there, back = (next(labels) for _ in range(2))
    lines += [f"str {second}, [r2, #4]", f"str {first}, [r2], #8"]
    lines += [f"smuad lr, {second}, {second}", f"smlad lr, {first}, {first}, lr", "cmp lr, r6", f"bhi.w {there}f"]
    raised = [f"{there}:"]
    for register in (first, second):
        for halves in ("bb", "tt"):
            raised += [f"smul{halves} lr, {register}, {register}", "cmp lr, r6", "it gt", "movgt r6, lr"]
    return [*lines, f"{back}:"], [*raised, f"b.w {back}b"]

"""Assembly for Cortex-M4: accumulators of a block of channels start from what a LoRA adds at both positions of a pair.

A table in RAM has the channels of a block in this order: of its two pairs first the low one, then the high one.
With h the hidden values of a position, a channel's addend is a = round(B.h * factor / 2**32), factor = 2**(32 - shift).

    rank 1      of each channel B * 2**n, base      h * 2**m, so that n + m = 32 - shift: one instruction
    up to 4     of each channel words of two values of B, factor, base
    above       words of two values of B of all four channels, then their factors; bases are in the layer's words

Low accumulators start from base + a, the S of a pair from base + low + 256 * a.
"""

from __future__ import annotations

from tinypeft.kernels.dsp.dot import Start
from tinypeft.kernels.dsp.inputs import LEFT, STARTS

#: What a routine finds on the stack behind its other arguments: tp_lora_positions
_HIDDEN, _APART, _STEP, _SHIFT, _WORDS, _TABLE, _ROOM = 80, 84, 88, 92, 96, 100, 104
#: The highest rank whose hidden values stay in registers, and that there is code for
IN_REGISTERS, MOST = 4, 32


def lora_start(rank: int, below: bool) -> Start:
    """The code for a rank; `below`: pairs of positions are always whole."""
    loads = [f"ldr {register},[sp,#{_ROOM + 4 * i}]" for i, register in enumerate(_hidden(rank))]
    if rank > IN_REGISTERS:
        loads, begin = [f"ldr r10,[sp,#{_WORDS}]"], _begin_of_many(rank)
    else:
        begin = _begin_of_one() if rank == 1 else _begin(rank)
    lines = [*loads, f"ldr r0,[sp,#{_TABLE}]", *begin, f"str r0,[sp,#{_TABLE}]"]
    return Start(f"lora{rank}_", "tp_lora_dot_function", tuple(_pair(rank, below)), tuple(lines))


def table_bytes(rank: int, channels: int) -> int:
    """Of the table, and of what a higher rank needs for the hidden values of a pair of positions."""
    pairs = (rank + 1) // 2
    if rank > IN_REGISTERS:
        return 4 * channels * (pairs + 1) + 8 * pairs
    return 4 * channels * (2 if rank == 1 else pairs + 2)


def _hidden(rank: int) -> list[str]:
    """The registers of both positions' hidden values, in words of two."""
    return ["r10", "r11", "r12", "lr"] if rank > 2 else ["r10", "r11"]


def _pair(rank: int, below: bool) -> list[str]:
    """From the start of a pair of positions on: its hidden values to where blocks find them, the table's start."""
    lines = [f"ldr r0,[sp,#{_HIDDEN}]", f"ldr r10,[sp,#{_APART}]", f"ldr r11,[sp,#{STARTS}]", f"ldr r12,[sp,#{_STEP}]"]
    lines += [] if below else [f"ldr r2,[sp,#{LEFT}]", "cmp r2,#1", "it eq", "moveq r10,#0"]
    lines += ["add r12,r12,r0", f"str r12,[sp,#{_HIDDEN}]", f"str r11,[sp,#{_TABLE}]", "add r10,r10,r0"]
    if rank > IN_REGISTERS:
        lines += [f"ldr r11,[sp,#{_WORDS}]"]
        for i in range((rank + 1) // 2):
            lines += [_load("r2", "r0", i, rank), _load("r3", "r10", i, rank), "stm r11!,{r2,r3}"]
        return lines
    if rank == 1:
        lines += [f"ldr r11,[sp,#{_SHIFT}]", "ldrsh r2,[r0]", "ldrsh r3,[r10]", "lsl r2,r2,r11", "lsl r3,r3,r11"]
        words = ["r2", "r3"]
    else:
        words = ["r2", "r3"] if rank == 2 else ["r2", "r3", "r4", "r5"]
        for x, registers in (("r0", words[: len(words) // 2]), ("r10", words[len(words) // 2 :])):
            lines += [_load(register, x, i, rank) for i, register in enumerate(registers)]
    return [*lines, *(f"str {register},[sp,#{_ROOM + 4 * i}]" for i, register in enumerate(words))]


def _load(register: str, x: str, word: int, rank: int) -> str:
    """A word of hidden values; the last one of an odd rank, of which the high half meets a zero, without it."""
    return f"{'ldrsh' if 2 * word + 1 == rank else 'ldr'} {register},[{x},#{4 * word}]"


def _high(total: str, factor: str, base: str, low: str, result: str) -> list[str]:
    return [f"smmulr {total},{total},{factor}", f"add {result},{base},{total},lsl #8", f"add {result},{result},{low}"]


def _begin_of_one() -> list[str]:
    lines = ["ldm r0!,{r4,r5,r8,r9}"]
    lines += ["smmlar r3,r10,r4,r5", "smmlar r7,r11,r4,r5"]
    lines += ["smmulr r2,r10,r8", "add r2,r9,r2,lsl #8", "add r2,r2,r3"]
    lines += ["smmulr r6,r11,r8", "add r6,r9,r6,lsl #8", "add r6,r6,r7"]
    lines += ["ldm r0!,{r4,r8,r12,lr}", "smmlar r5,r10,r4,r8", "smmlar r9,r11,r4,r8"]
    lines += ["smmulr r4,r10,r12", "add r4,lr,r4,lsl #8", "add r4,r4,r5"]
    return [*lines, "smmulr r8,r11,r12", "add r8,lr,r8,lsl #8", "add r8,r8,r9"]


def _begin(rank: int) -> list[str]:
    """Ranks 2 to 4. There is just room: a pair's last totals lie over the hidden values."""
    registers, pairs = _hidden(rank), (rank + 1) // 2
    near, far = registers[:pairs], registers[pairs:]
    low = ["r4", "r5", "r8", "r9"][: pairs + 2]
    lines = [f"ldm r0!,{{{','.join(low)}}}"]
    for total, hidden in (("r3", near), ("r7", far)):
        lines += [*_products(total, hidden, low), f"smmlar {total},{total},{low[-2]},{low[-1]}"]
    lines += [f"ldm r0!,{{{','.join(low)}}}"]
    for total, hidden, below in (("r2", near, "r3"), ("r6", far, "r7")):
        lines += [*_products(total, hidden, low), *_high(total, low[-2], low[-1], below, total)]
    filters = ["r4", "r8"][:pairs]
    lines += [f"ldm r0!,{{{','.join(filters)}}}" if pairs > 1 else "ldr r4,[r0],#4"]
    lines += [*_products("r5", near, filters), *_products("r9", far, filters), "ldm r0!,{r4,r8}"]
    lines += ["smmlar r5,r5,r4,r8", "smmlar r9,r9,r4,r8"]
    lines += [f"ldm r0!,{{{','.join(filters)}}}" if pairs > 1 else "ldr r4,[r0],#4"]
    lines += [*_products(near[0], near, filters), *_products(far[0], far, filters)]
    factor, base = (near[1], far[1]) if pairs > 1 else ("r12", "lr")
    lines += [f"ldm r0!,{{{factor},{base}}}"]
    return [*lines, *_high(near[0], factor, base, "r5", "r4"), *_high(far[0], factor, base, "r9", "r8")]


def _products(total: str, hidden: list[str], filters: list[str]) -> list[str]:
    lines = [f"smuad {total},{hidden[0]},{filters[0]}"]
    return lines + [f"smlad {total},{h},{b},{total}" for h, b in zip(hidden[1:], filters[1:], strict=False)]


def _begin_of_many(rank: int) -> list[str]:
    """Any higher rank: r10 points to words of both positions' hidden values."""
    pairs = (rank + 1) // 2
    totals = ("r3", "r7"), ("r2", "r6"), ("r5", "r9"), ("r4", "r8")
    lines: list[str] = []
    for i in range(pairs):
        lines += [f"ldr r11,[r10,#{8 * i}]", f"ldr r12,[r10,#{8 * i + 4}]"]
        for channel, both in enumerate(totals):
            lines += [f"ldr lr,[r0,#{16 * i + 4 * channel}]"]
            for total, hidden in zip(both, ("r11", "r12"), strict=True):
                lines += [f"smlad {total},{hidden},lr,{total}" if i else f"smuad {total},{hidden},lr"]
    for channel, both in enumerate(totals):
        last = "!" if channel == 3 else ""
        lines += [f"ldr r11,[r0,#{16 * pairs + 4 * channel}]", f"ldr r12,[r1,#{4 * channel + 4}]{last}"]
        for total, low in zip(both, totals[channel - channel % 2], strict=True):
            lines += _high(total, "r11", "r12", low, total) if channel % 2 else [f"smmlar {total},{total},r11,r12"]
    return [*lines, f"add r0,r0,#{16 * (pairs + 1)}"]

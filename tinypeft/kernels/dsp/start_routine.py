"""Assembly for Cortex-M4: what accumulators of packed weights start from where a LoRA adds to them."""

from __future__ import annotations

from tinypeft.kernels.base import Routine
from tinypeft.kernels.dsp import assembly

#: The most pairs of hidden values of a position that stay in registers, and that there is a routine for
_IN_REGISTERS, MOST_PAIRS = 2, 16
_HIDDEN = ("r4", "r5"), ("r6", "r7")
_ACROSS = 36  # the argument on the stack


def start_routine(pairs: int, bits: int) -> Routine:
    """For `pairs` words of hidden values a position; addends are limited to `bits` bits.

    A block has of each pair of channels, high and low, entries of `pairs` words of B, a half and a shift; its starts
    are S and low of both pairs at the first position, then at the second.
    """
    lines = _lines(pairs, bits)
    comment = (
        f"Starts of two positions for a LoRA of {pairs} pairs of ranks, addends of {bits} bits.\n"
        "r0 starts without it, r1 entries of B, r2 starts, r3 hidden values, on the stack the number of blocks."
    )
    text = "\n".join(line if line.endswith(":") else f"  {line}" for line in lines)
    name = f"tp_lora_starts_{2 * pairs}_{bits}_dsp"
    return Routine(name, text, comment, assembly.size(lines), "tp_lora_start_routine")


def start_cycles(pairs: int, blocks: int) -> int:
    """Of a call."""
    lines = _lines(pairs, 20)
    head = 1 if pairs > _IN_REGISTERS else 2
    return assembly.cost(lines[:head]) + blocks * (assembly.cost(lines[head:-1]) + 2) + 10


def _lines(pairs: int, bits: int) -> list[str]:
    lines = ["push {r4-r11, lr}"]
    if pairs <= _IN_REGISTERS:
        lines.append(f"ldm r3, {{{', '.join(r for position in _HIDDEN for r in position[:pairs])}}}")
    else:
        lines.append("mov r7, r3")
    addend = _addend if pairs <= _IN_REGISTERS else _long_addend
    lines.append("1:")
    for pair in range(2):
        lines += [*addend(pairs, bits, ("r12", "lr")), *addend(pairs, bits, ("r3", "r8")), "ldm r0!, {r9, r10}"]
        lines += ["add r12, r9, r12, lsl #8", "add r12, r12, r3", "add r3, r10, r3"]
        lines += ["add lr, r9, lr, lsl #8", "add lr, lr, r8", "add r8, r10, r8"]
        lines += [f"str {r}, [r2, #{8 * pair + at}]" for r, at in (("r12", 0), ("r3", 4), ("lr", 16), ("r8", 20))]
    lines += ["adds r2, #32", f"ldr r9, [sp, #{_ACROSS}]", "subs r9, #1", f"str r9, [sp, #{_ACROSS}]", "bne.w 1b"]
    return [*lines, "pop {r4-r11, pc}"]


def _addend(pairs: int, bits: int, results: tuple[str, str]) -> list[str]:
    """An entry at r1 times the hidden values of both positions, shifted and limited; results[1] may be r8."""
    entry = [f"r{8 + i}" for i in range(pairs + 2)]
    lines = [f"ldm r1!, {{{', '.join(entry)}}}"]
    for result, hidden in zip(results, _HIDDEN, strict=True):
        total = entry[pairs]
        for i in range(pairs):
            lines.append(f"smlad {result}, {hidden[i]}, {entry[i]}, {total}")
            total = result
        lines += [f"asr {result}, {result}, {entry[pairs + 1]}", f"ssat {result}, #{bits}, {result}"]
    return lines


def _long_addend(pairs: int, bits: int, results: tuple[str, str]) -> list[str]:
    """The same with hidden values at r7."""
    first, second = results
    lines = [f"ldr {first}, [r1, #{4 * pairs}]", f"ldr r9, [r1, #{4 * pairs + 4}]", f"mov {second}, {first}"]
    for i in range(pairs):
        lines += [f"ldr r4, [r1, #{4 * i}]", f"ldr r5, [r7, #{4 * i}]", f"ldr r6, [r7, #{4 * (pairs + i)}]"]
        lines += [f"smlad {first}, r5, r4, {first}", f"smlad {second}, r6, r4, {second}"]
    lines.append(f"add r1, r1, #{4 * (pairs + 2)}")
    for result in results:
        lines += [f"asr {result}, {result}, r9", f"ssat {result}, #{bits}, {result}"]
    return lines

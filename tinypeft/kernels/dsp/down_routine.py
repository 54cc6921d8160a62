"""Assembly for Cortex-M4: four rows of a LoRA's A, widened, at two positions of int8 inputs."""

from __future__ import annotations

from tinypeft.kernels.base import Routine
from tinypeft.kernels.dsp import assembly

#: Bytes of a word's four rows; steps of a loop, and the most without one; bytes that a load reaches
_ROWS_BYTES, _UNROLL, _STRAIGHT, _REACH = 32, 4, 12, 4095
_ACCUMULATORS = ("r4", "r5", "r6", "r7"), ("r8", "r9", "r10", "r11")
_PROLOGUE = ["push {r2-r11, lr}", "sub sp, #4"]


def down_routine(lines: int, width: int, step: int, distance: int, rank: int) -> Routine:
    """hidden[p,j] of two positions `distance` bytes apart: `lines` of `width` inputs, a multiple of 4, `step` apart."""
    body = _body(lines, width, step, distance, rank)
    comment = (
        f"Four rows of A at two positions: {lines} lines of {width} inputs.\n"
        "r0 inputs, r1 rows of A, r2 hidden values, r3 what they start from (4) and their shift."
    )
    text = "\n".join(line if line.endswith(":") else f"  {line}" for line in body)
    name = f"tp_lora_down_{lines}x{width}_{step}_{distance}_r{rank}_dsp"
    return Routine(name, text, comment, assembly.size(body), "tp_lora_down_routine")


def down_cycles(lines: int, width: int) -> int:
    """Of a call."""
    words = lines * width // 4
    loops = 0 if words <= _STRAIGHT or lines > 1 else words // _unroll(words) * 9
    return 38 * words + loops + 85


def fits(lines: int, width: int, step: int, distance: int) -> bool:
    """Whether loads reach all inputs, with no more code than for a loop or a small window."""
    words = lines * width // 4
    reached = (lines - 1) * step + width + distance <= _REACH
    return reached and words * _ROWS_BYTES <= _REACH and (lines == 1 or words <= 2 * _STRAIGHT)


def _unroll(words: int) -> int:
    return words if words <= _STRAIGHT else max(n for n in range(1, _UNROLL + 1) if words % n == 0)


def _body(lines: int, width: int, step: int, distance: int, rank: int) -> list[str]:
    words = lines * width // 4
    unroll = words if lines > 1 else _unroll(words)
    body = [*_PROLOGUE, "ldm r3, {r4-r7}", *(f"mov r{i + 4}, r{i}" for i in range(4, 8))]
    if unroll < words:
        body += [f"mov r12, #{words // unroll}", "str r12, [sp]", "1:"]
    for word in range(unroll):
        line, column = divmod(word, width // 4)
        body += _word(line * step + 4 * column, distance, _ROWS_BYTES * word)
    if unroll < words:
        body += [f"add r0, r0, #{4 * unroll}", f"add r1, r1, #{_ROWS_BYTES * unroll}"]
        body += ["ldr r12, [sp]", "subs r12, #1", "str r12, [sp]", "bne.w 1b"]
    body += ["ldr r2, [sp, #4]", "ldr r12, [sp, #8]", "ldr r12, [r12, #16]"]
    for position, accumulators in enumerate(_ACCUMULATORS):
        body += [f"asr {a}, {a}, r12" for a in accumulators]
        for j in (0, 2):
            a, b = accumulators[j], accumulators[j + 1]
            at = 2 * (position * rank + j)
            body += [f"pkhbt {a}, {a}, {b}, lsl #16", f"str {a}, [r2, #{at}]"]
    return [*body, "add sp, #12", "pop {r4-r11, pc}"]


def _word(x: int, distance: int, rows: int) -> list[str]:
    """Four inputs of both positions."""
    lines = []
    for half, rotated in enumerate(("", ", ror #8")):
        lines += [f"ldr r3, [r0, #{x}]", f"ldr r12, [r0, #{x + distance}]"]
        lines += [f"sxtb16 r3, r3{rotated}", f"sxtb16 r12, r12{rotated}"]
        for j in (0, 2):
            lines += [f"ldr {row}, [r1, #{rows + 16 * half + 4 * (j + i)}]" for i, row in enumerate(("r2", "lr"))]
            for i, row in enumerate(("r2", "lr")):
                for value, accumulators in zip(("r3", "r12"), _ACCUMULATORS, strict=True):
                    lines.append(f"smlad {accumulators[j + i]}, {value}, {row}, {accumulators[j + i]}")
    return lines

"""FULLY_CONNECTED of the `dsp` backend: int8 inputs widened in registers, for four channels at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tinypeft.ir import Operation
from tinypeft.kernels.base import Kernel, Routine, Target
from tinypeft.kernels.dsp import assembly
from tinypeft.kernels.dsp.conv import pointwise_kernels, refusal
from tinypeft.kernels.dsp.packing import BLOCK, Layer, packed_or_plain, stream, widened_order
from tinypeft.ops.activation import output_range
from tinypeft.ops.base import CArray, CFunction, KernelCall
from tinypeft.ops.fully_connected import dense_window
from tinypeft.ops.window import Window

_PAIRS = (("r2", "r3"), ("r4", "r5"))
#: Slot of the argument on the stack
_STARTS = 52
#: Groups of four inputs in a row of code, of loops
_UNROLL = 8


def offers(op: Operation, target: Target) -> list[Kernel] | str:
    """One that reads inputs as they lie; over several rows also those of pointwise convolutions."""
    del target
    reason = refusal(op)
    if reason is not None:
        return reason
    layer = packed_or_plain(op)
    if isinstance(layer, str):
        return layer
    window = dense_window(op)
    several = pointwise_kernels(op, layer, window) if window.input_h > 1 else []
    return [*several, *_dense_kernels(op, layer, window)]


def _dense_kernels(op: Operation, layer: Layer, window: Window) -> list[Kernel]:
    words = stream(layer, widened_order(layer.filters.reshape(window.output_c, -1)))
    groups = window.input_c // 4
    kernels = []
    for unroll in sorted({min(_UNROLL, groups), groups if groups <= 4 * _UNROLL else _UNROLL}):
        routine, call_cycles, block_cycles = dense_routine(op, layer, window, unroll)
        fields = {
            "positions": window.input_h, "input_c": window.input_c, "output_c": window.output_c,
            "word_count": len(words), "words": CArray("int32_t", words, "words"), "dense": CFunction(routine.name),
        }  # fmt: skip
        name = "looped" if groups >= 2 * unroll > 0 else "straight"
        kernels.append(
            Kernel(
                backend="dsp",
                form=f"dense, {name}, 4 channels",
                call=KernelCall("tp_dense_dsp_s8", "tp_dense_dsp_params", fields, [op.inputs["input"], op.output]),
                sources=("dsp/tp_dense_dsp.c",),
                routines=(routine,),
                cycles=25 + window.input_h * (20 + call_cycles + -(-window.output_c // BLOCK) * block_cycles),
                code_bytes=routine.nbytes,
                table_bytes=words.nbytes,
                in_order=True,
            )
        )
    return kernels


def dense_routine(
    op: Operation, layer: Layer, window: Window, unroll: int, started: bool = False
) -> tuple[Routine, int, int]:
    """A tp_dense_function; the cycles of a call, and of a block of channels. `started`: see `dot_routine`."""
    form, activation = layer.requantize, output_range(op)
    prologue = ["sub r0,r0,#4", "sub r1,r1,#4", "push {r0-r11,lr}"]
    begin = ["2:", "ldr r0,[sp]"]
    if started:
        begin += [f"ldr r10,[sp,#{_STARTS}]", "ldm r10!,{r2-r5}", f"str r10,[sp,#{_STARTS}]"]
    else:
        begin += [f"ldr r{2 + i},[r1,#{4 * i + 4}]{'!' if i == 3 else ''}" for i in range(4)]
    products, cycles = _products(window.input_c, unroll, form.plain)
    finish = assembly.requantize(form, op.output.zero_point, [_PAIRS]) + assembly.clamp(["r3"], activation)
    finish += ["ldr lr,[sp,#8]", "ldr r11,[sp,#12]"]
    tail, channels = [], window.output_c % BLOCK
    if channels:
        finish += ["cmp r1,r11", "beq 8f"]
        tail = ["8:", *assembly.store_some(channels, "r3", "[lr]")]
    finish += ["str r3,[lr],#4", "str lr,[sp,#8]", *([] if channels else ["cmp r1,r11"]), "bne.w 2b"]
    epilogue = ["add sp,sp,#16", "pop {r4-r11,pc}"]
    ends = ["b 9f"] if channels and window.output_c > BLOCK else []
    lines = [*prologue, *begin, *products, *finish, *ends, *tail, "9:", *epilogue]
    text = assembly.listing(lines)
    digest = hashlib.sha256(text.encode()).hexdigest()[:6]
    name = assembly.form_name(form, op.output.zero_point, activation)
    comment = (
        f"Four channels of {window.input_c} inputs, widened on the way.\n"
        "r0 = inputs, r1 = words of the layer, r2 = output, r3 = the last of the words; on the stack where sums start."
    )
    routine = Routine(
        f"tp_dense_{'started_' if started else ''}{window.input_c}_u{unroll}_{name}_{digest}",
        text,
        comment,
        assembly.size(lines),
        "tp_dense_function",
    )
    call_cycles = assembly.cost(prologue) + assembly.cost(epilogue) + 2
    return routine, call_cycles, assembly.cost(begin) + cycles + assembly.cost(finish) + 2


def _products(count: int, unroll: int, plain: bool) -> tuple[list[str], int]:
    """All products of a block; r0 and r1 point to the words in front."""
    groups, left = divmod(count, 4)
    loops, rest = divmod(groups, unroll) if unroll else (0, 0)
    body, last = _groups(unroll, plain), _groups(rest, plain) + _left(left, plain)
    if loops < 2:
        return body * loops + last, loops * assembly.cost(body) + assembly.cost(last)
    begin, count_down = [f"mov r12,#{loops}", "3:"], ["subs r12,r12,#1", "bne.w 3b"]
    cycles = assembly.cost(begin) + loops * (assembly.cost(body) + 4) - 2 + assembly.cost(last)
    return [*begin, *body, *count_down, *last], cycles


def _groups(count: int, plain: bool) -> list[str]:
    """`count` groups of four inputs: 16 products in 19 instructions each."""
    most = 7 if plain else 15  # that a load with writeback gets past
    if count > most:
        return _groups(most, plain) + _groups(count - most, plain)
    lines: list[str] = []
    for i in range(count):
        last = "!" if i == count - 1 else ""
        first, second = assembly.word_places(2 * i, "", plain), assembly.word_places(2 * i + 1, last, plain)
        lines += [f"ldr r6,[r0,#{4 * i + 4}]{last}", *_loads(first if plain else first + second)]
        lines += ["sxtb16 r7,r6,ror #8", "sxtb16 r6,r6"]
        lines += _two("r6", ("r8", "r9"), plain)
        lines += [*_loads(second), *_two("r7", ("r8", "r9"), plain)] if plain else _two("r7", ("r10", "r11"), plain)
    return lines


def _loads(places: Sequence[str]) -> list[str]:
    """From r8 on."""
    return [f"ldr r{8 + i},{place}" for i, place in enumerate(places)]


def _two(x: str, words: Sequence[str], plain: bool) -> list[str]:
    """Two inputs times two pairs of channels, or times four in r8 to r11."""
    lines = [f"smlad {s},{x},{word},{s}" for (s, _), word in zip(_PAIRS, words, strict=True)]
    if plain:
        return lines + [f"smlad {low},{x},{word},{low}" for (_, low), word in zip(_PAIRS, ("r10", "r11"), strict=True)]
    lines += [f"sxtb16 {word},{word}" for word in words]
    return lines + [f"smlad {low},{x},{word},{low}" for (_, low), word in zip(_PAIRS, words, strict=True)]


def _left(count: int, plain: bool) -> list[str]:
    """One to three inputs at the end, of which nothing behind is read."""
    lines = [f"ldrsb r{6 + i},[r0,#{4 + i}]" for i in range(count)]
    if not count:
        return lines
    lines += ["pkhbt r6,r6,r7,lsl #16"] if count > 1 else ["uxth r6,r6"]
    lines += ["uxth r7,r8"] if count == 3 else []
    for x in ("r6", "r7") if count == 3 else ("r6",):
        lines += [*_loads(assembly.word_places(0, "!", plain)), *_two(x, ("r8", "r9"), plain)]
    return lines

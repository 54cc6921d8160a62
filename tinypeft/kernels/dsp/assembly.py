"""Pieces of Armv7E-M assembly that the generated routines share, and what straight lines of it cost on a Cortex-M4.

A piece is a list of lines. Registers r10, r11, r12 and lr are free in all of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tinypeft.kernels.dsp.requantize import Rounded, Stepped

#: A pair of channels at one position: the register of S = 256 * high + low, and that of low.
Pair = tuple[str, str]

#: The largest offset of a load, and the largest number that an instruction adds
REACH = 4095


def cost(lines: Sequence[str]) -> int:
    """Cycles on a Cortex-M4 of lines that run once, branches not taken.

    LDR 2, or 1 behind another LDR that does not feed its address; STR 1; LDM and STM 1 + registers; all else 1.
    """
    total, loaded = 0, ""
    for line in lines:
        if line.endswith(":"):
            continue
        mnemonic, _, operands = line.partition(" ")
        if mnemonic.startswith(("ldr", "ldrsb")) and mnemonic != "ldrd":
            base = operands[operands.index("[") + 1 :].split(",")[0].rstrip("]!")
            total += 1 if loaded and loaded != base else 2
            loaded = operands.split(",")[0]
            continue
        if mnemonic.startswith(("ldm", "stm", "push", "pop")):
            total += 1 + _registers(operands)
        elif mnemonic.startswith("str"):
            total += 2 if not loaded and re.search(r"\[\w+,r", operands) else 1
        else:
            total += 3 if mnemonic in ("ldrd", "strd") else 1
        loaded = ""
    return total


def listing(lines: Sequence[str]) -> str:
    """The lines as one text, instructions indented below their labels."""
    return "\n".join(line if line.endswith(":") else f"  {line}" for line in lines)


def constant(register: str, value: int) -> list[str]:
    """register = value, of up to 32 bits without a sign."""
    low = [f"movw {register}, #{value & 0xFFFF}"]
    return low if value < 1 << 16 else [*low, f"movt {register}, #{value >> 16}"]


def add(register: str, value: int, spare: str) -> list[str]:
    """register += value, by way of another register where it is large."""
    name, amount = ("add" if value >= 0 else "sub"), abs(value)
    if amount <= REACH:
        return [f"{name}w {register}, {register}, #{amount}"] if amount else []
    return [*constant(spare, amount), f"{name} {register}, {register}, {spare}"]


def size(lines: Sequence[str]) -> int:
    """Bytes of code, at most."""
    return sum(4 for line in lines if not line.endswith(":"))


def _registers(operands: str) -> int:
    count = 0
    for part in operands[operands.index("{") + 1 : operands.index("}")].split(","):
        first, _, last = part.partition("-")
        count += int(last[1:]) - int(first[1:]) + 1 if last else 1
    return count


def widened_step(
    x: Sequence[str], weights: Sequence[str], positions: Sequence[Sequence[Pair]], first: bool = False
) -> list[str]:
    """Two inputs of each of two positions times the weights of four channels: 16 products in 14 instructions.

    x: where the words of widened inputs lie, weights: those of the pairs, or four plain ones; positions[p][pair]:
    accumulators. `first`: those of the second position are not there yet and start from those of the first.
    """
    lines = [f"ldr r10,{x[0]}", f"ldr r11,{x[1]}", f"ldr r12,{weights[0]}", f"ldr lr,{weights[1]}"]
    for half in range(2):
        for pair, word in enumerate(("r12", "lr")):
            near, far = positions[0][pair][half], positions[1][pair][half]
            lines += [f"smlad {far},r11,{word},{near if first else far}", f"smlad {near},r10,{word},{near}"]
            lines += [f"sxtb16 {word},{word}"] if half == 0 and len(weights) == 2 else []
        lines += [f"ldr r12,{weights[2]}", f"ldr lr,{weights[3]}"] if half == 0 and len(weights) == 4 else []
    return lines


def word_places(step: int, last: str, plain: bool) -> list[str]:
    """Where the words of a step lie, of which r1 points to the one in front of all; `last`: "!" to move on with it."""
    count = 4 if plain else 2
    return [f"[r1,#{4 * (count * step + i + 1)}]{last if i == count - 1 else ''}" for i in range(count)]


def requantize(form: Stepped | Rounded, zero_point: int, positions: Sequence[Sequence[Pair]]) -> list[str]:
    """The accumulators of a block become one word of four outputs + 128 for each position, in low of its first pair.

    r1 points to the word in front of the constants, and then to the last of them.
    """
    lines: list[str] = []
    for pair in range(2):
        here = [pairs[pair] for pairs in positions]
        lines += _stepped(form, here) if isinstance(form, Stepped) else _rounded(form, zero_point, here)
    lines += [f"orr {first},{first},{second},lsl #8" for (_, first), (_, second) in positions]
    return lines


def _stepped(form: Stepped, pairs: Sequence[Pair]) -> list[str]:
    lines = ["ldr r10,[r1,#4]", "ldr r11,[r1,#8]"]
    lines += ["ldr r12,[r1,#12]", "ldr lr,[r1,#16]!"] if form.plain else ["ldr r12,[r1,#12]!"]
    for s, low in pairs:
        lines += [f"add {s},lr,{s},lsl #{form.low_shift}" if form.plain else f"sub {s},{s},{low}"]
        lines += [f"add {low},r12,{low},lsl #{form.low_shift}"]
        lines += [f"smmul {s},{s},r11", f"smmul {low},{low},r10"]
        lines += [f"pkhtb {low},{low},{s},asr #{form.high_shift}", f"usat16 {low},#8,{low}"]
    return lines


def _rounded(form: Rounded, zero_point: int, pairs: Sequence[Pair]) -> list[str]:
    lines = ["ldr r10,[r1,#4]", "ldr r11,[r1,#8]", "ldr r12,[r1,#12]", "ldr lr,[r1,#16]!"]
    for s, low in pairs:
        lines += [] if form.plain else [f"sub {s},{s},{low}", f"asr {s},{s},#{8 if form.once else 7}"]
        if form.once:
            lines += [f"smmul {low},{low},r10", f"smmul {s},{s},r12"]
        else:
            lines += [f"lsl {s},{s},#1"] if form.plain else []
            lines += [f"lsl {low},{low},#1", f"smmulr {low},{low},r10", f"smmulr {s},{s},r12"]
        if form.away:
            lines += [f"add {low},{low},{low},asr #31", f"add {s},{s},{s},asr #31"]
        lines += [f"asrs {low},{low},r11", f"adc {low},{low},#{zero_point + 128}"]
        lines += [f"asrs {s},{s},lr", f"adc {s},{s},#{zero_point + 128}"]
        if form.wide:
            lines += [f"usat {low},#8,{low}", f"usat {s},#8,{s}", f"orr {low},{s},{low},lsl #16"]
        else:
            lines += [f"pkhbt {low},{s},{low},lsl #16", f"usat16 {low},#8,{low}"]
    return lines


def clamp(words: Sequence[str], activation: tuple[int, int]) -> list[str]:
    """Words of outputs + 128 to int8 within the activation's range."""
    lines: list[str] = []
    low, high = activation[0] + 128, activation[1] + 128
    if low > 0:
        lines.append(f"mov r10,#{low * 0x01010101}")
        for word in words:
            lines += [f"usub8 r11,{word},r10", f"sel {word},{word},r10"]
    if high < 255:
        lines.append(f"mov r10,#{high * 0x01010101}")
        for word in words:
            lines += [f"usub8 r11,r10,{word}", f"sel {word},{word},r10"]
    return lines + [f"eor {word},{word},#0x80808080" for word in words]


def store_some(count: int, word: str, address: str) -> list[str]:
    """The first 1 to 3 bytes of a word, which is lost."""
    if count == 1:
        return [f"strb {word},{address}"]
    base, _, offset = address[1:-1].partition(",")
    lines = [f"strh {word},[{base}]"] if not offset else [f"add {base},{base},{offset}", f"strh {word},[{base}]"]
    if count == 3:
        lines += [f"lsr {word},{word},#16", f"strb {word},[{base},#2]"]
    return lines if not offset else [*lines, f"sub {base},{base},{offset}"]


def form_name(form: Stepped | Rounded, zero_point: int, activation: tuple[int, int]) -> str:
    """A part of a routine's name that tells its requantisation and its clamp."""
    if isinstance(form, Stepped):
        name = f"s{form.low_shift}_{form.high_shift}"
    else:
        name = f"r{'o' * form.once}{'a' * form.away}{'w' * form.wide}{zero_point + 128}"
    name += "_plain" if form.plain else ""
    return name + ("" if activation == (-128, 127) else f"_c{activation[0] + 128}_{activation[1] + 128}")

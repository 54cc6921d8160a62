"""Where the generated routine of convolutions finds the inputs of two positions at a time, and its products of them.

    Int8Positions      int8 inputs of positions one behind the other, widened by the routine itself
    WidenedPositions   widened inputs of two positions as alternating words
    RingRows           widened rows at pointers of their own, the second position further on in the same rows
    FlatRows           widened rows one behind the other, the second position anywhere at a constant distance

A routine keeps what does not fit registers in its frame, at the offsets below: counters, its arguments r0 to r3 as they
came, and those on the stack. r0 points to the word in front of the next inputs but for FlatRows, r1 to that in front of
the layer's next word.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tinypeft.kernels.dsp import assembly

LOOPS, SECOND, ROW = 0, 4, 8
X, WORDS, OUTPUT, LEFT = 12, 16, 20, 24
OUTPUT_C, LAST, STARTS, SCRATCH = 64, 68, 72, 76

#: S and low of both pairs of channels, of both positions
POSITIONS = ((("r2", "r3"), ("r4", "r5")), (("r6", "r7"), ("r8", "r9")))
#: The second position's accumulators start as the first's
COPIES = [f"mov r{i + 4},r{i}" for i in range(2, 6)]
#: The most bytes that a load with writeback gets past
_WRITEBACK_BYTES = 255

#: (lines, cycles of a Cortex-M4)
Code = tuple[list[str], int]


class Inputs:
    """Inputs of pairs of positions.

    name    part of the routine's name
    ctype   its C type
    second  slot of the bytes from the first position's outputs to the second's
    looped  whether products begin with a loop, in front of which the second position's accumulators must be there
    plain   whether weights are
    """

    name: str = ""
    ctype: str = "tp_dot_function"
    second: int = SECOND
    looped: bool = False
    plain: bool = False

    def prologue(self) -> list[str]:
        """Behind the saving of registers."""
        return []

    def pair(self) -> Code:
        """From the start of a pair of positions to its first block of channels."""
        lines = [f"ldr r10,[sp,#{LEFT}]", f"ldr r11,[sp,#{OUTPUT_C}]", f"ldr r1,[sp,#{WORDS}]"]
        lines += ["cmp r10,#1", "it eq", "moveq r11,#0", f"str r11,[sp,#{SECOND}]"]
        return lines, assembly.cost(lines)

    def block(self, kept: bool = True) -> list[str]:
        """What a block of channels begins with, its first words being loaded next; `kept`: whether r0 still is."""
        del kept
        return []

    def products(self, first: bool) -> Code:
        """All of a block; `first`: the second position's accumulators start from those of the first."""
        raise NotImplementedError

    def next_pair(self) -> list[str]:
        """From the last block of a pair on to the next: the positions that are left are counted in r12."""
        lines = [f"ldr r10,[sp,#{OUTPUT}]", f"ldr r11,[sp,#{SECOND}]", f"ldr r12,[sp,#{LEFT}]"]
        lines += ["add r10,r10,r11", f"str r10,[sp,#{OUTPUT}]", *self.advance()]
        return [*lines, "subs r12,r12,#2", f"str r12,[sp,#{LEFT}]"]

    def advance(self) -> list[str]:
        """The inputs of the next pair."""
        return []


@dataclass(frozen=True)
class _Alternating(Inputs):
    """`steps` words of each position, in loops of `unroll` where they are twice as many."""

    steps: int
    unroll: int

    def products(self, first: bool) -> Code:
        return _segment(self.steps, self.unroll, _alternating, self.plain, first)


@dataclass(frozen=True)
class WidenedPositions(_Alternating):
    """Pairs of positions one behind the other, their words alternating."""

    plain: bool = False

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{2 * self.steps}_u{self.unroll}"

    def prologue(self) -> list[str]:
        return [f"ldr r12,[sp,#{X}]", "sub r12,r12,#4", f"str r12,[sp,#{X}]"]

    def block(self, kept: bool = True) -> list[str]:
        del kept
        return [f"ldr r0,[sp,#{X}]"]

    def advance(self) -> list[str]:
        return [f"str r0,[sp,#{X}]"]


@dataclass(frozen=True)
class Int8Positions(_Alternating):
    """`input_c` inputs of a position; scratch has room for two, widened."""

    input_c: int
    plain: bool = False

    ctype = "tp_pointwise_function"

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"int8_{self.input_c}_u{self.unroll}"

    def prologue(self) -> list[str]:
        return [f"ldr r12,[sp,#{SCRATCH}]", "sub r12,r12,#4", f"str r12,[sp,#{SCRATCH}]"]

    def pair(self) -> Code:
        lines = [f"ldr r10,[sp,#{LEFT}]", f"ldr r11,[sp,#{OUTPUT_C}]", f"ldr r1,[sp,#{WORDS}]"]
        lines += [f"ldr r0,[sp,#{SCRATCH}]", f"ldr lr,[sp,#{X}]", f"add r12,lr,#{self.input_c}", "add r0,r0,#4"]
        lines += ["cmp r10,#1", "itt eq", "moveq r11,#0", "moveq r12,lr", f"str r11,[sp,#{SECOND}]"]
        widened, cycles = _widened_pair(self.input_c)
        return [*lines, *widened, f"str r12,[sp,#{X}]"], assembly.cost(lines) + cycles + 1

    def block(self, kept: bool = True) -> list[str]:
        del kept
        return [f"ldr r0,[sp,#{SCRATCH}]"]


@dataclass(frozen=True)
class RingRows(Inputs):
    """`rows` segments of `steps` pairs of inputs; x is the array of pointers to the words in front of them.

    row_loop  whether the code of a segment is there once
    distance  bytes from a position's inputs to those of the next
    """

    rows: int
    steps: int
    unroll: int
    row_loop: bool
    distance: int
    plain: bool = False

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{self.rows}{'l' if self.row_loop else ''}x{2 * self.steps}_u{self.unroll}"

    @property
    def looped(self) -> bool:  # type: ignore[override]
        return self.row_loop

    def products(self, first: bool) -> Code:
        unaligned = _unaligned(self.rows * self.steps, self.distance)
        segment, cycles = _segment(self.steps, self.unroll, self._words, self.plain, first=False)
        if self.row_loop:
            begin = [f"ldr r10,[sp,#{X}]", f"str r10,[sp,#{ROW}]"]
            head = ["7:", f"ldr r10,[sp,#{ROW}]", "ldr r0,[r10],#4", f"str r10,[sp,#{ROW}]"]
            foot = [f"ldr r10,[sp,#{ROW}]", f"ldr r11,[sp,#{X}]", f"add r11,r11,#{4 * self.rows}", "cmp r10,r11"]
            foot.append("bne.w 7b")
            each = assembly.cost(head) + cycles + assembly.cost(foot) + 2
            return [*begin, *head, *segment, *foot], assembly.cost(begin) + self.rows * each + unaligned
        lines, total = list[str](), unaligned
        for row in range(self.rows):
            pointer = [f"ldr r10,[sp,#{X}]", f"ldr r0,[r10,#{4 * row}]"]
            part = (segment, cycles)
            if row == 0:
                part = _segment(self.steps, self.unroll, self._words, self.plain, first)
            lines += [*pointer, *part[0]]
            total += assembly.cost(pointer) + part[1]
        return lines, total

    def _words(self, step: int, last: str) -> tuple[str, str]:
        return f"[r0,#{4 * step + 4}]{last}", f"[r0,#{4 * step + 4 + self.distance}]"

    def advance(self) -> list[str]:
        lines = [f"ldr lr,[sp,#{X}]"]
        for row in range(self.rows):
            lines += [f"ldr r0,[lr,#{4 * row}]", f"add r0,r0,#{2 * self.distance}", f"str r0,[lr,#{4 * row}]"]
        return lines


@dataclass(frozen=True)
class FlatRows(Inputs):
    """Segments of `steps` pairs of inputs at the offsets `segments`, all in line; r0 stays while a pair is computed.

    distance  bytes from a position's inputs to those of the second
    advance_  bytes from a pair's inputs to those of the next
    below     whether the second position is in the output's next row: then the argument output_c says how far, and
              positions count pairs
    """

    segments: tuple[int, ...]
    steps: int
    distance: int
    advance_: int
    below: bool
    plain: bool = False

    @property
    def name(self) -> str:  # type: ignore[override]
        return f"{'below' if self.below else 'flat'}_{len(self.segments)}x{2 * self.steps}"

    @property
    def second(self) -> int:  # type: ignore[override]
        return OUTPUT_C if self.below else SECOND

    def pair(self) -> Code:
        lines, cycles = ([f"ldr r1,[sp,#{WORDS}]"], 2) if self.below else super().pair()
        return [*lines, f"ldr r0,[sp,#{X}]"], cycles + 2

    def block(self, kept: bool = True) -> list[str]:
        return [] if kept else [f"ldr r0,[sp,#{X}]"]

    def products(self, first: bool) -> Code:
        lines: list[str] = []
        offsets = [at + 4 * step for at in self.segments for step in range(self.steps)]
        for i, at in enumerate(offsets):
            place = i % _writeback_steps(self.plain)
            last = "!" if place == _writeback_steps(self.plain) - 1 or i == len(offsets) - 1 else ""
            weights = assembly.word_places(place, last, self.plain)
            x = f"[r0,#{at}]", f"[r0,#{at + self.distance}]"
            lines += assembly.widened_step(x, weights, POSITIONS, first and i == 0)
        return lines, assembly.cost(lines) + _unaligned(len(offsets), self.distance)

    def next_pair(self) -> list[str]:
        if not self.below:
            return super().next_pair()
        return [f"ldr r12,[sp,#{LEFT}]", *self.advance(), "subs r12,r12,#1", f"str r12,[sp,#{LEFT}]"]

    def advance(self) -> list[str]:
        return [f"add r0,r0,#{self.advance_}", f"str r0,[sp,#{X}]"]


def _unaligned(steps: int, distance: int) -> int:
    """Cycles of a block for words at odd halfwords: those of one position of two."""
    return steps if distance % 4 else 0


def _alternating(step: int, last: str) -> tuple[str, str]:
    return f"[r0,#{8 * step + 4}]", f"[r0,#{8 * step + 8}]{last}"


def _writeback_steps(plain: bool) -> int:
    return _WRITEBACK_BYTES // (16 if plain else 8)


def _segment(steps: int, unroll: int, words: Callable[[int, str], tuple[str, str]], plain: bool, first: bool) -> Code:
    """The products of `steps` pairs of inputs, r0 and r1 moving on; what a loop does not divide comes in front of it.

    words(step, "!" of the last or ""): where the words of both positions lie.
    """
    loops, left = divmod(steps, unroll)
    if loops < 2:
        lines = _steps(steps, words, plain, first)
        return lines, assembly.cost(lines)
    rest, body = _steps(left, words, plain, first), _steps(unroll, words, plain, first=False)
    begin = [*(COPIES if first and not left else []), f"mov r10,#{loops}", f"str r10,[sp,#{LOOPS}]", "3:"]
    count = [f"ldr r10,[sp,#{LOOPS}]", "subs r10,r10,#1", f"str r10,[sp,#{LOOPS}]", "bne.w 3b"]
    cycles = assembly.cost(rest) + assembly.cost(begin) + loops * (assembly.cost(body) + assembly.cost(count) + 2)
    return [*rest, *begin, *body, *count], cycles


def _steps(count: int, words: Callable[[int, str], tuple[str, str]], plain: bool, first: bool) -> list[str]:
    most = _writeback_steps(plain)
    if count > most:
        return _steps(most, words, plain, first) + _steps(count - most, words, plain, first=False)
    lines: list[str] = []
    for i in range(count):
        last = "!" if i == count - 1 else ""
        weights = assembly.word_places(i, last, plain)
        step = assembly.widened_step(words(i, last), weights, POSITIONS, first and i == 0)
        if step[0].endswith("!"):  # r0 may only move on when the second position has been read as well
            step[:2] = step[1::-1]
        lines += step
    return lines


def _widened_pair(count: int) -> Code:
    """Two positions' `count` int8 inputs, at lr and r12, as alternating words at r0; all three move on."""
    eights, left = divmod(count, 8)
    body = ["ldr r6,[lr],#4", "ldr r7,[r12],#4", "ldr r8,[lr],#4", "ldr r9,[r12],#4"]
    body += ["sxtb16 r2,r6", "sxtb16 r3,r7", "sxtb16 r4,r6,ror #8", "sxtb16 r5,r7,ror #8"]
    body += ["sxtb16 r6,r8", "sxtb16 r7,r9", "sxtb16 r8,r8,ror #8", "sxtb16 r9,r9,ror #8", "stm r0!,{r2-r9}"]
    rest: list[str] = []
    if left >= 4:
        rest += ["ldr r4,[lr],#4", "ldr r5,[r12],#4", "sxtb16 r2,r4", "sxtb16 r3,r5"]
        rest += ["sxtb16 r4,r4,ror #8", "sxtb16 r5,r5,ror #8", "stm r0!,{r2-r5}"]
    few = left % 4
    rest += [f"ldrsb r{2 + 2 * i + p},[{x}],#1" for i in range(few) for p, x in enumerate(("lr", "r12"))]
    if few > 1:
        rest += ["pkhbt r2,r2,r4,lsl #16", "pkhbt r3,r3,r5,lsl #16"]
    elif few:
        rest += ["uxth r2,r2", "uxth r3,r3"]
    rest += ["uxth r4,r6", "uxth r5,r7"] if few == 3 else []
    rest += ["stm r0!,{r2-r5}" if few == 3 else "stm r0!,{r2,r3}"] if few else []
    cycles = assembly.cost(body) * eights + assembly.cost(rest)
    if eights <= 2:
        return body * eights + rest, cycles
    loop = [f"mov r11,#{eights}", "4:", *body, "subs r11,r11,#1", "bne 4b"]
    return [*loop, *rest], cycles + 1 + 4 * eights

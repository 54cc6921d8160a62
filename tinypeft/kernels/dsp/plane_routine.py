"""Assembly for Cortex-M4: a 3x3 filter over rows of one channel's plane of mantissas, narrowed to mantissas again."""

from __future__ import annotations

from tinypeft.kernels.base import Routine

TAPS = 3
_REACH = 4095
#: cycles of two positions, of one alone, of what is around a row
_TWO_CYCLES, _ONE_CYCLES, _ROW_CYCLES = 27, 19, 9
#: pairs of positions in a row of code: of a loop, and the most without one
_UNROLL, _STRAIGHT = 4, 6


def plane_width(width: int) -> int:
    """Elements of a plane's row for `width` results: two are computed together, of four elements of each row."""
    return width + width % 2 + TAPS - 1


def plane_routine(width: int, stride: int) -> Routine:
    """result[y*width + x] = (half + sum plane[y+i,x+j] * taps[i,j]) >> shift; results lie `stride` elements apart."""
    steps = width // 2
    unroll = min(steps if steps <= _STRAIGHT else _UNROLL, (_REACH // stride - 2) // 4 + 1)
    loops, rest = divmod(steps, unroll) if steps else (0, 0)
    lines = ["push {r3-r11, lr}", "sub sp, #8", "ldr r10, [r3]", "ldr r11, [r3, #4]", "ldr r12, [r3, #8]"]
    lines += ["str r12, [sp]", "ldm r2, {r4-r9}", "1:"]
    if loops > 1:
        lines += [f"movw r12, #{loops}", "str r12, [sp, #4]", "2:"]
    if loops:
        lines += _steps(width, stride, unroll)
    if loops > 1:
        lines += ["ldr r12, [sp, #4]", "subs r12, #1", "str r12, [sp, #4]", "bne.w 2b"]
    if rest:
        lines += _steps(width, stride, rest)
    if width % 2:
        lines += [*_one(width, 0), *_store("r12", 0), *_add("r1", 2 * stride)]
    lines += [*_add("r0", 2 * (plane_width(width) - width // 2 * 2)), "ldr r12, [sp]", "subs r12, #1", "str r12, [sp]"]
    lines += ["bne.w 1b", "add sp, #8", "pop {r3-r11, pc}"]
    comment = (
        f"A 3x3 filter over rows of {plane_width(width)} mantissas, {width} results each, {stride} elements apart.\n"
        "r0 plane, r1 result, r2 taps (two words a row), r3 tp_plane_block. r4-r9 taps, r10 half, r11 shift."
    )
    text = "\n".join(line if line.endswith(":") else f"  {line}" for line in lines)
    return Routine(f"tp_plane_3x3_{width}x{stride}_dsp", text, comment, 4 * len(lines), "tp_plane_routine")


def plane_cycles(width: int) -> int:
    """Cycles of a row."""
    return width // 2 * _TWO_CYCLES + width % 2 * _ONE_CYCLES + _ROW_CYCLES + (width // 16 * 7)


def fits(width: int, stride: int) -> bool:
    """Whether offsets reach what the routine touches."""
    return 2 * plane_width(width) * TAPS <= _REACH and 2 * stride <= _REACH


def _steps(width: int, stride: int, count: int) -> list[str]:
    """`count` times two results; moves both pointers on."""
    lines: list[str] = []
    for step in range(count):
        lines += [*_two(width, 4 * step), *_store("r12", 4 * step * stride), *_store("lr", (4 * step + 2) * stride)]
    return [*lines, *_add("r1", 4 * count * stride), *_add("r0", 4 * count)]


def _two(width: int, at: int) -> list[str]:
    """The accumulators r12 and lr of two positions."""
    lines = []
    for row in range(TAPS):
        offset, (first, second) = at + 2 * row * plane_width(width), _taps(row)
        start = ("r10", "r10") if row == 0 else ("r12", "lr")
        lines += [f"ldr r2, [r0, #{offset}]", f"ldr r3, [r0, #{offset + 4}]"]
        lines += [f"smlatb lr, r2, {first}, {start[1]}", f"smlad r12, r2, {first}, {start[0]}"]
        lines += [f"smlabt r12, r3, {second}, r12", f"smlad lr, r3, {second}, lr"]
    return [*lines, "asr r12, r12, r11", "asr lr, lr, r11"]


def _one(width: int, at: int) -> list[str]:
    """The accumulator r12 of one position."""
    lines = []
    for row in range(TAPS):
        offset, (first, second) = at + 2 * row * plane_width(width), _taps(row)
        lines += [f"ldr r2, [r0, #{offset}]", f"ldrsh r3, [r0, #{offset + 4}]"]
        lines += [f"smlad r12, r2, {first}, {'r10' if row == 0 else 'r12'}", f"smlabt r12, r3, {second}, r12"]
    return [*lines, "asr r12, r12, r11"]


def _taps(row: int) -> tuple[str, str]:
    """The registers of taps (0,1) and (1,2) of a row."""
    return f"r{4 + 2 * row}", f"r{5 + 2 * row}"


def _store(register: str, offset: int) -> list[str]:
    return [f"strh {register}, [r1, #{offset}]"]


def _add(register: str, value: int) -> list[str]:
    if value <= _REACH:
        return [f"addw {register}, {register}, #{value}"]
    return [f"movw r12, #{value}", f"add {register}, {register}, r12"]

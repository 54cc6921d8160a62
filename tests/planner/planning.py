"""What the planner's tests share: random problems, and an optimum and a check of their own."""

from __future__ import annotations

import itertools
import random

from hypothesis import strategies as st

from tinypeft.planner import Buffer, Plan

OPERATIONS = 12


@st.composite
def instances(draw: st.DrawFn, most: int, longest: int = 6) -> list[Buffer]:
    """Up to `most` buffers in a schedule of twelve operations."""
    buffers = []
    for number in range(draw(st.integers(1, most))):
        first = draw(st.integers(0, OPERATIONS - 1))
        last = draw(st.integers(first, min(OPERATIONS - 1, first + longest)))
        buffers.append(Buffer(f"b{number}", 4 * draw(st.integers(1, 40)), first, last))
    return buffers


def faults(plan: Plan) -> list[str]:
    """What is wrong with a plan, found operation by operation and byte by byte."""
    found = []
    end = max((b.last for b in plan.buffers), default=0)
    for time in range(end + 1):
        taken: dict[int, str] = {}
        for buffer, offset in zip(plan.buffers, plan.offsets, strict=True):
            if not buffer.first <= time <= buffer.last:
                continue
            for word in range(offset, offset + buffer.size, 4):
                if word in taken:
                    found.append(f"{buffer.name} and {taken[word]} at {time}")
                    break
                taken[word] = buffer.name
        if taken and (min(taken) < 0 or max(taken) + 4 > plan.arena_bytes):
            found.append(f"outside at {time}")
    return found


def optimum(buffers: list[Buffer], pinned: dict[str, int]) -> int:
    """The smallest arena there is: first fit in some order gives it, so try every order."""
    best = 1 << 30
    for order in itertools.permutations(b for b in buffers if b.name not in pinned):
        placed = [(b, pinned[b.name]) for b in buffers if b.name in pinned]
        for buffer in order:
            rivals = [
                (o, o + other.size) for other, o in placed if other.first <= buffer.last and buffer.first <= other.last
            ]
            places = sorted({0, *(end for _, end in rivals)})
            fitting = (p for p in places if all(p >= end or p + buffer.size <= start for start, end in rivals))
            placed.append((buffer, next(fitting)))
            if placed[-1][1] + buffer.size >= best:
                break
        else:
            best = max(offset + b.size for b, offset in placed)
    return best


def fits(buffers: list[Buffer], arena: int) -> bool:
    """Whether an arena of that many bytes holds them: every offset of every buffer is tried, by start of life."""
    order = sorted(buffers, key=lambda b: (b.first, -b.last))
    placed: list[tuple[Buffer, int]] = []

    def place(number: int) -> bool:
        if number == len(order):
            return True
        buffer = order[number]
        rivals = [(o, o + other.size) for other, o in placed if other.overlaps(buffer)]
        for offset in range(0, arena - buffer.size + 1, 4):
            if all(offset >= end or offset + buffer.size <= start for start, end in rivals):
                placed.append((buffer, offset))
                if place(number + 1):
                    return True
                placed.pop()
        return False

    return place(0)


@st.composite
def crowded(draw: st.DrawFn, most: int) -> list[Buffer]:
    """Up to `most` buffers, filling a limit of what may be live at once; now and then no arena of that holds them."""
    chooser = random.Random(draw(st.integers(0, 10**6)))
    times, limit = chooser.randrange(5, 9), chooser.randrange(5, 11)
    live = [0] * times
    buffers: list[Buffer] = []
    for _ in range(60):
        first = chooser.randrange(times)
        last = min(times - 1, first + chooser.randrange(4))
        room = limit - max(live[first : last + 1])
        if room and len(buffers) < most:
            size = chooser.randint(1, min(room, 4))
            live[first : last + 1] = [used + size for used in live[first : last + 1]]
            buffers.append(Buffer(f"b{len(buffers)}", 4 * size, first, last))
    return buffers


def tight(rooms: int, count: int, seed: int) -> list[Buffer]:
    """`count` buffers that fill an arena of `rooms` times 40 bytes without a gap: a rectangle, cut again and again."""
    chooser = random.Random(seed)
    pieces = [(0, 10 * rooms, 0, 4 * rooms)]  # granules from, to, operations from, to
    while len(pieces) < count:
        chosen = max(range(len(pieces)), key=lambda i: (_area(pieces[i]) - 1) * chooser.random())
        low, high, first, last = pieces.pop(chosen)
        across = high - low > 1 and (last - first < 2 or chooser.random() < 0.6)
        if across:
            cut = chooser.randrange(low + 1, high)
            pieces += [(low, cut, first, last), (cut, high, first, last)]
        else:
            cut = chooser.randrange(first + 1, last)
            pieces += [(low, high, first, cut), (low, high, cut, last)]
    chooser.shuffle(pieces)
    return [Buffer(f"b{i}", 4 * (h - lo), f, la - 1) for i, (lo, h, f, la) in enumerate(pieces)]


def _area(piece: tuple[int, int, int, int]) -> int:
    return (piece[1] - piece[0]) * (piece[3] - piece[2])

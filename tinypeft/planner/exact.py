"""The exact search: depth first over canonical placements, for one capacity. `native` has it in C.

Buffers stack up from below. Every section of time has a floor, under which nothing more can come. Where a floor is
level under all buffers that could come next in some section, the search branches: one of them lies on the floor, or
none does and the floor rises to where the next could lie at the earliest. That reaches every packing in which each
buffer lies on the ground or on another one, each of them once, and if there is a packing, there is one of these.

A branch ends where some section's floor and what is still to come there exceed the capacity. What shares no section
any more is solved on its own. Of buffers with one lifetime only one order is tried, where both fit alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from tinypeft.planner.packing import FREE, Packing

_PLACED = 1 << 60
_STOP_INTERVAL = 64


class Rule(Enum):
    """Which section to branch on: the least of what is named, in this order."""

    FEWEST_OPTIONS = 0  # options, floor
    LOWEST = 1  # floor, options
    TIGHTEST = 2  # room to spare, options
    FORCED_THEN_LOWEST = 3  # more than one option, floor, options


class Verdict(Enum):
    """What a search has shown."""

    FOUND = "found"
    IMPOSSIBLE = "impossible"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Outcome:
    """`offsets` in granules where a packing was found; `nodes` is how many placements and risen floors were tried."""

    verdict: Verdict
    offsets: list[int]
    nodes: int


@dataclass
class _Component:
    """Sections that buffers not yet placed link, and those buffers in order of time."""

    low: int
    high: int
    buffers: list[int]


@dataclass
class _Choice:
    """A branching: what is left to try at a section of a component, and how things stood before.

    `options` are buffers, the next one last; `rise` is the floor if none of them lies there, or 0. `parts` are the
    components that remain to be solved under the option taken.
    """

    component: _Component
    section: int
    options: list[int]
    rise: int
    saved: tuple[list[int], list[int], list[int], list[int]]
    parts: list[_Component]


class _Search:
    def __init__(self, packing: Packing, capacity: int, rank: Sequence[int], rule: Rule):
        self.packing, self.capacity, self.rank, self.rule = packing, capacity, rank, rule
        sections = len(packing.totals)
        self.floor = [0] * sections  # nothing more can lie below it
        self.top = [0] * sections  # the end of what lies there
        self.total = list(packing.totals)  # what is still to come
        self.least = [max(pin, 0) for pin in packing.pins]  # the lowest offset left; _PLACED for those that lie
        self.offsets = [FREE] * len(packing.sizes)
        self.twins = self._twins()

    def _twins(self) -> list[list[int]]:
        """By buffer, the others of its sections that may change places with it."""
        spans: dict[tuple[int, int], list[int]] = {}
        for i, (a, b) in enumerate(zip(self.packing.first, self.packing.last, strict=True)):
            if self.packing.pins[i] == FREE:
                spans.setdefault((a, b), []).append(i)
        twins: list[list[int]] = [[] for _ in self.packing.sizes]
        for group in spans.values():
            for i in group:
                twins[i] = [j for j in group if j != i]
        return twins

    def run(self, limit: int, stop: Callable[[], bool]) -> Outcome:
        packing = self.packing
        fits = all(low + size <= self.capacity for low, size in zip(self.least, packing.sizes, strict=True))
        if not fits or not self._settle(0, len(self.floor) - 1):
            return Outcome(Verdict.IMPOSSIBLE, [], 0)
        everything = _Component(0, len(self.floor) - 1, list(packing.order))
        choices = [_Choice(everything, 0, [], 0, self._save(), self._components(everything))]
        nodes, failed = 0, False
        while choices:
            choice = choices[-1]
            if not failed:
                if not choice.parts:
                    choices.pop()
                    continue
                following = self._branch(choice.parts.pop())
                if following is None:
                    self._restore(choice)
                else:
                    choices.append(following)
                failed = following is None
                choice = choices[-1]
            if not choice.options and not choice.rise:
                choices.pop()
                if choices:
                    self._restore(choices[-1])
                failed = True
                continue
            nodes += 1
            if nodes > limit or (nodes % _STOP_INTERVAL == 0 and stop()):
                return Outcome(Verdict.UNDECIDED, [], nodes)
            failed = not self._take(choice)
            if failed:
                self._restore(choice)
        return Outcome(Verdict.IMPOSSIBLE if failed else Verdict.FOUND, [] if failed else list(self.offsets), nodes)

    def _save(self) -> tuple[list[int], list[int], list[int], list[int]]:
        return self.floor[:], self.top[:], self.total[:], self.least[:]

    def _restore(self, choice: _Choice) -> None:
        self.floor[:], self.top[:], self.total[:], self.least[:] = choice.saved

    def _components(self, component: _Component) -> list[_Component]:
        """What of a component is still linked; a buffer that nothing else can meet lies as low as it can."""
        first, last, least = self.packing.first, self.packing.last, self.least
        parts: list[_Component] = []
        for i in component.buffers:
            if least[i] == _PLACED:
                continue
            if parts and first[i] <= parts[-1].high:
                parts[-1].buffers.append(i)
                parts[-1].high = max(parts[-1].high, last[i])
            else:
                parts.append(_Component(first[i], last[i], [i]))
        for part in parts:
            if len(part.buffers) == 1:
                self.offsets[part.buffers[0]] = least[part.buffers[0]]
        return [part for part in parts if len(part.buffers) > 1]

    def _branch(self, component: _Component) -> _Choice | None:
        """Where to branch in a component, and into what; None where nothing can lie there."""
        packing, floor, least = self.packing, self.floor, self.least
        first, last = packing.first, packing.last
        start = component.low
        change = [0] * (component.high - start + 2)
        level = set()
        for i in component.buffers:
            if min(floor[first[i] : last[i] + 1]) == least[i]:
                level.add(i)
                change[first[i] - start] += 1
                change[last[i] + 1 - start] -= 1
        keys = []
        count = 0
        for section in range(start, component.high + 1):
            count += change[section - start]
            if count:
                keys.append((self._key(section, count), section, count))
        keys.sort()
        for _, section, count in keys:
            height = floor[section]
            here = [i for i in packing.members[section] if least[i] == height]
            if len(here) == count:  # else something could lie at this height that is not level yet
                break
        options = [i for i in here if self._allowed(i, height)]
        options.sort(key=self.rank.__getitem__, reverse=True)
        pinned = any(packing.pins[i] != FREE for i in here)
        rise = 0 if pinned or not self._room(section) else self._next_floor(section)
        if rise + self.total[section] > self.capacity:
            rise = 0
        if not options and not rise:
            return None
        return _Choice(component, section, options, rise, self._save(), [])

    def _room(self, section: int) -> int:
        return self.capacity - self.floor[section] - self.total[section]

    def _key(self, section: int, count: int) -> tuple[int, int]:
        options = count + (self._room(section) > 0)
        if self.rule is Rule.FEWEST_OPTIONS:
            return options, self.floor[section]
        if self.rule is Rule.LOWEST:
            return self.floor[section], options
        if self.rule is Rule.TIGHTEST:
            return self._room(section), options
        return (0, self.floor[section]) if options == 1 else (1 + self.floor[section], options)

    def _allowed(self, i: int, height: int) -> bool:
        """Whether buffer i may lie at `height`: on the ground or another buffer, and not in a twin's place."""
        packing, rank = self.packing, self.rank
        if packing.pins[i] != FREE:
            return True
        if height not in self.top[packing.first[i] : packing.last[i] + 1]:
            return False
        for j in self.twins[i]:
            if rank[j] < rank[i]:
                if self.least[j] != _PLACED and packing.sizes[j] == packing.sizes[i]:
                    return False
            elif self.least[j] == _PLACED and self.offsets[j] + packing.sizes[j] == height:
                return False
        return True

    def _next_floor(self, section: int) -> int:
        """The lowest offset at which something can lie in a section that stays empty at its floor."""
        packing, least, height = self.packing, self.least, self.floor[section]
        lowest = _PLACED
        for i in packing.members[section]:
            if least[i] > height:
                lowest = min(lowest, least[i])
                continue
            for j in packing.neighbours[i]:  # on top of one that is still to come, beside the section
                if not packing.first[j] <= section <= packing.last[j]:
                    lowest = min(lowest, least[j] + packing.sizes[j])
        return lowest

    def _take(self, choice: _Choice) -> bool:
        """Take the next option of a choice; False where it leads nowhere."""
        packing, component = self.packing, choice.component
        if not choice.options:
            rise, choice.rise = choice.rise, 0
            choice.parts = [component]
            self.floor[choice.section] = rise
            return self._lift(packing.members[choice.section], rise, choice.section, choice.section)
        i = choice.options.pop()
        end = self.least[i] + packing.sizes[i]
        low, high = packing.first[i], packing.last[i]
        self.offsets[i], self.least[i] = self.least[i], _PLACED
        for section in range(low, high + 1):
            self.floor[section] = self.top[section] = end
            self.total[section] -= packing.sizes[i]
        if not self._lift(packing.neighbours[i], end, low, high):
            return False
        choice.parts = self._components(component)
        return True

    def _lift(self, buffers: Sequence[int], height: int, low: int, high: int) -> bool:
        """Lift `buffers` to at least `height`, and floors with them; sections `low` to `high` have changed too."""
        packing, least = self.packing, self.least
        for i in buffers:
            if least[i] < height:
                if packing.pins[i] != FREE or height + packing.sizes[i] > self.capacity:
                    return False
                least[i] = height
                low = min(low, packing.first[i])
                high = max(high, packing.last[i])
        return self._settle(low, high)

    def _settle(self, low: int, high: int) -> bool:
        """Raise the floors of sections to where something can lie; False where a section can't hold all of its own."""
        floor, total, least = self.floor, self.total, self.least
        for section in range(low, high + 1):
            if total[section]:
                lowest = min(map(least.__getitem__, self.packing.members[section]))
                if lowest > floor[section]:
                    floor[section] = lowest
                if floor[section] + total[section] > self.capacity:
                    return False
        return True


def search(
    packing: Packing,
    capacity: int,
    rank: Sequence[int],
    rule: Rule,
    limit: int,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Search a packing of at most `capacity` granules, trying buffers in the order of their `rank`, least first.

    Ends undecided after `limit` nodes, or when `stop`, which is asked now and then, says so. The packing has buffers.
    """
    return _Search(packing, capacity, rank, rule).run(limit, stop)

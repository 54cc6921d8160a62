"""What an order of operations costs, without placing anything: a graph in, bytes live at each step out.

The bytes are a lower limit of what `live_buffers` gives for the same order: views and concatenations hold no bytes of
their own, and each result overlays as much of its dying operands as it may.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinypeft.ir import Graph, Operation, Tensor
from tinypeft.planner.content import Contents, pieces_of, view_of
from tinypeft.planner.sharing import aligned


@dataclass(frozen=True)
class Atom:
    """Bytes that are computed by one operation and then live until the last of their readers has run."""

    size: int
    readers: int
    kept: bool


@dataclass(frozen=True)
class Step:
    """An operation by its atoms: what it reads, makes, may overwrite; sets of operations are bit masks."""

    before: int
    after: tuple[int, ...]
    reads: tuple[int, ...]
    makes: int
    unread: int
    overwrites: frozenset[int]
    distance: int
    scratch: int


class OrderModel:
    """The operations of a graph as steps; `ready` and `start_bytes` are those before the first."""

    def __init__(self, graph: Graph):
        self.graph = graph
        before = dependencies(graph)
        after: list[list[int]] = [[] for _ in before]
        for index, earlier in enumerate(before):
            for i in earlier:
                after[i].append(index)
        self.atoms, made, of = _atoms(graph)
        self.steps = []
        for index, op in enumerate(graph.operations):
            reads = dict.fromkeys(a for t in op.inputs.values() for a in of.get(id(t), ()))
            own = [self.atoms[a] for a in made.get(index, ())]
            overwrites, distance = _overwrites(op, of)
            self.steps.append(
                Step(
                    sum(1 << i for i in before[index]),
                    tuple(after[index]),
                    tuple(reads),
                    sum(atom.size for atom in own),
                    sum(atom.size for atom in own if not atom.readers and not atom.kept),
                    overwrites,
                    distance,
                    aligned(op.scratch_bytes),
                )
            )
        self.made = made
        inputs = [self.atoms[a] for a in made.get(-1, ())]
        self.start_bytes = sum(atom.size for atom in inputs if atom.readers or atom.kept)
        self.ready = sum(1 << i for i, step in enumerate(self.steps) if not step.before)
        self.all = (1 << len(self.steps)) - 1

    def run(self, index: int, done: int, live: int) -> tuple[int, int]:
        """(bytes live while the operation runs, behind it), where `done` have run and left `live`."""
        step = self.steps[index]
        remaining = ~(done | 1 << index)
        dying = overwritten = 0
        for a in step.reads:
            atom = self.atoms[a]
            if not atom.kept and not atom.readers & remaining:
                dying += atom.size
                if a in step.overwrites:
                    overwritten += atom.size
        new = max(step.makes - overwritten, min(step.distance, step.makes))
        return live + new + step.scratch, live + step.makes - step.unread - dying

    def newly_ready(self, index: int, done: int) -> int:
        """The operations that `index`, the last of `done`, was what they waited for."""
        return sum(1 << i for i in self.steps[index].after if not self.steps[i].before & ~done)

    def bound(self) -> int:
        """Bytes that no order can do with less of: at each operation, what must have been made and is still read."""
        count = len(self.steps)
        above, below = [0] * count, [0] * count
        for i, step in enumerate(self.steps):
            for j in bits(step.before):
                above[i] |= above[j] | 1 << j
        for i in reversed(range(count)):
            for j in self.steps[i].after:
                below[i] |= below[j] | 1 << j
        highest = self.start_bytes
        for i, step in enumerate(self.steps):
            live = overwritten = 0
            mine = set(step.reads)
            for maker, atoms in self.made.items():
                if maker >= 0 and not above[i] >> maker & 1:
                    continue
                for a in atoms:
                    atom = self.atoms[a]
                    stays = atom.kept or bool(atom.readers & below[i])
                    if stays or a in mine:
                        live += atom.size
                        overwritten += atom.size if a in step.overwrites and not stays else 0
            new = max(step.makes - overwritten, min(step.distance, step.makes))
            highest = max(highest, live + new + step.scratch)
        return highest


def dependencies(graph: Graph) -> list[set[int]]:
    """For each operation the indices of those that must run before it; persistent tensors keep reads and writes."""
    before: list[set[int]] = [set() for _ in graph.operations]
    producer: dict[int, int] = {}
    readers: dict[int, list[int]] = {}
    for index, op in enumerate(graph.operations):
        for tensor in op.inputs.values():
            if id(tensor) in producer:
                before[index].add(producer[id(tensor)])
            readers.setdefault(id(tensor), []).append(index)
        for tensor in op.outputs.values():
            if tensor.persistent:  # written in place: after every earlier reader and writer
                before[index].update(i for i in readers.get(id(tensor), []) if i != index)
                if id(tensor) in producer:
                    before[index].add(producer[id(tensor)])
            producer[id(tensor)] = index
    return before


def bits(mask: int) -> list[int]:
    """The positions of the bits that are set, lowest first."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found


def _atoms(graph: Graph) -> tuple[list[Atom], dict[int, list[int]], dict[int, tuple[int, ...]]]:
    """(atoms; operation, -1 for the graph's inputs -> atoms it makes; id of a tensor -> atoms it is made of)."""
    contents = Contents(graph)
    tensors = [t for t in graph.tensors() if t.in_arena and t.data is None]
    cuts: dict[int, set[int]] = {}
    for tensor in tensors:
        for s in contents[tensor]:
            cuts.setdefault(id(s.source), set()).update((s.source_start, s.source_start + s.size))
    mixed = _mixed(graph, cuts)
    maker = {id(t): -1 for t in graph.inputs}
    maker |= {id(t): index for index, op in enumerate(graph.operations) for t in op.outputs.values()}
    numbers: dict[tuple[int, int], int] = {}
    sizes: list[int] = []
    made: dict[int, list[int]] = {}
    for tensor in tensors:
        places = sorted(cuts.get(id(tensor), ()))
        for start, end in zip(places, places[1:], strict=False):
            if any(s.source is tensor and s.source_start <= start < s.source_start + s.size for s in contents[tensor]):
                made.setdefault(maker[id(tensor)], []).append(len(sizes))
                numbers[id(tensor), start] = len(sizes)
                sizes.append(end - start if id(tensor) in mixed else aligned(end - start))
    of = {id(t): _made_of(t, contents, cuts, numbers) for t in tensors}
    readers = [0] * len(sizes)
    for index, op in enumerate(graph.operations):
        for tensor in op.inputs.values():
            for a in of.get(id(tensor), ()):
                readers[a] |= 1 << index
    kept = {a for t in graph.outputs for a in of.get(id(t), ())}
    return [Atom(size, readers[a], a in kept) for a, size in enumerate(sizes)], made, of


def _mixed(graph: Graph, cuts: dict[int, set[int]]) -> set[int]:
    """The tensors that might share a buffer with another while both are live, so that one rounding serves both."""
    parent: dict[int, int] = {}

    def root(key: int) -> int:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    several: set[int] = set()
    for op in graph.operations:
        view, pieces = view_of(op), [piece for piece, _ in pieces_of(op)]
        takers = [op.inputs[name] for operands in op.in_place.values() for name in operands]
        takers += [op.inputs[name] for name in op.behind]
        for tensor in [*takers, *pieces, *([view[0]] if view else [])]:
            for output in op.outputs.values():
                parent[root(id(tensor))] = root(id(output))
        if pieces:
            several.add(id(op.output))
    several |= {id(t) for t in graph.tensors() if not cuts.get(id(t), set()) <= {0, t.nbytes}}
    found = {root(key) for key in several}
    return {id(t) for t in graph.tensors() if root(id(t)) in found}


def _made_of(
    tensor: Tensor, contents: Contents, cuts: dict[int, set[int]], numbers: dict[tuple[int, int], int]
) -> tuple[int, ...]:
    found = []
    for s in contents[tensor]:
        starts = (c for c in sorted(cuts[id(s.source)]) if s.source_start <= c < s.source_start + s.size)
        found += [numbers[id(s.source), start] for start in starts]
    return tuple(found)


def _overwrites(op: Operation, of: dict[int, tuple[int, ...]]) -> tuple[frozenset[int], int]:
    """(atoms that the results may overlay, bytes of a result that remain beside them in any case)."""
    takers = {name for operands in op.in_place.values() for name in operands}
    behind = op.behind
    atoms = {a for name in {*takers, *behind} for a in of.get(id(op.inputs[name]), ())}
    only_behind = len(behind) == 1 and not takers
    return frozenset(atoms), next(iter(behind.values())) if only_behind and atoms else 0

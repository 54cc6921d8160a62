"""The operators of a graph as a drawing: the forward pass from left to right, what belongs to a layer below it."""

from __future__ import annotations

from dataclasses import dataclass

from tinypeft.analysis.report import GraphFacts, OperationFacts

NODE_WIDTH, NODE_HEIGHT, COLUMN_GAP, ROW_GAP, MARGIN = 184, 46, 36, 18, 16
_TITLE_CHARACTERS, _SUBTITLE_CHARACTERS = 22, 23


@dataclass(frozen=True)
class Node:
    """An operation; `tip` are the lines that hovering shows."""

    index: int
    x: float
    y: float
    phase: str
    title: str
    subtitle: str
    tip: str


@dataclass(frozen=True)
class Edge:
    """A tensor from the operation that computes it to one that reads it; `path` is SVG's `d`, `kind` the tensor's."""

    source: int
    target: int
    path: str
    kind: str


@dataclass(frozen=True)
class Diagram:
    """The whole drawing, in SVG units."""

    width: float
    height: float
    node_width: float
    node_height: float
    nodes: list[Node]
    edges: list[Edge]


def diagram(graph: GraphFacts) -> Diagram:
    """The drawing of `graph`."""
    links = _links(graph)
    places = _places(graph, links)
    positions = {
        index: (MARGIN + column * (NODE_WIDTH + COLUMN_GAP), MARGIN + row * (NODE_HEIGHT + ROW_GAP))
        for index, (column, row) in places.items()
    }
    nodes = [
        Node(op.index, *positions[op.index], op.phase, _title(op), _subtitle(op), _tip(op)) for op in graph.operations
    ]
    edges = [Edge(a, b, _path(positions[a], positions[b]), kind) for (a, b), kind in links.items()]
    columns = max((column for column, _ in places.values()), default=0) + 1
    lowest = max((y for _, y in positions.values()), default=0)
    width = 2 * MARGIN + columns * (NODE_WIDTH + COLUMN_GAP) - COLUMN_GAP
    return Diagram(width, lowest + NODE_HEIGHT + MARGIN, NODE_WIDTH, NODE_HEIGHT, nodes, edges)


def _links(graph: GraphFacts) -> dict[tuple[int, int], str]:
    """(producer, reader) -> forward, gradient or kept: what the backward pass reads of the forward pass."""
    producer: dict[str, OperationFacts] = {}
    links: dict[tuple[int, int], str] = {}
    for op in graph.operations:
        for name in op.inputs:
            source = producer.get(name)
            if source is None:
                continue
            behind = op.phase in ("backward", "update")
            kind = "forward" if not behind else "gradient" if source.phase not in ("forward", "recompute") else "kept"
            links.setdefault((source.index, op.index), kind)
        producer |= dict.fromkeys(op.outputs, op)
    return links


def _places(graph: GraphFacts, links: dict[tuple[int, int], str]) -> dict[int, tuple[int, int]]:
    """Operation -> (column, row). A column is a step of the forward pass's longest path, with what belongs to it."""
    sources: dict[int, list[int]] = {op.index: [] for op in graph.operations}
    for a, b in links:
        sources[b].append(a)
    places: dict[int, tuple[int, int]] = {}
    taken: set[tuple[int, int]] = set()

    def put(op: OperationFacts, column: int, row: int) -> None:
        while (column, row) in taken:
            row += 1
        places[op.index] = (column, row)
        taken.add((column, row))

    path = [op for op in graph.operations if op.phase in ("forward", "loss") and op.result.dtype != "bits"]
    for op in path:
        before = [places[a] for a in sources[op.index] if a in places]
        put(op, max((column + 1 for column, _ in before), default=0), before[0][1] if len(before) == 1 else 0)
    of_layer = {op.layer: places[op.index][0] for op in sorted(path, key=lambda op: op.macs) if op.layer}
    for op in graph.operations:
        if op.index not in places:
            known = [places[a][0] for a in sources[op.index] if a in places]
            put(op, of_layer.get(op.layer, known[-1] if known else 0), 1 if path else 0)
    return places


def _path(source: tuple[float, float], target: tuple[float, float]) -> str:
    """A curve from node to node; one that passes others in its row goes around below them."""
    (ax, ay), (bx, by) = source, target
    middle = NODE_HEIGHT / 2
    if ax == bx:
        start, end, side = (ax + 0.0, ay + middle), (bx + 0.0, by + middle), ax - COLUMN_GAP * 0.6
        if abs(by - ay) <= NODE_HEIGHT + ROW_GAP:
            return f"M{ax + NODE_WIDTH / 2:g} {max(ay, by) - ROW_GAP:g}V{max(ay, by):g}"
        return f"M{start[0]:g} {start[1]:g}C{side:g} {start[1]:g} {side:g} {end[1]:g} {end[0]:g} {end[1]:g}"
    if bx < ax:
        start, end, bend = (ax, ay + middle), (bx + NODE_WIDTH, by + middle), -COLUMN_GAP
    else:
        start, end, bend = (ax + NODE_WIDTH, ay + middle), (bx, by + middle), COLUMN_GAP
    far = abs(bx - ax) > NODE_WIDTH + COLUMN_GAP
    dip = NODE_HEIGHT / 2 + ROW_GAP * 0.8 if far and ay == by else 0
    if dip:
        return (
            f"M{start[0]:g} {start[1]:g}C{start[0] + bend:g} {start[1]:g} {start[0]:g} {start[1] + dip:g} "
            f"{start[0] + bend:g} {start[1] + dip:g}L{end[0] - bend:g} {end[1] + dip:g}"
            f"C{end[0]:g} {end[1] + dip:g} {end[0] - bend:g} {end[1]:g} {end[0]:g} {end[1]:g}"
        )
    return (
        f"M{start[0]:g} {start[1]:g}"
        f"C{start[0] + bend:g} {start[1]:g} {end[0] - bend:g} {end[1]:g} {end[0]:g} {end[1]:g}"
    )


def _title(op: OperationFacts) -> str:
    return _short(op.name, _TITLE_CHARACTERS)


def _subtitle(op: OperationFacts) -> str:
    shape = "×".join(map(str, op.result.shape)) or "1"
    return _short(op.kind, _SUBTITLE_CHARACTERS - len(shape) - 1) + f" {shape}"


def _tip(op: OperationFacts) -> str:
    shape = " × ".join(map(str, op.result.shape)) or "one"
    kernel = f"{op.kernel.function}: {op.kernel.reason}" if op.kernel.function else op.kernel.reason
    return "\n".join(
        [
            f"op {op.index} {op.name}",
            f"{op.kind}, {op.phase}" + (f", layer {op.layer}" if op.layer and op.layer != op.name else ""),
            f"gives {shape} {op.result.dtype}",
            f"{op.macs:,} MACs, {op.weight_bytes:,} B of weights, {op.activation_bytes:,} B of results",
            kernel,
        ]
    )


def _short(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"

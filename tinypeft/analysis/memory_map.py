"""The memory map of a graph as a drawing: time (operations) to the right, addresses upwards; all in SVG units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinypeft.analysis.report import ArenaPart, BufferFacts, GraphFacts

LEFT, RIGHT, TOP, BOTTOM = 64, 16, 34, 46
PLOT_WIDTH, PLOT_HEIGHT = 1060, 380
#: Narrowest column that can still be pointed at; wider graphs scroll
LEAST_COLUMN = 7
_CHARACTER, _LABEL_HEIGHT = 6.3, 14
_MOST_TICKS = 8


@dataclass(frozen=True)
class Rectangle:
    """One buffer. `label` is what of its name fits inside; `tip` the lines that hovering shows."""

    x: float
    y: float
    width: float
    height: float
    purpose: str
    label: str
    at_peak: bool
    tip: str


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    position: float
    text: str


@dataclass(frozen=True)
class Cell:
    """An operation on the time axis."""

    x: float
    width: float
    phase: str
    tip: str


@dataclass(frozen=True)
class MemoryMap:
    """The whole drawing. `peak_x`, `peak_width` mark the operation with the most live bytes, `bound_y` how many."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    rectangles: list[Rectangle]
    addresses: list[Tick]
    times: list[Tick]
    cells: list[Cell]
    borders: list[Tick]
    peak_x: float
    peak_width: float
    peak_text: str
    peak_anchor: str
    bound_y: float
    bound_text: str


def memory_map(graph: GraphFacts, parts: Sequence[ArenaPart]) -> MemoryMap | None:
    """The map of `graph`; None where it keeps nothing in the arena. `parts` are the arena's, for their borders."""
    if graph.peak is None:
        return None
    count = len(graph.operations)
    column = max(PLOT_WIDTH / count, LEAST_COLUMN)
    top_address = max(graph.arena_bytes, 1)
    right, bottom = LEFT + column * count, TOP + PLOT_HEIGHT

    def x(time: int) -> float:
        return round(LEFT + column * min(time, count), 2)

    def y(address: int) -> float:
        return round(bottom - PLOT_HEIGHT * address / top_address, 2)

    rectangles = []
    for buffer in graph.buffers:
        left, width = x(buffer.first), round(x(buffer.last + 1) - x(buffer.first), 2)
        upper, height = y(buffer.offset + buffer.bytes), round(y(buffer.offset) - y(buffer.offset + buffer.bytes), 2)
        label = _label(buffer.name, width, height)
        live = buffer.name in graph.peak.live
        rectangles.append(Rectangle(left, upper, width, height, buffer.purpose, label, live, _tip(buffer, graph)))
    every = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if step * column >= 24)
    centre = x(graph.peak.index) + column / 2
    return MemoryMap(
        width=round(right + RIGHT, 2),
        height=bottom + BOTTOM,
        left=LEFT,
        right=round(right, 2),
        top=TOP,
        bottom=bottom,
        rectangles=rectangles,
        addresses=[Tick(y(address), _bytes(address)) for address in _round_addresses(top_address)],
        times=[Tick(round(x(i) + column / 2, 2), str(i)) for i in range(0, count, every)],
        cells=[
            Cell(x(op.index), round(column, 2), op.phase, f"op {op.index} {op.name}\n{op.kind}, {op.phase}")
            for op in graph.operations
        ],
        borders=[Tick(y(p.start), p.memory) for p in parts if 0 < p.start < graph.arena_bytes],
        peak_x=x(graph.peak.index),
        peak_width=round(column, 2),
        peak_text=f"peak: op {graph.peak.index} {graph.peak.operation}, {graph.peak.bytes:,} B live",
        peak_anchor="start" if centre < LEFT + 200 else "end" if centre > right - 200 else "middle",
        bound_y=y(graph.lower_bound),
        bound_text=f"lower bound {graph.lower_bound:,} B",
    )


def lifetime(buffer: BufferFacts, graph: GraphFacts) -> tuple[str, str]:
    """(since, until) of a buffer as operations with their names."""
    operations = graph.operations
    ends = "the end" if buffer.last >= len(operations) else f"op {buffer.last} {operations[buffer.last].name}"
    return f"op {buffer.first} {operations[buffer.first].name}", ends


def _tip(buffer: BufferFacts, graph: GraphFacts) -> str:
    since, until = lifetime(buffer, graph)
    lines = [
        buffer.name,
        f"{buffer.bytes:,} B of {buffer.purpose}",
        f"address {buffer.offset:,} to {buffer.offset + buffer.bytes:,} of {buffer.memory}",
        f"from {since}",
        f"to {until}",
    ]
    for tensor in buffer.tensors:
        shape = " × ".join(map(str, tensor.shape)) or "one"
        place = f" at {tensor.offset:,}" if tensor.offset > buffer.offset else ""
        lines.append(f"holds {tensor.name}: {shape} {tensor.dtype}, {tensor.bytes:,} B{place}")
    return "\n".join(lines)


def _label(name: str, width: float, height: float) -> str:
    characters = int((width - 8) / _CHARACTER)
    if height < _LABEL_HEIGHT or characters < 7:
        return ""
    return name if len(name) <= characters else name[: characters - 1] + "…"


def _round_addresses(top: int) -> list[int]:
    step = 4
    while top // step >= _MOST_TICKS:
        step *= 2
    return list(range(0, top + 1, step))


def _bytes(size: int) -> str:
    return f"{size // 1024:,} KB" if size and size % 1024 == 0 else f"{size:,} B"

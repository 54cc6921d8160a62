"""An analysis as one self-contained HTML page: every number and coordinate is made here, the template only formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tinypeft.analysis.diagram import Diagram, diagram
from tinypeft.analysis.memory_map import MemoryMap, lifetime, memory_map
from tinypeft.analysis.operations import PHASES
from tinypeft.analysis.report import Analysis, BufferFacts, GraphFacts, MemoryUse, OperationFacts, TensorFacts
from tinypeft.analysis.wording import PHASE_TITLES, basis_note, described, proof, scope
from tinypeft.files import write_file
from tinypeft.resources import template

_PURPOSES = ("activation", "gradient", "mask", "scratch")


@dataclass(frozen=True)
class Card:
    """A figure at the top of the page."""

    label: str
    value: str
    unit: str
    note: str


@dataclass(frozen=True)
class Bar:
    """A memory of the board; `percent` may be above 100, `width` is what is drawn."""

    name: str
    text: str
    percent: str
    width: float
    full: bool


@dataclass(frozen=True)
class Cost:
    """A number with the length of its bar, in per cent of the largest of its column."""

    text: str
    width: float


@dataclass(frozen=True)
class CostRow:
    """An operation in the table of costs."""

    operation: OperationFacts
    title: str
    shape: str
    macs: Cost
    weights: Cost
    activations: Cost


@dataclass(frozen=True)
class LiveRow:
    """A buffer in a table: how large, what for, from when to when."""

    buffer: BufferFacts
    since: str
    until: str


@dataclass(frozen=True)
class Tab:
    """One graph of the page."""

    graph: GraphFacts
    title: str
    subtitle: str
    proof: str
    map: MemoryMap
    purposes: list[str]
    phases: list[str]
    groups: list[tuple[str, list[CostRow]]]
    live: list[LiveRow]
    buffers: list[LiveRow]
    diagram: Diagram


def render_page(analysis: Analysis) -> str:
    """The page; the same analysis gives the same text."""
    tabs = [tab for graph in analysis.graphs if (tab := _tab(analysis, graph)) is not None]
    return template("report/analysis.html.j2").render(
        analysis=analysis,
        configuration=described(analysis.configuration),
        input=_shape(analysis.model.input),
        output=_shape(analysis.model.output),
        cards=_cards(analysis),
        bars=[_bar(memory) for memory in analysis.board.memories] if analysis.board else [],
        usages=[("RAM", analysis.memory.ram), ("Flash", analysis.memory.flash)],
        basis_note=basis_note(analysis.memory),
        tabs=tabs,
        phase_titles=PHASE_TITLES,
    )


def write_page(path: Path | str, analysis: Analysis) -> None:
    """Write the page to the file `path`, or on any failure nothing. Raises OutputError."""
    write_file(path, render_page(analysis))


def _cards(analysis: Analysis) -> list[Card]:
    totals, memory = analysis.totals, analysis.memory
    cards = [
        Card("RAM", f"{memory.ram.bytes:,}", "B", memory.ram.basis),
        Card("Flash", f"{memory.flash.bytes:,}", "B", memory.flash.basis),
        Card("Arena", f"{totals.arena_bytes:,}", "B", _arena_note(totals.arena_bytes, totals.arena_bound)),
        Card("Inference", f"{totals.macs:,}", "MACs", f"{totals.base_parameters:,} parameters"),
    ]
    if totals.training_macs:
        share = totals.trainable_parameters / totals.base_parameters
        trained = f"{totals.trainable_parameters:,} parameters, {share:.1%}"
        cards += [
            Card("Training step", f"{totals.training_macs:,}", "MACs", trained),
            Card("Adapter package", f"{totals.package_bytes:,}", "B", f"{totals.optimizer_bytes:,} B to train it"),
        ]
    return cards


def _arena_note(arena: int, bound: int) -> str:
    return "optimal (proved)" if arena == bound else f"{arena - bound:,} B above the bound"


def _bar(memory: MemoryUse) -> Bar:
    share = memory.used / memory.bytes
    title = {"ram": "RAM", "flash": "flash"}[memory.kind]
    name = title if memory.name == memory.kind else f"{title} {memory.name}"
    text = f"{memory.used:,} of {memory.bytes:,} B, {memory.basis}"
    return Bar(name, text, f"{share:.1%}", round(min(share, 1) * 100, 2), share > 1)


def _tab(analysis: Analysis, graph: GraphFacts) -> Tab | None:
    drawn = memory_map(graph, analysis.memory.arena)
    if drawn is None or graph.peak is None:
        return None
    phases = [phase for phase in PHASES if any(op.phase == phase for op in graph.operations)]
    live = [_live(b, graph) for b in graph.buffers if b.name in graph.peak.live]
    return Tab(
        graph,
        graph.name.capitalize(),
        scope(graph),
        proof(graph),
        drawn,
        [purpose for purpose in _PURPOSES if any(b.purpose == purpose for b in graph.buffers)],
        phases,
        _groups(graph, phases),
        sorted(live, key=lambda row: -row.buffer.bytes),
        [_live(b, graph) for b in graph.buffers],
        diagram(graph),
    )


def _live(buffer: BufferFacts, graph: GraphFacts) -> LiveRow:
    return LiveRow(buffer, *lifetime(buffer, graph))


def _groups(graph: GraphFacts, phases: list[str]) -> list[tuple[str, list[CostRow]]]:
    most = {
        key: max((getattr(op, key) for op in graph.operations), default=0)
        for key in ("macs", "parameter_bytes", "activation_bytes")
    }

    def cost(op: OperationFacts, key: str) -> Cost:
        value = getattr(op, key)
        return Cost(f"{value:,}" if value else "–", round(100 * value / most[key], 2) if value else 0)

    def row(op: OperationFacts) -> CostRow:
        title = op.layer if op.layer and not op.name.startswith(op.layer) else ""
        costs = (cost(op, "macs"), cost(op, "parameter_bytes"), cost(op, "activation_bytes"))
        return CostRow(op, title, _shape(op.result), *costs)

    return [(phase, [row(op) for op in graph.operations if op.phase == phase]) for phase in phases]


def _shape(tensor: TensorFacts) -> str:
    return f"{' × '.join(map(str, tensor.shape)) or '1'} {tensor.dtype}"

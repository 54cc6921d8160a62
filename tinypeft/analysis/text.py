"""An analysis for a terminal: tables and bars of rich."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tinypeft.analysis.memory_map import lifetime
from tinypeft.analysis.operations import PHASES
from tinypeft.analysis.report import Analysis, GraphFacts, MemoryUse, OperationFacts, Usage
from tinypeft.analysis.wording import PHASE_TITLES, basis_note, described, proof, scope

_BAR = 40


def renderables(analysis: Analysis, graphs: list[GraphFacts]) -> Iterator[RenderableType]:
    """What a terminal shows, in order; operators are listed for `graphs` alone."""
    where = f" on {analysis.board.name}" if analysis.board else ""
    yield Text(f"{analysis.model.name}{where}: {described(analysis.configuration)}", style="bold")
    for graph in graphs:
        yield operators(graph)
    yield totals(analysis)
    yield arenas(analysis)
    for graph in graphs:
        if graph.peak is not None:
            yield peak(graph)
    yield from memory(analysis)
    yield from fit(analysis)


def operators(graph: GraphFacts) -> Table:
    """A row for every operation, those of one phase together."""
    table = Table(title=f"{graph.name}: {scope(graph)}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("#", "operation", "kind", "output", "MACs", "weights B", "results B", "kernel", "why"):
        table.add_column(heading, justify="right" if heading in ("#", "MACs", "weights B", "results B") else "left")
    for column in table.columns:
        column.overflow = "fold"
    phases = [phase for phase in PHASES if any(op.phase == phase for op in graph.operations)]
    for phase in phases:
        rows = [op for op in graph.operations if op.phase == phase]
        if len(phases) > 1:
            macs = sum(op.macs for op in rows)
            table.add_row("", Text(PHASE_TITLES[phase], style="bold"), "", "", f"{macs:,}", *[""] * 4)
        for op in rows:
            table.add_row(*_row(op), end_section=op is rows[-1])
    return table


def _row(op: OperationFacts) -> list[str]:
    layer = f" ({op.layer})" if op.layer and not op.name.startswith(op.layer) else ""
    shape = "x".join(map(str, op.result.shape)) or "1"
    sizes = [f"{size:,}" if size else "-" for size in (op.macs, op.parameter_bytes, op.activation_bytes)]
    cells = [str(op.index), op.name + layer, op.kind, f"{shape} {op.result.dtype}", *sizes]
    return [escape(cell) for cell in (*cells, op.kernel.function or "-", op.kernel.reason)]


def totals(analysis: Analysis) -> Table:
    """The sums over the model."""
    t = analysis.totals
    table = Table(title="totals", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    rows = [("MACs an inference", t.macs), ("weights, B", t.weight_bytes), ("parameters", t.base_parameters)]
    if t.trainable_parameters:
        rows += [
            ("MACs a training step", t.training_macs),
            ("trained parameters", t.trainable_parameters),
            ("adapter, B", t.adapter_bytes),
            ("masters and optimiser, B", t.optimizer_bytes),
            ("adapter package, B", t.package_bytes),
        ]
    for name, value in rows:
        table.add_row(name, f"{value:,}")
    return table


def arenas(analysis: Analysis) -> Table:
    """The arena of each graph, and whether it can be smaller."""
    table = Table("graph", title="arena, shared by all graphs", title_justify="left")
    for heading in ("arena B", "bound B"):
        table.add_column(heading, justify="right")
    for heading in ("", "proof", "found by", "peak"):
        table.add_column(heading)
    for graph in analysis.graphs:
        if graph.peak is not None:
            where = f"op {graph.peak.index} {graph.peak.operation}"
            sizes = (f"{graph.arena_bytes:,}", f"{graph.bound:,}")
            table.add_row(graph.name, *sizes, proof(graph), graph.proof, graph.method, escape(where))
    return table


def peak(graph: GraphFacts) -> Table:
    """What is live where the most is."""
    assert graph.peak is not None
    title = f"live at the peak of {graph.name}, op {graph.peak.index} {graph.peak.operation}: {graph.peak.bytes:,} B"
    table = Table("buffer", title=escape(title), title_justify="left")
    table.add_column("bytes", justify="right")
    for heading in ("purpose", "since", "until"):
        table.add_column(heading)
    live = [buffer for buffer in graph.buffers if buffer.name in graph.peak.live]
    for buffer in sorted(live, key=lambda b: -b.bytes):
        since, until = lifetime(buffer, graph)
        table.add_row(escape(buffer.name), f"{buffer.bytes:,}", buffer.purpose, escape(since), escape(until))
    return table


def memory(analysis: Analysis) -> Iterator[RenderableType]:
    """RAM and flash, as bars where there is a board."""
    for use in analysis.board.memories if analysis.board else ():
        yield _bar(use)
    yield Text(_sum("RAM", analysis.memory.ram))
    yield Text(_sum("flash", analysis.memory.flash))
    yield Text(basis_note(analysis.memory), style="dim")
    for note in analysis.notes:
        yield Text(note, style="dim")


def _bar(use: MemoryUse) -> Text:
    share = use.used / use.bytes
    filled = min(round(share * _BAR), _BAR)
    colour = "red" if share > 1 else "yellow" if share > 0.9 else "green"
    kind = {"ram": "RAM", "flash": "flash"}[use.kind]
    name = kind if use.name == use.kind else f"{kind} {use.name}"
    text = Text(f"{name:<14} ")
    text.append("█" * filled, style=colour).append("░" * (_BAR - filled), style="dim")
    return text.append(f" {use.used:>9,} of {use.bytes:,} B  {share:.1%}  ({use.basis})")


def _sum(name: str, usage: Usage) -> str:
    parts = " + ".join(f"{part.name} {'~' if part.basis == 'estimate' else ''}{part.bytes:,}" for part in usage.parts)
    return f"{name} {usage.bytes:,} B ({usage.basis}) = {parts}"


def fit(analysis: Analysis) -> Iterator[RenderableType]:
    """Whether it fits, and what would."""
    if analysis.fit.fits is None or analysis.board is None:
        return
    if analysis.fit.fits:
        yield Text(f"fits {analysis.board.name}", style="bold green")
        return
    yield Text(f"does not fit {analysis.board.name}", style="bold red")
    if not analysis.fit.ways:
        yield Text("nothing that tinypeft can change makes it fit: take a smaller model")
        return
    for number, way in enumerate(analysis.fit.ways, 1):
        macs = f", {way.extra_macs:+,} MACs a step" if way.extra_macs else ""
        kept = f"{way.trainable_parameters:,} trained parameters, {way.lost_parameters:,} fewer{macs}"
        yield Text(f"{number}. {way.what}: {way.ram_bytes:,} B of RAM, {kept}")
        yield Text(f"   {way.options}", no_wrap=True, overflow="ignore")

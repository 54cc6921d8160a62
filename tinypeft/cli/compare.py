"""`tinypeft compare`: what changed between two analyses, and whether it is within limits."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.markup import escape
from rich.table import Table

from tinypeft.analysis.compare import Comparison, compare, load_limits, percent
from tinypeft.analysis.snapshot import read_snapshot
from tinypeft.cli.output import console, json_option, print_json
from tinypeft.errors import TinypeftError


class LimitError(TinypeftError):
    """A figure grew beyond its limit."""


@click.command("compare")
@click.argument("before", metavar="A.json")
@click.argument("after", metavar="B.json")
@click.option("--limits", metavar="F.toml", help='How much may grow: [limits], then say ram_bytes = "+2%".')
@json_option
def command(before: str, after: str, limits: str | None, as_json: bool) -> None:
    """Show what changed from A.json to B.json, both written by `analyze --json`.

    Exits 1 where a figure grew beyond its limit: "+2%", "+1024", or "0" for no growth.
    """
    allowed = load_limits(limits) if limits else {}
    comparison = compare(read_snapshot(before), read_snapshot(after), allowed)
    if as_json:
        print_json(asdict(comparison))
    else:
        print_comparison(comparison)
        if allowed and not comparison.broken:
            console().print(f"within all {len(allowed)} limits" if len(allowed) > 1 else "within the limit")
    if comparison.broken:
        count = len(comparison.broken)
        head = "" if count == 1 else f"{count} limits are broken: "
        raise LimitError(
            head + "; ".join(map(str, comparison.broken)), f"find what grew, or raise the limit in {limits}"
        )


def print_comparison(comparison: Comparison) -> None:
    """Tables of the figures and operators that differ."""
    out = console()
    for note in comparison.notes:
        out.print(f"note: {escape(note)}")
    if comparison.equal:
        out.print("equal: no figure and no operator differs")
        return
    table = Table("figure", "before", "after", "change", "%")
    for column in table.columns[1:]:
        column.justify = "right"
    for figure in comparison.figures:
        colour = "red" if figure.change > 0 else "green" if figure.change else "dim"
        change = f"[{colour}]{figure.change:+,}[/]" if figure.change else "[dim]0[/]"
        share = percent(figure.before, figure.after) if figure.change else ""
        table.add_row(figure.name, f"{figure.before:,}", f"{figure.after:,}", change, share)
    out.print(table)
    if comparison.operators:
        operators = Table("graph", "operator", "", "what changed")
        for row in comparison.operators:
            operators.add_row(row.graph, escape(row.name), row.status, escape("; ".join(row.changes)))
        out.print(operators)

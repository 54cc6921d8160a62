"""`tinypeft supported-ops`: the operators a model may contain."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import click
from rich.table import Table

from tinypeft.cli.output import console, json_option, print_json
from tinypeft.frontend.lowering import LOWERINGS
from tinypeft.frontend.unsupported import UNSUPPORTED
from tinypeft.ops import OPS


@dataclass(frozen=True)
class SupportedOperator:
    """A row of the table. `limits` says which forms are refused, or all and why; `backends` have a kernel."""

    name: str
    forward: bool
    backward: bool
    backends: tuple[str, ...]
    summary: str
    limits: str


def supported() -> list[SupportedOperator]:
    """Every TFLite operator that a model may contain, and those left out with a reason, by name."""
    rows = [
        SupportedOperator(name, True, op.differentiable, ("portable",), _summary(op.__doc__), op.limits)
        for name, op in OPS.items()
        if op.importable
    ]
    for name, lowering in LOWERINGS.items():
        backward = all(OPS[kind].differentiable for kind in lowering.kinds)
        rows.append(SupportedOperator(name, True, backward, ("portable",), lowering.summary, lowering.limits))
    rows += [SupportedOperator(name, False, False, (), "", reason) for name, reason in UNSUPPORTED.items()]
    return sorted(rows, key=lambda row: row.name)


def _summary(documentation: str | None) -> str:
    return (documentation or "").strip().splitlines()[0]


@click.command("supported-ops")
@json_option
def command(as_json: bool) -> None:
    """List the TFLite operators that a model may contain, and through which of them gradients can pass."""
    rows = supported()
    if as_json:
        print_json({"operators": [asdict(row) for row in rows]})
        return
    table = Table("operator", "forward", "backward", "backends", "what it does", "limits")
    for row in rows:
        forward, backward = ("yes" if able else "-" for able in (row.forward, row.backward))
        table.add_row(row.name, forward, backward, ", ".join(row.backends), row.summary, row.limits)
    console().print(table)

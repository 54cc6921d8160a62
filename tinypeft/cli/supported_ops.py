"""`tinypeft supported-ops`: the operators a model may contain."""

from __future__ import annotations

import click
from rich.table import Table

from tinypeft.cli.output import console, json_option, print_json
from tinypeft.ops import OPS


@click.command("supported-ops")
@json_option
def command(as_json: bool) -> None:
    """List the TFLite operators that a model may contain, and which of them gradients can pass."""
    operators = {name: op for name, op in sorted(OPS.items()) if op.importable}
    if as_json:
        print_json(
            {"operators": [{"name": n, "forward": True, "backward": op.differentiable} for n, op in operators.items()]}
        )
        return
    table = Table("operator", "forward", "backward", "what it does")
    for name, op in operators.items():
        summary = (op.__doc__ or "").strip().splitlines()[0]
        table.add_row(name, "yes", "yes" if op.differentiable else "-", summary)
    console().print(table)

"""`tinypeft doctor`: is everything there that tinypeft needs?"""

from __future__ import annotations

import dataclasses

import click
from rich.markup import escape
from rich.table import Table

from tinypeft.cli.output import console, json_option, print_json
from tinypeft.doctor import Check, diagnose


@click.command("doctor")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List the tools and libraries tinypeft uses; exit 1 if a required one is missing."""
    checks = diagnose()
    missing = [check.name for check in checks if check.required and not check.found]
    if as_json:
        rows = [dataclasses.asdict(check) | {"found": check.found} for check in checks]
        print_json({"ok": not missing, "missing": missing, "checks": rows})
    else:
        _print_table(checks, missing)
    if missing:
        ctx.exit(1)


def _print_table(checks: list[Check], missing: list[str]) -> None:
    table = Table("", "name", "version", "needed for", "where, or how to get it")
    table.columns[-1].overflow = "fold"
    for check in checks:
        mark = "[green]ok[/green]" if check.found else "[red]missing[/red]" if check.required else "optional"
        version = check.version or ("does not run" if check.path else "")
        place = escape((check.found and check.path) or check.install)
        table.add_row(mark, check.name, version, check.needed_for, place)
    out = console()
    out.print(table)
    out.print(f"missing: {', '.join(missing)}" if missing else "everything required is there")

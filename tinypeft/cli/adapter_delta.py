"""`tinypeft adapter diff` and `apply-diff`: deltas between packages, as files."""

from __future__ import annotations

from pathlib import Path

import click

from tinypeft.adapter_files import read_package
from tinypeft.cli.output import console, json_option, print_json
from tinypeft.files import write_file
from tinypeft.package.delta import apply_delta, describe_delta
from tinypeft.package.delta import diff as make_delta
from tinypeft.package.describe import describe_package


@click.command("diff")
@click.argument("old")
@click.argument("new")
@click.option("-o", "--output", required=True, metavar="DELTA", help="The delta to write.")
@json_option
def diff(old: str, new: str, output: str, as_json: bool) -> None:
    """Write what makes the package NEW of the package OLD; refused where NEW itself is no larger."""
    packages = read_package(Path(old)), read_package(Path(new))
    delta = make_delta(*packages)
    write_file(output, delta)
    if as_json:
        print_json({"output": output, **describe_delta(delta)})
        return
    share = len(delta) / len(packages[1])
    console().print(f"{len(delta):,} B, {share:.1%} of the new package, written to {output}")


@click.command("apply-diff")
@click.argument("old")
@click.argument("delta")
@click.option("-o", "--output", required=True, metavar="NEW", help="The package to write.")
@json_option
def apply_diff(old: str, delta: str, output: str, as_json: bool) -> None:
    """Make the new package of the package OLD and DELTA, as a device does."""
    new = apply_delta(read_package(Path(old)), read_package(Path(delta)))
    write_file(output, new)
    described = describe_package(new)
    if as_json:
        print_json({"output": output, **described})
        return
    console().print(f"{described['id']} {described['version']}: {len(new):,} B, written to {output}")

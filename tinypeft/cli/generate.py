"""`tinypeft generate`: a model, adapters and a board into a firmware project."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from tinypeft.boards import Board, load_board
from tinypeft.cli.compile_options import compile_options, compile_settings
from tinypeft.cli.output import console, json_option, print_json, progress_console
from tinypeft.generate import Report, generate_project
from tinypeft.package.verifier import load_verifier


@click.command("generate")
@compile_options
@click.option("--verify-key", metavar="PUB.pem", help="Take adapters alone that are signed for this Ed25519 key.")
@click.option(
    "--monocypher",
    metavar="DIR",
    help="Monocypher's sources, which check signatures. Default: from the package registry, kept in the cache.",
)
@click.option("-o", "--output", metavar="DIR", help="The folder to write.")
@json_option
def command(as_json: bool, config: str | None, verify_key: str | None, monocypher: str | None, **flags: Any) -> None:
    """Compile MODEL (.keras, .h5 or an int8 .tflite) into firmware that infers and trains its adapter.

    The folder is complete: it builds with make or CMake without tinypeft, and holds the base model for the tests.
    """
    settings = compile_settings(config, flags, "model.path", "board.name", "output.directory")
    if monocypher is not None and verify_key is None:
        raise click.UsageError("--monocypher is of use with --verify-key alone.")
    board = load_board(settings.board)
    verifier = load_verifier(verify_key, monocypher) if verify_key is not None else None
    with progress_console().status("reading the model") as status:
        report = generate_project(
            settings.model,
            board,
            settings.output,
            **settings.compilation,
            progress=lambda step: status.update(step),
            verifier=verifier,
        )
    if as_json:
        print_json(asdict(report))
        return
    print_report(report, board, Path(settings.output))


def print_report(report: Report, board: Board, directory: Path) -> None:
    """The table of a project's memory, and where it is."""
    out = console()
    table = Table("memory", "bytes", "of the board", title=f"{directory.name} on {board.name}")
    for column in table.columns[1:]:
        column.justify = "right"
    if report.ram_bytes is not None:
        for name, size in report.ram_bytes.items():
            table.add_row(f"RAM: {name}", f"{size:,}", "", end_section=name == "total")
        lengths = {region.name: region.length for region in board.memories}
        for name, size in (report.ram_regions or {}).items():
            table.add_row(name, f"{size:,}", f"{size / lengths[name]:.1%}")
        assert report.flash_bytes is not None
        table.add_row("flash", f"{report.flash_bytes:,}", f"{report.flash_bytes / board.flash.length:.1%}")
    else:
        table.add_row("arena", f"{report.arena_bytes:,}", "")
    out.print(table)
    gap = report.arena_bytes - report.arena_lower_bound
    verdict = "optimal for this schedule, proved" if gap == 0 else f"{gap:,} B above the lower bound"
    out.print(f"arena {report.arena_bytes:,} B, {verdict}")
    if report.recomputed_operations:
        out.print(
            f"a training step runs {report.recomputed_operations} operations again to stay within the RAM budget, "
            f"{report.recomputed_macs:,} MACs more"
        )
    trained = report.trainable_parameters / max(report.base_parameters, 1)  # a model may have none
    out.print(
        f"{report.trainable_parameters:,} trained parameters ({trained:.1%} of {report.base_parameters:,}), "
        f"{report.macs:,} MACs an inference"
    )
    out.print(f"written to {directory}; next: tinypeft test {directory} --on host --data F.npz:X:Y")

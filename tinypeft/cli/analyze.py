"""`tinypeft analyze`: what a model costs on a board, operator by operator, without building it."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from tinypeft.analysis import analyse_file, write_page
from tinypeft.analysis.text import renderables
from tinypeft.boards import load_board
from tinypeft.cli.compile_options import compile_options, compile_settings
from tinypeft.cli.output import console, json_option, print_json, progress_console

#: --graph -> the graphs whose operators are listed
_GRAPHS = {"inference": ("inference",), "training": ("training", "update"), "all": ("inference", "training", "update")}


@click.command("analyze")
@compile_options
@click.option(
    "--graph", type=click.Choice(sorted(_GRAPHS)), default="all", help="Whose operators to list. Default all."
)
@click.option("--html", metavar="F.html", help="Also write a page that draws memory map, costs and graph.")
@click.option("--measure", is_flag=True, help="Build the firmware and count its bytes, instead of estimating.")
@json_option
def command(as_json: bool, config: str | None, graph: str, html: str | None, measure: bool, **flags: Any) -> None:
    """Tell what MODEL (.keras, .h5 or an int8 .tflite) costs: operators, memory, and what would fit.

    Nothing is generated. --json follows the schema tinypeft.analysis/1, which `compare` reads; it always holds every
    graph.
    """
    settings = compile_settings(config, flags, "model.path")
    board = settings.memory.on(load_board(settings.board)) if settings.board else None
    if board is not None and board.is_host:
        board = None
    if measure and board is None:
        raise click.UsageError("--measure builds firmware: give it a --board that is no host.")
    with progress_console().status("reading the model") as status:
        analysis = analyse_file(
            settings.model,
            board,
            **settings.compilation,
            measured=measure,
            progress=lambda step: status.update(step),
        )
    if html:
        write_page(html, analysis)
    if as_json:
        print_json(analysis.as_json())
        return
    out = console()
    chosen = [g for g in analysis.graphs if g.name in _GRAPHS[graph]]
    for item in renderables(analysis, chosen):
        out.print(item, soft_wrap=isinstance(item, Text))
    if html:
        out.print(f"written to {html}", markup=False)

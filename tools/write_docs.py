"""Writes the tables under docs/ that follow from the code: `python tools/write_docs.py`; --check only compares."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tinypeft.adapters import ADAPTERS
from tinypeft.adapters.base import Option
from tinypeft.boards import Board, board_names, load_board
from tinypeft.cli.supported_ops import supported
from tinypeft.losses import LOSSES
from tinypeft.optimizers import OPTIMIZERS

DOCS = Path(__file__).resolve().parents[1] / "docs"

_OPERATORS = """# Operators

What an int8 `.tflite` may contain. Forward is bit-exact with LiteRT's reference kernels; backward says whether
gradients pass, so that adapters may lie in front. `tinypeft supported-ops` prints the same table.
"""
_BOARDS = """# Boards

`tinypeft boards show NAME` tells the rest: every memory with its reference, clock, console, settings. A twin is another
board, one that executes the same instructions, on which an emulator runs the firmware where it has not the board
itself: that proves arithmetic, memory and protocol, not the board's own clock and console drivers.
"""
_ADAPTERS = """# Adapters, losses, optimisers

Kinds combine: `--adapter lora+bitfit`. Each takes the layers that it can, those of `--target-modules`, or with
`targets` in `tinypeft.toml` or `Model.attach` those of its own; the last dense layer is retrained beside them unless
`--modules-to-save none`. Depthwise layers get no low rank: theirs is one already. Options are flags of `generate` and
keys of `[adapter]`.
"""


def adapters() -> str:
    """docs/adapters.md: every kind of adapter with its options, every loss, every optimiser."""
    kinds = [
        (f"`{kind.name}`", kind.summary, kind.peft_type, f"no: {kind.unmerged}" if kind.unmerged else "yes")
        for kind in ADAPTERS.values()
    ]
    options: dict[str, tuple[Option, list[str]]] = {}
    for kind in ADAPTERS.values():
        for option in kind.options:
            options.setdefault(option.name, (option, []))[1].append(kind.name)
    settings = [(f"`{o.name}`", ", ".join(names), _default(o.default), o.help) for o, names in options.values()]
    losses = [(f"`{loss.name}`", loss.summary, ", ".join(loss.targets)) for loss in LOSSES.values()]
    optimizers = [(f"`{o.name}`", o.summary, ", ".join(o.reads)) for o in OPTIMIZERS.values()]
    return "\n".join(
        [
            _ADAPTERS,
            *_table(("kind", "what is learned", "peft_type of its files", "merges into the base"), kinds),
            *_table(("option", "of", "default", "what it is"), settings),
            "## Losses",
            "",
            *_table(("loss", "of what", "targets, the default first"), losses),
            "## Optimisers",
            "",
            *_table(("optimiser", "what it is", "settings"), optimizers),
        ]
    )


def _default(value: object) -> str:
    return f"`{value}`" if value != "" else ""


def operators() -> str:
    """docs/operators.md: every TFLite operator that a model may contain, and those left out with the reason."""
    rows = supported()
    present = [
        (row.name, "yes", "yes" if row.backward else "–", ", ".join(row.backends), row.summary, row.limits)
        for row in rows
        if row.forward
    ]
    absent = [(row.name, row.limits) for row in rows if not row.forward]
    header = ("operator", "forward", "backward", "backends", "what it does", "limits")
    return "\n".join(
        [_OPERATORS, *_table(header, present), "", "## Left out", "", *_table(("operator", "why"), absent)]
    )


def boards() -> str:
    """docs/boards.md: every board, its memories and what runs its firmware."""
    header = ("board", "core", "flash", "RAM", "console", "emulators", "flashers, the preferred first", "notes")
    return "\n".join([_BOARDS, *_table(header, [_board(load_board(name)) for name in board_names()])])


def _board(board: Board) -> tuple[str, ...]:
    if board.is_host:
        return (f"`{board.name}`", "this computer", "", "", "", "", "", board.title)
    flash, ram = (
        ", ".join(f"{r.name} {r.length // 1024:,} KB" for r in board.memories if r.kind == kind and r.arena)
        for kind in ("flash", "ram")
    )
    console = board.console.driver if board.console else ""
    emulators = ", ".join([*board.emulators, *([f"twin {board.twin}"] if board.twin else [])])
    flashers = ", ".join(board.flashers) or "emulated only"
    notes = "; ".join((board.title, *board.notes))
    return (f"`{board.name}`", board.core, flash, ram, console, emulators, flashers, notes)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    texts = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]
    return [*texts, ""]


#: file under docs/ -> what it must hold
TABLES = {"adapters.md": adapters, "operators.md": operators, "boards.md": boards}


def main() -> int:
    """Write the files, or with --check name those that are not current."""
    stale = []
    for name, text in TABLES.items():
        path = DOCS / name
        if "--check" in sys.argv[1:]:
            if not path.is_file() or path.read_text(encoding="utf-8") != text():
                stale.append(name)
            continue
        DOCS.mkdir(exist_ok=True)
        path.write_text(text(), encoding="utf-8")
    for name in stale:
        print(f"docs/{name} is not current; run: make docs", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())

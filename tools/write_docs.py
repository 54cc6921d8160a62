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

Storage is where firmware keeps adapters: the driver, its sectors, and in which memory they lie; firmware that keeps
none has that memory whole. An emulator in parentheses lacks the flash controller: the twin runs firmware that keeps
adapters. Drivers of real flash have run against models of their registers, not on silicon yet. A board without storage
keeps no adapters.
"""
_ADAPTERS = """# Adapters, losses, optimisers

Kinds combine: `--adapter lora+bitfit`. Each takes the layers that it can, those of `--target-modules`, or with
`targets` in `tinypeft.toml` or `Model.attach` those of its own; the last dense layer is retrained beside them unless
`--modules-to-save none`. Depthwise layers get no low rank: theirs is one already. Options are flags of `generate` and
keys of `[adapter]`.
"""

_SUMS = """## One adapter of several

`tinypeft adapter combine PROJECT A B … --weights 0.7,0.3` makes one adapter of several of a model; a device does the
same with what it stores (COMBINE, `tp_adapters_combine`), to the same bits as the host with those packages. A weight
below 0 takes away.

For the A and B of a LoRA there are two methods:

- `linear`, PEFT's definition: the sums of sign(w) sqrt(abs(w)) A and of sqrt(abs(w)) B. It takes no more ranks than
  before; the product has cross terms, so that it is near the weighted sum only where the adapters are alike.
- `cat`: the rows of A one behind the other, beside them the columns of w B. The product is the weighted sum; the ranks
  of a layer add up, and the project must have as many: generate it with a larger `--r`.

`--stack` is `cat` with weights of 1: all of them act at once. Ranks may differ up to the project's; rows of A that are
zeros, as those that a smaller package lacks, count for none.

All else that is trained (biases, IA3's factors, retrained layers, sparse rows, an input's offset) becomes, with both
methods, fresh + sum of w (it - fresh), where fresh is what a fresh adapter starts from. PEFT defines that of IA3 alone,
sum of w it: the same where the weights are 1 together. A retrained classifier keeps the widest range of logits
of all. Sums are in float32, then quantised with new scales.

A device needs two adapters resident, and 4 bytes of its arena for every trained value; `generate` does not enlarge the
arena for it. LoRA that starts from `loftq` does not combine: what quantisation took from the base would count twice.
"""

_MERGED = """## Merged on the device

With `generate --merge-room 20KiB` a board has RAM for copies of the weights of some layers, those where a byte saves
most. `<model>_merge`, or the command MERGE, folds the LoRA of the adapter that serves into them, in integers: W + (B
A >> shifts), rounded and clamped to the steps of the base's int8 weights. `<model>_forward` then runs these layers as
the base's are run, while that adapter serves; whatever changes the adapter ends it, as does `<model>_unmerge`.
Training and evaluation read the LoRA as ever.

What is lost is what int8 cannot hold: `tinypeft merge` may choose new scales, a device keeps the base's. Of a DS-CNN
for spoken digits and a new speaker (LoRA r=4, classifier retrained, 450 samples) the adapter moves weights by 2 to 24
steps in the mean, and 1 to 5 % of them are clamped; 96.7 % of the decisions are the same, and 93.8 % instead of 93.3
% right. By the portable kernels an inference then takes 8.5 M instructions instead of 9.8 M, as many as with the
classifier alone; the copies take 19,968 B of RAM, the second way through the model 2 KB of flash. Layers with groups,
and those whose accumulators could overflow with other weights, are never merged.

Convolutions that are merged have no kernels made for a core yet. Where their LoRA has (Cortex-M4, M7, M33 and M55, see
`analyze`) it is faster unmerged: 3.3 M instructions for that model on a Cortex-M4, 7.2 M with all its layers merged.
"""


def adapters() -> str:
    """docs/adapters.md: every kind of adapter with its options, every loss, every optimiser."""
    kinds = [
        (f"`{kind.name}`", kind.summary, kind.peft_type, _unless(kind.unmerged), _unless(kind.uncombined))
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
            *_table(("kind", "what is learned", "peft_type of its files", "merges into the base", "combines"), kinds),
            *_table(("option", "of", "default", "what it is"), settings),
            _SUMS,
            _MERGED,
            "## Losses",
            "",
            *_table(("loss", "of what", "targets, the default first"), losses),
            "## Optimisers",
            "",
            *_table(("optimiser", "what it is", "settings"), optimizers),
        ]
    )


def _unless(reason: str) -> str:
    return f"no: {reason}" if reason else "yes"


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
    header = (
        "board",
        "core",
        "flash",
        "RAM",
        "console",
        "storage",
        "emulators",
        "flashers, the preferred first",
        "notes",
    )
    return "\n".join([_BOARDS, *_table(header, [_board(load_board(name)) for name in board_names()])])


def _board(board: Board) -> tuple[str, ...]:
    if board.is_host:
        return (f"`{board.name}`", "this computer", "", "", "", _storage(board), "", "", board.title)
    flash, ram = (
        ", ".join(f"{r.name} {r.length // 1024:,} KB" for r in board.memories if r.kind == kind and r.arena)
        for kind in ("flash", "ram")
    )
    console = board.console.driver if board.console else ""
    own = [name if tool.get("storage", True) else f"({name})" for name, tool in board.emulators.items()]
    emulators = ", ".join([*own, *([f"twin {board.twin}"] if board.twin else [])])
    flashers = ", ".join(board.flashers) or "emulated only"
    notes = "; ".join((board.title, *board.notes))
    return (f"`{board.name}`", board.core, flash, ram, console, _storage(board), emulators, flashers, notes)


def _storage(board: Board) -> str:
    storage = board.storage
    if storage is None:
        return "none"
    place = f" in {storage.region}" if storage.region else ""
    return f"{storage.driver}: {storage.sectors} of {storage.sector_bytes // 1024} KB{place}"


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

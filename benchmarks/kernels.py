"""What the kernels of real models cost on three cores, against a checked-in baseline.

Run: python benchmarks/kernels.py [--update] [--only NAME] [--kernels portable] [--optimize speed]. The MLPerf Tiny
models infer, some with a LoRA, as does a DS-CNN of the Free Spoken Digit Dataset, which trains one too. Exits 1 where a
figure is more than 1 % above the baseline, which is of the kernels that the compiler chooses by itself. Counts are
instructions, exact; cycles are an estimate (tinypeft/counting/cycles.py), never time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from tinypeft.adapters import AdapterConfig
from tinypeft.boards import load_board
from tinypeft.cli.output import console, progress_console
from tinypeft.counting import GraphCost, measure_project
from tinypeft.generate import generate_project
from tinypeft.kernels import ARENA_GROWTH, KernelConfig
from tinypeft.kernels.config import AUTO

BASELINE = Path(__file__).with_name("kernels.json")
TOLERANCE = 1.01
SHARED = Path(os.environ.get("TINYPEFT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
#: Cortex-M4, M55, M3
BOARDS = ("mps2_an386", "mps3_an547", "mps2_an385")


@dataclass(frozen=True)
class Case:
    """A model below SHARED, and what of it is counted on some boards: an inference, or where it `trains` a step."""

    model: str
    adapter: AdapterConfig = AdapterConfig("none")
    trains: bool = False
    boards: tuple[str, ...] = BOARDS


CASES = {
    "kws": Case("models/kws_ref_model.tflite"),
    "vww": Case("models/vww_96_int8.tflite"),
    "ic": Case("models/pretrainedResnet_quant.tflite"),
    "ad": Case("models/ad01_int8.tflite"),
    "fsdd_step": Case("fsdd_loso/nicolas.tflite", AdapterConfig(r=4), trains=True),
    "fsdd_base": Case("fsdd_loso/nicolas.tflite", boards=BOARDS[:1]),
    "fsdd_lora_r4": Case("fsdd_loso/nicolas.tflite", AdapterConfig(r=4, modules_to_save=()), boards=BOARDS[:1]),
    "fsdd_lora_r1": Case("fsdd_loso/nicolas.tflite", AdapterConfig(r=1, modules_to_save=()), boards=BOARDS[:1]),
    "vww_lora_r4": Case("models/vww_96_int8.tflite", AdapterConfig(r=4), boards=BOARDS[:1]),
    "ad_lora_r4": Case("models/ad01_int8.tflite", AdapterConfig(r=4), boards=BOARDS[:1]),
}

#: case -> board -> figure -> value
Figures = dict[str, dict[str, dict[str, int]]]


def measure(case: Case, board: str, kernels: KernelConfig) -> dict[str, int]:
    """The figures of a case on a board; cycles where its core has a model."""
    with tempfile.TemporaryDirectory(prefix="tinypeft-") as name:
        folder = Path(name) / "project"
        generate_project(SHARED / case.model, load_board(board), folder, adapter=case.adapter, kernels=kernels)
        measured = measure_project(folder, train=case.trains)
    cost = measured.train or measured.inference
    return figures(cost)


def figures(cost: GraphCost) -> dict[str, int]:
    """What of a graph's cost is compared."""
    return {
        "instructions": cost.instructions,
        **({} if cost.cycles is None else {"cycles": cost.cycles}),
        "code_bytes": cost.code_bytes,
        "weight_bytes": cost.weight_bytes,
        "arena_bytes": cost.arena_bytes,
    }


def worse(found: Figures, baseline: Figures) -> list[str]:
    """A sentence for every figure that is more than 1 % above the baseline."""
    return [
        f"{case} on {board}: {name} is {value:,}, the baseline {before:,}"
        for case, boards in found.items()
        for board, values in boards.items()
        for name, value in values.items()
        if (before := baseline.get(case, {}).get(board, {}).get(name)) is not None and value > before * TOLERANCE
    ]


def table(found: Figures, baseline: Figures) -> Table:
    """A row for each case and board, each figure with its change."""
    names = ("instructions", "cycles", "code_bytes", "weight_bytes", "arena_bytes")
    made = Table("case", "board", *names)
    for column in made.columns[2:]:
        column.justify = "right"
    for case, boards in found.items():
        for board, values in boards.items():
            known = baseline.get(case, {}).get(board, {})
            made.add_row(case, board, *(_with_change(values.get(name), known.get(name)) for name in names))
    return made


def _with_change(value: int | None, before: int | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if before in (None, 0, value) else f"{value:,} ({value / before - 1:+.2%})"


def main() -> int:
    """Measure, print, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the figures as the new baseline")
    parser.add_argument("--kernels", default=AUTO, help="what may compute operations, as of generate")
    parser.add_argument("--optimize", default=KernelConfig.optimize, choices=list(ARENA_GROWTH))
    parser.add_argument("--only", choices=sorted(CASES), help="a single case")
    arguments = parser.parse_args()
    kernels = KernelConfig(tuple(arguments.kernels.split(",")), optimize=arguments.optimize)
    compared = kernels == KernelConfig()
    if arguments.update and not compared:
        parser.error("the baseline is that of the kernels that the compiler chooses")
    baseline: Figures = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    found: Figures = {}
    with progress_console().status("") as status:
        for name, case in CASES.items():
            if arguments.only not in (None, name):
                continue
            if not (SHARED / case.model).is_file():
                console().print(f"{name} is skipped: no {case.model} in {SHARED}; TINYPEFT_DATA names another folder")
                continue
            for board in case.boards:
                status.update(f"{name} on {board}")
                found.setdefault(name, {})[board] = measure(case, board, kernels)
    console().print(table(found, baseline))
    if arguments.update:
        BASELINE.write_text(json.dumps(baseline | found, indent=2, sort_keys=True) + "\n")
        return 0
    lines = worse(found, baseline) if compared else []
    for line in lines:
        console().print(f"[bold red]worse[/]: {line}")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())

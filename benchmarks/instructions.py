"""Fits what an operator costs in instructions, for `tinypeft plan`: counts of whole graphs under QEMU in, a table out.

Run: python benchmarks/instructions.py [--counts F.json]. Each graph of each configuration gives one equation: the sum
over its operations of a cost per multiply-accumulate and one per element is the count. Solved for costs that are not
negative and the smallest relative error; prints the table for tinypeft/planning/instructions.py and the errors.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from tinypeft.adapters import AdapterConfig
from tinypeft.boards import load_board
from tinypeft.cli.on_device import running_device
from tinypeft.generate import generate_project, open_project
from tinypeft.planning.instructions import graph_work

BOARD = "stm32f4_discovery"
SHARED = Path(os.environ.get("TINYPEFT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
#: model below SHARED, adapter
CONFIGURATIONS = (
    ("fsdd_loso/nicolas.tflite", AdapterConfig("lora", r=4)),
    ("fsdd_loso/nicolas.tflite", AdapterConfig("lora", r=1)),
    ("fsdd_loso/nicolas.tflite", AdapterConfig("modules_to_save")),
    ("fsdd_loso/nicolas.tflite", AdapterConfig("bitfit")),
    ("fsdd_loso/nicolas.tflite", AdapterConfig("ia3")),
    ("fsdd_loso/nicolas.tflite", AdapterConfig("sparse", options=(("density", 0.25),))),
    ("models/pretrainedResnet_quant.tflite", AdapterConfig("lora", r=2, target_modules=".*[4-7](_1)?")),
    ("models/pretrainedResnet_quant.tflite", AdapterConfig("bitfit")),
    ("models/kws_ref_model.tflite", AdapterConfig("lora", r=8)),
    ("models/kws_ref_model.tflite", AdapterConfig("sparse", options=(("density", 0.1),))),
    ("models/ad01_int8.tflite", AdapterConfig("bitfit", modules_to_save=())),
)


def count(model: Path, adapter: AdapterConfig, folder: Path) -> list[dict]:
    """{what, work, instructions} of inference and of a training step."""
    generate_project(model, load_board(BOARD), folder, adapter=adapter)
    project = open_project(folder)
    compiled = project.model
    assert compiled.training is not None
    graph_input, rng = compiled.inference.inputs[0], np.random.default_rng(0)
    samples = [rng.integers(-100, 100, graph_input.shape[1:], np.int8).tobytes() for _ in range(3)]
    rows = []
    with running_device(project, "qemu", count_instructions=True) as device:
        for what, graph in (("inference", compiled.inference), ("training", compiled.training)):
            counts = []
            for sample in samples:
                if what == "inference":
                    device.infer(sample)
                else:
                    device.train_step(sample, 1, 0.001)
                counts.append(device.instructions())
            instructions = float(np.mean([n for n in counts if n is not None]))
            name = f"{model.stem} {adapter.adapter} {what}"
            rows.append({"what": name, "work": graph_work(graph), "instructions": instructions})
    return rows


def fit(rows: list[dict]) -> dict[str, float]:
    """Instructions a unit of every sort of work."""
    sorts = sorted({sort for row in rows for sort in row["work"]})
    matrix = np.array([[row["work"].get(sort, 0) / row["instructions"] for sort in sorts] for row in rows])
    costs, _ = nnls(matrix, np.ones(len(rows)))
    for row, estimate in zip(rows, matrix @ costs, strict=True):
        print(f"{row['what']:45} {row['instructions']:14,.0f} {estimate - 1:+.1%}")
    return dict(zip(sorts, costs, strict=True))


def main() -> None:
    """Count, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=Path, help="read the counts from this file, or write them there")
    path: Path | None = parser.parse_args().counts
    rows: list[dict] = json.loads(path.read_text()) if path is not None and path.exists() else []
    if not rows:
        for number, (model, adapter) in enumerate(CONFIGURATIONS):
            with tempfile.TemporaryDirectory() as name:
                try:
                    rows += count(SHARED / model, adapter, Path(name) / f"p{number}")
                except Exception as error:
                    print(f"{model} {adapter.adapter}: {error}")
        if path is not None:
            path.write_text(json.dumps(rows))
    for sort, cost in fit(rows).items():
        print(f'    "{sort}": {cost:.2f},')


if __name__ == "__main__":
    main()

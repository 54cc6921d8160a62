"""Fits what an operator costs in instructions, for `tinypeft plan`: counts of whole graphs under QEMU in, a table out.

Run: python benchmarks/instructions.py [--kernels dsp] [--board stm32f4_discovery] [--counts F.json]. Each graph of each
configuration gives one equation: the sum over its operations of a cost per multiply-accumulate and one per element is
the count. Solved for costs that are not negative and the smallest relative error; prints the table for
tinypeft/planning/instructions.py and the errors.
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
from tinypeft.boards import Board, load_board
from tinypeft.cli.on_device import running_device
from tinypeft.compiler import CompiledModel
from tinypeft.errors import FitError
from tinypeft.fitting import DEFAULT_STACK
from tinypeft.frontend import load_tflite
from tinypeft.generate import compile_for, generate_project, open_project
from tinypeft.kernels import KernelConfig
from tinypeft.kernels.config import PORTABLE
from tinypeft.planning.instructions import COSTS, graph_work
from tinypeft.training import TrainingConfig

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
    ("models/ad01_int8.tflite", AdapterConfig("lora", r=4, modules_to_save=())),
)


#: what a unit of work costs where the counts do not tell, and how much that weighs against a relative error of one
USUAL = {"mac": 4.0, "result": 25.0, "quantizing result": 200.0}
WEIGHT = 0.05


def compiled_model(model: Path, adapter: AdapterConfig, board: Board, kernels: KernelConfig) -> CompiledModel:
    """The model that is counted."""
    source = load_tflite(model.stem, model.read_bytes(), {})
    return compile_for(source, board, adapter, TrainingConfig(), DEFAULT_STACK, kernels=kernels)


def count(model: Path, adapter: AdapterConfig, board: Board, kernels: KernelConfig, folder: Path) -> list[float]:
    """Instructions of inference and of a training step, means of three samples; none where it is too large."""
    try:
        generate_project(model, board, folder, adapter=adapter, kernels=kernels)
    except FitError as error:
        print(f"left out: {error}")
        return []
    project = open_project(folder)
    graph_input, rng = project.model.inference.inputs[0], np.random.default_rng(0)
    samples = [rng.integers(-100, 100, graph_input.shape[1:], np.int8).tobytes() for _ in range(3)]
    means = []
    with running_device(project, "qemu", count_instructions=True) as device:
        for step in (device.infer, lambda sample: device.train_step(sample, 1, 0.001)):
            counts = []
            for sample in samples:
                step(sample)
                counts.append(device.instructions())
            means.append(float(np.mean([n for n in counts if n is not None])))
    return means


def fit(names: list[str], work: list[dict[str, int]], counts: list[float], known: list[float]) -> dict[str, float]:
    """Instructions a unit of every sort of work; those that are `known` are the portable kernels'."""
    sorts = sorted({sort for each in work for sort in each})
    matrix = np.array([[each.get(sort, 0) / n for sort in sorts] for each, n in zip(work, counts, strict=True)])
    shares = np.array(known) / np.array(counts)
    usual = np.array([USUAL.get(sort) or USUAL[sort.rsplit(" ", 1)[1]] for sort in sorts])
    regular = np.diag(WEIGHT / usual)
    costs, _ = nnls(np.vstack([matrix, regular]), np.append(1.0 - shares, np.full(len(sorts), WEIGHT)))
    for name, n, estimate in zip(names, counts, matrix @ costs + shares, strict=True):
        print(f"{name:45} {n:14,.0f} {estimate - 1:+.1%}")
    return dict(zip(sorts, costs, strict=True))


def main() -> None:
    """Count, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=Path, help="a file of counts, read where it exists, else written")
    parser.add_argument("--kernels", default=PORTABLE, help="the backend that computes what it can")
    parser.add_argument("--board", default="stm32f4_discovery", help="where")
    arguments = parser.parse_args()
    board, kernels = load_board(arguments.board), KernelConfig((arguments.kernels,))
    path: Path | None = arguments.counts
    counted: list[list[float]] = json.loads(path.read_text()) if path is not None and path.exists() else []
    for model, adapter in CONFIGURATIONS[len(counted) :]:
        with tempfile.TemporaryDirectory() as name:
            counted.append(count(SHARED / model, adapter, board, kernels, Path(name) / "project"))
        if path is not None:
            path.write_text(json.dumps(counted))
    names, work, counts, known = [], [], [], []
    for (model, adapter), means in zip(CONFIGURATIONS, counted, strict=True):
        compiled = compiled_model(SHARED / model, adapter, board, kernels)
        assert compiled.training is not None
        for graph, mean in zip((compiled.inference, compiled.training), means, strict=False):
            names.append(f"{compiled.name} {adapter.adapter} {graph.name}")
            found = graph_work(graph)
            portable = {} if arguments.kernels == PORTABLE else found.get(PORTABLE, {})
            work.append(found.get(arguments.kernels, {}))
            counts.append(mean)
            known.append(sum(COSTS[PORTABLE][sort] * amount for sort, amount in portable.items()))
    for sort, cost in fit(names, work, counts, known).items():
        print(f'        "{sort}": {cost:.2f},')


if __name__ == "__main__":
    main()

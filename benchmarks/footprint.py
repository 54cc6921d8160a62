"""Instructions, flash and RAM of the benchmark models, against a checked-in baseline; and host twin = QEMU.

Run: python benchmarks/footprint.py [--update]. Exits 1 where a figure is more than 1 % above the baseline or above its
limit, or where an adapter trained under QEMU is not the one that the host twin trains. Counts are instructions, never
time. What a training step needs of RAM is taken apart: see `TrainingMemory`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from tinypeft.adapters import AdapterConfig
from tinypeft.boards import load_board
from tinypeft.cli.on_device import progress_bars, running_device
from tinypeft.cli.output import console
from tinypeft.compiler import CompiledModel
from tinypeft.data import choose_shots, load_array, load_dataset
from tinypeft.demo import make_model
from tinypeft.generate import generate_project, open_project
from tinypeft.ir import Purpose
from tinypeft.memory import MemoryConfig
from tinypeft.personalise import infer_all, train_adapter
from tinypeft.training import TrainingConfig

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 1.01
#: what no baseline may exceed: the MLP that others are compared by, instructions and bytes beyond its parameters
LIMITS = {"mlp": {"training_step": 40_000, "overhead_bytes": 1024}}
SHARED = Path(os.environ.get("TINYPEFT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@dataclass(frozen=True)
class Setting:
    """Where a model is trained, what of it, and on how much."""

    board: str = "stm32f4_discovery"
    adapter: AdapterConfig = AdapterConfig()
    shots: int = 5
    epochs: int = 4
    training: TrainingConfig = TrainingConfig()
    memory: MemoryConfig = MemoryConfig()


#: the last block's pointwise convolution and the classifier of the DS-CNN, all samples learned from their latents
LAST_BLOCK = Setting(
    "mps2_an386",
    AdapterConfig(r=4, target_modules=("conv2d_4_1",)),
    training=TrainingConfig(latents=True),
    memory=MemoryConfig(samples=50),
)
#: the MLP 64-32-10 that others are compared by: trained whole, one sample a step
WHOLE = Setting("mps2_an386", AdapterConfig("modules_to_save", modules_to_save=("hidden", "head")), shots=20, epochs=1)


def measure(model: Path, data: Path, setting: Setting, folder: Path) -> dict[str, int | bool]:
    """The figures of `model`, trained on samples x, y of `data` under QEMU and on the host twin.

    With latents, training_step begins at them, encoding gives them, and step_from_input is the same step without.
    """
    board, calibration = load_board(setting.board), load_array(f"{data}:x_base")
    report = generate_project(
        model,
        board,
        folder,
        calibration=calibration,
        adapter=setting.adapter,
        training=setting.training,
        memory=setting.memory,
    )
    project = open_project(folder)
    samples = load_dataset(f"{data}:x:y", project.model.inference.inputs[0], project.model.output.shape[-1])
    assert samples.y is not None and report.ram_bytes is not None and report.flash_bytes is not None
    train, _ = choose_shots(samples.y, setting.shots, 0)
    nothing = np.zeros(0, np.int64)
    packages, figures = [], {}
    for on in ("qemu", "host"):
        with running_device(project, on, count_instructions=True) as device, progress_bars() as show:
            trained = train_adapter(
                project.model,
                device,
                samples.x,
                samples.y,
                train,
                nothing,
                epochs=setting.epochs,
                learning_rate=0.02,
                seed=0,
                progress=lambda phase, done, total, on=on: show(f"{model.stem} {on}: {phase}", done, total),
            )
            packages.append(trained.package)
            if on == "qemu":
                inferred = infer_all(project.model, device, samples.x[:10], lambda done: None)
                figures = {"inference": inferred.instructions, "training_step": trained.instructions_per_step}
                if setting.training.latents:
                    device.train_step(np.ascontiguousarray(samples.x[0]).tobytes(), int(samples.y[0]), 0.02)
                    figures["encoding"] = trained.instructions_per_encoding
                    figures["step_from_input"] = device.instructions()
    return {
        **figures,
        "flash_bytes": report.flash_bytes,
        "arena_bytes": report.arena_bytes,
        "ram_bytes": report.ram_bytes["total"],
        **training_memory(project.model).figures(),
        "same_adapter": packages[0] == packages[1],
    }


@dataclass(frozen=True)
class TrainingMemory:
    """The RAM that a training step reads and writes, in bytes.

    parameters  what is trained, as integers: weights and biases
    masters     the same in float32
    tables      what requantising needs beside them, made again of the masters: multipliers, shifts, scales
    state       the rest of the training state: the optimiser's, what observes logits, what changed
    arena       activations, gradients and scratch, of the training step alone
    """

    parameters: int
    masters: int
    tables: int
    state: int
    arena: int

    def figures(self) -> dict[str, int]:
        """Every part; and `overhead_bytes`, all but parameters and masters."""
        parts = {f"training_{name}_bytes": value for name, value in asdict(self).items()}
        return parts | {"overhead_bytes": self.tables + self.state + self.arena}


def training_memory(model: CompiledModel) -> TrainingMemory:
    """What the structs <model>_adapter and <model>_training and the arena of a compiled model hold."""
    trained = {id(parameter.quantized) for parameter in model.parameters}
    parameters = sum(t.nbytes for t in model.adapter_weights if id(t) in trained)
    masters = sum(t.nbytes for t in model.training_state if t.purpose is Purpose.MASTER)
    return TrainingMemory(
        parameters,
        masters,
        model.adapter_bytes - parameters,
        model.training_bytes - masters,
        model.arena.plans["training"].arena_bytes,
    )


def make_mlp(folder: Path) -> tuple[Path, Path]:
    """(model, data): an MLP 64-32-10 trained for a while on scikit-learn's digits of 8 x 8 pixels."""
    import keras
    from sklearn.datasets import load_digits

    keras.utils.set_random_seed(0)
    digits = load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target
    layers = [keras.Input((64,)), keras.layers.Dense(32, "relu", name="hidden"), keras.layers.Dense(10, name="head")]
    model = keras.Sequential(layers)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x[:1200], y[:1200], epochs=3, verbose=0)
    model.save(folder / "mlp.keras")
    np.savez(folder / "mlp.npz", x_base=x[:1200], x=x[1200:], y=y[1200:])
    return folder / "mlp.keras", folder / "mlp.npz"


def main() -> int:
    """Measure, print, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the figures as the new baseline")
    update = parser.parse_args().update
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        digits = make_model(folder)
        results["digits"] = measure(digits.model, digits.data, Setting(epochs=4), folder / "digits")
        results["mlp"] = measure(*make_mlp(folder), WHOLE, folder / "mlp")
        speech = SHARED / "fsdd_loso"
        if speech.is_dir():
            for name, setting in (("speech", Setting(epochs=15)), ("speech_latents", LAST_BLOCK)):
                results[name] = measure(speech / "nicolas.tflite", speech / "nicolas.npz", setting, folder / name)
        else:
            console().print(f"speech is skipped: no recordings in {speech}; TINYPEFT_DATA names another folder")
    return report(results, baseline, update)


def report(results: dict[str, dict[str, int | bool]], baseline: dict[str, dict[str, int]], update: bool) -> int:
    """Print the figures beside the baseline; 1 where one is worse."""
    table = Table("model", "figure", "now", "baseline", "change")
    worse = []
    for model, figures in results.items():
        for name, value in figures.items():
            if name == "same_adapter":
                if not value:
                    worse.append(f"{model}: the adapter trained under QEMU is not the host twin's")
                continue
            before = baseline.get(model, {}).get(name)
            table.add_row(
                model,
                name,
                f"{value:,}",
                f"{before:,}" if before else "-",
                f"{value / before - 1:+.2%}" if before else "",
            )
            limit = LIMITS.get(model, {}).get(name, value)
            if value > limit:
                worse.append(f"{model}: {name} is {value:,}, the limit {limit:,}")
            if before and value > before * TOLERANCE:
                worse.append(f"{model}: {name} is {value:,}, the baseline {before:,}")
    console().print(table)
    if update:
        kept = {m: {n: v for n, v in f.items() if n != "same_adapter"} for m, f in results.items()}
        BASELINE.write_text(json.dumps(baseline | kept, indent=2, sort_keys=True) + "\n")
    for line in worse:
        console().print(f"[bold red]worse[/]: {line}")
    return 1 if worse and not update else 0


if __name__ == "__main__":
    sys.exit(main())

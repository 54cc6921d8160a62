"""Parity on the host twin: LiteRT, interpreter and generated code agree; every seed and batches included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from projects import CONFIGURATIONS, Built

from tinypeft.boards import load_board
from tinypeft.data import load_dataset
from tinypeft.emulators import EMULATORS
from tinypeft.generate import generate_project, open_project
from tinypeft.parity import ParityReport, check_parity


def outputs(graph: object) -> int:
    return sum(len(op.outputs) for op in graph.operations) if graph is not None else 0


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_parity(project: Callable[[str], Built], name: str) -> None:
    built = project(name)
    model, samples, steps = built.model, 6, 0 if name == "inference" else 9
    done: list[tuple[str, int, int]] = []
    with built.twin() as device:
        report = check_parity(
            model,
            built.opened.source.tflite,
            device,
            "host",
            built.samples(samples),
            train_steps=steps,
            learning_rate=built.learning_rate,
            progress=lambda *step: done.append(step),
        )
        assert device.stats().guards_intact
    taken = steps if model.latent is None else 2 * steps
    updates = taken // model.training_config.batch_size if model.update else 0
    in_file = sum(op.output.source >= 0 for op in model.base.operations)  # some operators are several of ours
    layers = outputs(model.reset) + samples * (outputs(model.inference) + in_file)
    layers += steps * (outputs(model.evaluate) + outputs(model.training)) + updates * outputs(model.update)
    if model.latent is not None:
        layers += steps * (outputs(model.latent.encode) + outputs(model.latent.training))
    assert report == ParityReport(True, layers, steps, None)
    assert done[-1] == (("training", steps, steps) if steps else ("inference", samples, samples))


@pytest.mark.parametrize("seed", [1, 2**31 - 1, 2**31, 2**32 - 1])
def test_any_seed(project: Callable[[str], Built], seed: int) -> None:
    built = project("plain")
    with built.twin() as device:
        report = check_parity(
            built.model, built.opened.source.tflite, device, "host", built.samples(1), train_steps=1, seed=seed
        )
    assert report.parity and report.steps_compared == 1
    assert set(built.model.fresh_state(seed)) == {
        t.name for t in built.model.adapter_weights + built.model.training_state
    }


@pytest.mark.parametrize("rate", [0.0, 1e-30, 1.0, 100.0, 1e6, 3e38])
def test_diverging_training_is_the_same_on_both_sides(project: Callable[[str], Built], rate: float) -> None:
    """Whatever the rate, the device computes what the interpreter does, without a warning of NumPy."""
    for name in ("plain", "regex"):
        built = project(name)
        with built.twin() as device:
            report = check_parity(
                built.model,
                built.opened.source.tflite,
                device,
                "host",
                built.samples(3),
                train_steps=4,
                learning_rate=rate,
            )
        assert report.parity, report.first_divergence


def test_a_real_model(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "fsdd_loso"
    board = load_board("host")
    report = generate_project(folder / "nicolas.tflite", board, tmp_path / "p")
    assert report.flash_bytes is None and report.ram_bytes is None
    opened = open_project(tmp_path / "p")
    dataset = load_dataset(f"{folder / 'nicolas.npz'}:x:y", opened.model.inference.inputs[0], 10)
    few = type(dataset)(dataset.x[::50], None if dataset.y is None else dataset.y[::50])
    with EMULATORS["host"].open(opened.directory, board) as device:
        assert check_parity(opened.model, opened.source.tflite, device, "host", few, train_steps=10).parity

"""`tinypeft generate` from a .keras: the happy path, and damaged files and unsuitable calibration samples."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
from invocation import generate, generate_refused, succeeded

from tinypeft.errors import OutputError
from tinypeft.generate import open_project

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier."""
    import os

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("keras") / "small-model.keras"
    keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(4, 3, activation="relu", name="first"),
            layers.DepthwiseConv2D(3, activation="relu", name="depthwise"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(3, name="head"),
        ]
    ).save(path)
    return path


def samples(folder: Path, x: np.ndarray) -> str:
    np.savez(folder / "calibration.npz", x=x)
    return f"{folder / 'calibration.npz'}:x"


GOOD = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype(np.float32)


def test_a_keras_model(keras_file: Path, tmp_path: Path) -> None:
    result = generate(keras_file, tmp_path / "p", "--calibration", samples(tmp_path, GOOD), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["trainable_parameters"] == 4 * (18 + 4) + 3 * 4 + 3
    manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
    assert [name for name, _ in manifest["keras_layers"]] == ["first", "depthwise", "pool", "head"]
    assert manifest["model"] == "small_model"
    opened = open_project(tmp_path / "p")
    assert [op.layer for op in opened.model.base.operations if "filter" in op.inputs] == ["first", "depthwise", "head"]
    data = samples(tmp_path, GOOD)
    report = succeeded("test", tmp_path / "p", "--data", data, "--limit", "2")
    assert report["parity"] is True
    assert "first_out" in (tmp_path / "p" / "src" / "small_model.c").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (GOOD[:, :5], r"have shape \(8, 5, 6, 2\), the model takes \(N, 6, 6, 2\)"),
        (GOOD[:0], "are empty"),
        (np.where(GOOD > 2, np.nan, GOOD), "have NaN or infinite values"),
    ],
)
def test_unsuitable_calibration(keras_file: Path, tmp_path: Path, x: np.ndarray, message: str) -> None:
    generate_refused(
        generate(keras_file, tmp_path / "p", "--calibration", samples(tmp_path, x)), tmp_path / "p", message
    )


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncated", "zeros in the middle", "no archive"])
def test_a_damaged_keras_file(keras_file: Path, tmp_path: Path, damage: str) -> None:
    data = bytearray(keras_file.read_bytes())
    if damage == "truncated":
        del data[len(data) // 2 :]
    elif damage == "no archive":
        data = bytearray(b"not a zip file")
    else:
        data[len(data) // 3 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 3)
    path = tmp_path / "damaged.keras"
    path.write_bytes(bytes(data))
    result = generate(path, tmp_path / "p", "--calibration", samples(tmp_path, GOOD))
    assert result.exit_code == 1 and result.stdout == "" and "Traceback" not in result.stderr
    assert re.search(r"^error: .*damaged\.keras", result.stderr, re.MULTILINE), result.stderr
    assert re.search("^try: ", result.stderr, re.MULTILINE) and not (tmp_path / "p").exists()


def test_a_keras_model_needs_calibration(keras_file: Path, tmp_path: Path) -> None:
    message = "is quantised with samples of its input, and none are given"
    generate_refused(generate(keras_file, tmp_path / "p"), tmp_path / "p", message, "--calibration F.npz:KEY")


def test_loftq_starts_from_the_float_weights(keras_file: Path, tmp_path: Path) -> None:
    """The factors travel with the project, and a fresh adapter on the device is the interpreter's."""
    arguments = ("--calibration", samples(tmp_path, GOOD), "--init-lora-weights", "loftq", "--r", "2")
    result = generate(keras_file, tmp_path / "p", *arguments, board="host")
    assert result.exit_code == 0, result.output
    model = open_project(tmp_path / "p").model
    state = model.fresh_state(0)
    assert all(state[p.master.name].any() for p in model.parameters if ".lora_" in p.peft_name)
    report = succeeded("test", tmp_path / "p", "--data", samples(tmp_path, GOOD), "--limit", "2")
    assert report["parity"]
    (tmp_path / "p" / "model" / "loftq.safetensors").unlink()
    with pytest.raises(OutputError, match="loftq"):
        open_project(tmp_path / "p")

"""Bad samples, options, adapters and projects for `run`, `test`, `train` and `build`: told, never a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from invocation import invoke, refused, succeeded
from projects import Built


def save(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "bad.npz", **arrays)
    return folder / "bad.npz"


GOOD = np.zeros((4, 8, 7, 2), np.int8)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (GOOD[:, :5], np.zeros(4, int), r"have shape \(4, 5, 7, 2\), the model takes \(N, 8, 7, 2\)"),
        (GOOD[:0], np.zeros(0, int), r"are empty"),
        (np.full(GOOD.shape, np.nan, np.float32), np.zeros(4, int), "have NaN or infinite values, first in sample 0"),
        (GOOD, np.array([0, 1, 5, 2]), r"label 2 of .* is 5, the model has classes 0 to 4"),
        (GOOD, np.array([0, -1, 1, 2]), r"label 1 of .* is -1"),
        (GOOD, np.zeros(3, int), r"labels .* have shape \(3,\), the samples need \(4,\)"),
        (GOOD, np.zeros(4), "labels .* have dtype float64, they must be integers"),
        (GOOD.astype(bool), np.zeros(4, int), "has dtype bool, supported are integers and floats"),
    ],
)
@pytest.mark.parametrize("command", ["run", "test", "train"])
def test_bad_samples(plain: Built, tmp_path: Path, command: str, x: np.ndarray, y: np.ndarray, message: str) -> None:
    path = save(tmp_path, x=x, y=y)
    refused(invoke(command, plain.directory, "--data", f"{path}:x:y", "--json"), message)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{}:z:y", "has no array 'z'; it has: x, y"),
        ("{}", "gives 0 keys, expected one or two keys"),
        ("{}:x:y:x", "gives 3 keys"),
        ("absent.npz:x", "absent.npz does not exist"),
        ("samples.csv", "samples.csv does not name arrays"),
    ],
)
def test_bad_data_options(plain: Built, tmp_path: Path, spec: str, message: str) -> None:
    path = save(tmp_path, x=GOOD, y=np.zeros(4, int))
    refused(invoke("run", plain.directory, "--data", spec.format(path)), message)


def test_damaged_data(plain: Built, tmp_path: Path) -> None:
    path = save(tmp_path, x=GOOD)
    path.write_bytes(path.read_bytes()[:200])
    refused(invoke("run", plain.directory, "--data", f"{path}:x"), "cannot be read")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--lr", "nan"], "--lr is nan"),
        (["train", "--lr", "-1"], "--lr is -1"),
        (["train", "--lr", "inf"], "--lr is inf"),
        (["train", "--lr", "1e39"], "--lr is 1e\\+39"),
        (["test", "--train-steps", "1", "--lr", "nan"], "--lr is nan"),
        (["test", "--train-steps", "1", "--lr", "-1"], "--lr is -1"),
        (["test", "--train-steps", "1", "--lr", "1e39"], "--lr is 1e\\+39"),
        (["train", "--shots", "2", "--train-split", "0.5"], "exclude each other"),
        (["train", "--shots", "0"], "Invalid value"),
        (["train", "--seed", "-1"], "Invalid value"),
        (["train", "--seed", "4294967296"], "Invalid value"),
        (["train", "--epochs", "0"], "Invalid value"),
        (["test", "--limit", "0"], "Invalid value"),
        (["run", "--on", "nowhere"], "Invalid value"),
    ],
)
def test_usage_errors(plain: Built, data: str, arguments: list[str], message: str) -> None:
    refused(invoke(arguments[0], plain.directory, "--data", data, *arguments[1:]), message, code=2)


def test_labels_are_needed_for_training(plain: Built, data: str) -> None:
    unlabelled = data.removesuffix(":y")
    refused(invoke("train", plain.directory, "--data", unlabelled), "names no labels", code=2)
    refused(invoke("test", plain.directory, "--data", unlabelled, "--train-steps", "1"), "names no labels", code=2)
    assert succeeded("test", plain.directory, "--data", unlabelled, "--limit", "1")["parity"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--shots", "1000"], r"class \d has \d+ samples, 1000 are asked for"),
        (["--train-split", "0"], "the train split is 0"),
        (["--train-split", "1.5"], "the train split is 1.5"),
        (["--train-split", "nan"], "the train split is nan"),
    ],
)
def test_bad_splits(plain: Built, data: str, extra: list[str], message: str) -> None:
    refused(invoke("train", plain.directory, "--data", data, *extra), message)


def test_a_project_without_adapter(project: Callable[[str], Built], tmp_path: Path) -> None:
    built = project("inference")
    data = built.save_samples(tmp_path / "data.npz")
    assert succeeded("run", built.directory, "--data", data)["accuracy"] is not None
    refused(invoke("train", built.directory, "--data", data), "without adapters")
    refused(invoke("test", built.directory, "--data", data, "--train-steps", "2"), "without adapters")
    (tmp_path / "a.bin").write_bytes(b"x" * 100)
    refused(
        invoke("run", built.directory, "--data", data, "--adapter", tmp_path / "a.bin"), "generated without adapters"
    )


def test_the_wrong_adapter(project: Callable[[str], Built], plain: Built, data: str, tmp_path: Path) -> None:
    succeeded("train", plain.directory, "--data", data, "--epochs", "1", "-o", tmp_path / "a")
    other = project("conv_mean")
    other_data = other.save_samples(tmp_path / "other.npz")
    refused(invoke("run", other.directory, "--data", other_data, "--adapter", tmp_path / "a"), "belongs to base model")
    batches = project("batches")
    refused(
        invoke("run", batches.directory, "--data", data, "--adapter", tmp_path / "a"),
        "has rank 4, the project's rank 2",
    )
    refused(invoke("run", plain.directory, "--data", data, "--adapter", tmp_path / "absent"), "cannot read the adapter")
    package = tmp_path / "a" / "adapter.bin"
    original = package.read_bytes()
    package.write_bytes(original[:90] + bytes([original[90] ^ 1]) + original[91:])
    refused(invoke("run", plain.directory, "--data", data, "--adapter", tmp_path / "a"), "checksum does not match")


def test_an_adapter_folder_with_other_content(plain: Built, data: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    refused(invoke("train", plain.directory, "--data", data, "-o", tmp_path), "holds something other than an adapter")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


# A damaged project


def _edit_manifest(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return damage


def _spoil_model(folder: Path) -> None:
    path = folder / "model" / "base.tflite"
    path.write_bytes(path.read_bytes()[:300])


DAMAGES: dict[str, Callable[[Path], None]] = {
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "no JSON": lambda folder: (folder / "manifest.json").write_text("{"),
    "a list": lambda folder: (folder / "manifest.json").write_text("[]"),
    "no base model": lambda folder: (folder / "model" / "base.tflite").unlink(),
    "half a base model": _spoil_model,
    "no adapter": _edit_manifest(lambda m: m.pop("adapter")),
    "adapter a list": _edit_manifest(lambda m: m.update(adapter=[])),
    "adapter of text": _edit_manifest(lambda m: m["adapter"].update(r="four")),
    "unknown adapter key": _edit_manifest(lambda m: m["adapter"].update(rank=4)),
    "unknown optimiser": _edit_manifest(lambda m: m["training"].update(optimizer="adagrad")),
    "batch of text": _edit_manifest(lambda m: m["training"].update(batch_size="x")),
    "training a number": _edit_manifest(lambda m: m.update(training=3)),
    "unknown board": _edit_manifest(lambda m: m.update(board="nonesuch")),
    "board a number": _edit_manifest(lambda m: m.update(board=3)),
    "layers a number": _edit_manifest(lambda m: m.update(keras_layers=3)),
    "layers of numbers": _edit_manifest(lambda m: m.update(keras_layers=[1, 2])),
    "no files": _edit_manifest(lambda m: m.pop("files")),
    "another rank": _edit_manifest(lambda m: m["adapter"].update(r=2)),
    "another name": _edit_manifest(lambda m: m.update(model="other")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_project(plain: Built, data: str, tmp_path: Path, damage: str) -> None:
    directory = plain.copy(tmp_path)
    DAMAGES[damage](directory)
    refused(invoke("run", directory, "--data", data), "tinypeft|damaged|tflite|board|adapter|optimizer")


@pytest.mark.parametrize("missing", ["Makefile", "src/plain.c", "firmware/kernels/tp_conv.c"])
def test_a_project_that_lacks_a_file(plain: Built, data: str, tmp_path: Path, missing: str) -> None:
    directory = plain.copy(tmp_path)
    shutil.rmtree(directory / "build")
    (directory / missing).unlink()
    refused(invoke("run", directory, "--data", data), "Makefile|building .* failed")


@pytest.mark.parametrize("command", ["run", "test", "train", "build"])
def test_no_project_at_all(data: str, tmp_path: Path, command: str) -> None:
    extra = [] if command == "build" else ["--data", data]
    refused(invoke(command, tmp_path / "absent", *extra), "is not a tinypeft project")
    refused(invoke(command, tmp_path, *extra), "is not a tinypeft project")

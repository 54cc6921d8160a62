"""`merge`, `adapter`, and --adapter of run, test and train: folders of ours, of PEFT, and packages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from invocation import invoke, refused, succeeded
from projects import Built

from tinypeft.frontend import read_tflite


@pytest.fixture(scope="module")
def adapter(plain: Built, data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter") / "a"
    succeeded("train", plain.directory, "--data", data, "--epochs", "3", "--no-guard", "-o", folder)
    return folder


def without_package(adapter: Path, folder: Path) -> Path:
    """The files as PEFT would have written them."""
    folder.mkdir()
    config = json.loads((adapter / "adapter_config.json").read_text())
    del config["tinypeft"]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())
    return folder


def test_merge(plain: Built, data: str, adapter: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "merged.tflite"
    report = succeeded("merge", plain.directory, "--adapter", adapter, "-o", output, "--data", data)
    assert [layer["layer"] for layer in report["layers"]] == list(plain.model.adapted_by)
    check = report["check"]
    assert check["interpreter_is_litert"] and check["samples"] == 20 and check["largest_difference"] <= 3
    unmerged = succeeded("run", plain.directory, "--data", data, "--adapter", adapter)
    assert check["unmerged"]["accuracy"] == unmerged["accuracy"]
    assert report["tflite_bytes"] == output.stat().st_size
    assert [op.kind for op in read_tflite(output.read_bytes()).operations] == [
        op.kind for op in plain.model.base.operations
    ]
    people = invoke("merge", plain.directory, "--adapter", adapter, "-o", output, "--data", data)
    assert people.exit_code == 0 and "the same bits" in people.stdout and "decisions are the same" in people.stdout
    refused(
        invoke("merge", plain.directory, "--adapter", adapter, "-o", output, "--keras", tmp_path / "m.keras"),
        "was not made from a Keras model",
    )


def test_the_merged_model_costs_what_the_base_costs(plain: Built, adapter: Path, tmp_path: Path) -> None:
    succeeded("merge", plain.directory, "--adapter", adapter, "-o", tmp_path / "merged.tflite")
    (tmp_path / "base.tflite").write_bytes(plain.opened.source.tflite)
    reports = [succeeded("analyze", tmp_path / f"{name}.tflite", "--adapter", "none") for name in ("base", "merged")]
    for report in reports:
        del report["model"]
    assert reports[0] == reports[1]


def test_folders_of_peft_run_and_train(plain: Built, data: str, adapter: Path, tmp_path: Path) -> None:
    """The masters alone make an adapter; a retrained classifier's scale may be another, its decisions are the same."""
    folder = without_package(adapter, tmp_path / "peft")
    arguments = plain.directory, "--data", data
    ours, peft = (succeeded("run", *arguments, "--adapter", a) for a in (adapter, folder))
    assert ours["accuracy"] == peft["accuracy"]
    once = "train", *arguments, "--epochs", "1", "--no-guard"
    assert succeeded(*once, "--adapter", adapter)["adapter_sha256"] != succeeded(*once)["adapter_sha256"]
    compared = succeeded("test", *arguments, "--adapter", folder, "--limit", "2", "--train-steps", "2")
    assert compared["parity"] is True and compared["steps_compared"] == 2
    people = invoke("test", *arguments, "--adapter", adapter, "--limit", "1")
    assert people.exit_code == 0 and "parity: interpreter = host" in people.stdout


def test_export_import_and_inspect(plain: Built, adapter: Path, tmp_path: Path) -> None:
    package = (adapter / "adapter.bin").read_bytes()
    succeeded("adapter", "export", plain.directory, "--adapter", adapter / "adapter.bin", "-o", tmp_path / "exported")
    assert (tmp_path / "exported" / "adapter.bin").read_bytes() == package
    succeeded("adapter", "import", plain.directory, tmp_path / "exported", "-o", tmp_path / "imported")
    assert (tmp_path / "imported" / "adapter.bin").read_bytes() == package
    folder = without_package(adapter, tmp_path / "peft")
    report = succeeded("adapter", "import", plain.directory, folder, "-o", tmp_path / "of_peft")
    assert report["package_bytes"] == len(package)
    described = succeeded("adapter", "inspect", adapter)
    assert described["config"]["peft_type"] == "LORA" and len(described["tensors"]) == len(plain.model.parameters)
    header = succeeded("adapter", "inspect", adapter / "adapter.bin")
    assert header["fingerprint"] == plain.model.fingerprint.hex()
    assert header["payload_bytes"] == plain.model.adapter_bytes
    assert "lora_alpha: 8" in invoke("adapter", "inspect", adapter).stdout


def test_refusals(plain: Built, data: str, adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(invoke("adapter", "import", plain.directory, tmp_path / "none", "-o", out), "cannot read the adapter")
    refused(invoke("adapter", "import", plain.directory, adapter, "--map", "stem", "-o", out), "MODULE=LAYER", code=2)
    refused(
        invoke("adapter", "import", plain.directory, adapter, "--map", "stem=stemm", "-o", out), "names the layer stemm"
    )
    keras = tmp_path / "a.keras"
    refused(invoke("adapter", "import", plain.directory, keras, "-o", out), "not generated from a Keras model")
    refused(invoke("adapter", "inspect", tmp_path / "none"), "cannot read")
    broken = without_package(adapter, tmp_path / "broken")
    (broken / "adapter_model.safetensors").write_bytes(np.random.default_rng(0).bytes(200))
    refused(invoke("run", plain.directory, "--data", data, "--adapter", broken), "is damaged")
    assert not out.exists()


def test_kinds_without_a_merged_form(project, tmp_path: Path) -> None:
    built = project("input_offset")
    package = tmp_path / "adapter.bin"
    with built.twin() as twin:
        package.write_bytes(twin.export_adapter())
    refused(
        invoke("merge", built.directory, "--adapter", package, "-o", tmp_path / "m.tflite"),
        "the input_offset on the input cannot be merged: it moves the input",
    )
    assert not (tmp_path / "m.tflite").exists()

"""`bench MODEL`: tables and JSON of a model file and of generated folders, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from emulation import need
from invocation import invoke, refused, succeeded
from projects import BOARD, Built, save_model


@pytest.fixture(autouse=True)
def tools() -> None:
    need("qemu", BOARD)


def test_a_model_file_is_built_without_an_adapter(tmp_path: Path) -> None:
    report = succeeded("bench", save_model("plain", tmp_path), "--board", "mps3_an547")
    assert (report["board"], report["core"], report["cycles"]) == ("mps3_an547", "cortex-m55", None)
    assert report["instructions"] > report["macs"] > 0 and "train" not in report
    assert not any("LORA" in row["kind"] for row in report["operators"])
    assert {row["backend"] for row in report["operators"]} == {"mve", "portable"}
    assert not list(tmp_path.glob("*/"))


def test_a_training_step_has_the_adapter_that_is_asked_for(tmp_path: Path) -> None:
    model = save_model("plain", tmp_path)
    report = succeeded("bench", "model", model, "--board", BOARD, "--train", "--r", "2")
    assert report["train"]["cycles"] > report["cycles"] > 0
    assert any(row["kind"] == "LORA_DOWN" for row in report["operators"])
    assert any(row["kind"] == "SOFTMAX_CROSS_ENTROPY" for row in report["train"]["operators"])


def test_folders_side_by_side(plain: Built, project: Callable[[str], Built]) -> None:
    other = project("classifier_only").directory
    result = invoke("bench", plain.directory, "--train", "--beside", other)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    for part in ("plain on stm32f4_discovery: an inference", "a training step", "estimated cycles", "around the calls"):
        assert part in text
    for graph in ("inference: estimated cycles", "training: estimated cycles"):
        assert graph in text
    report = succeeded("bench", plain.directory, "--board", BOARD, "--beside", other)
    assert [each["model"] for each in report["beside"]] == ["plain"]
    assert report["beside"][0]["instructions"] < report["instructions"]


def test_kernels_side_by_side(tmp_path: Path) -> None:
    model = save_model("plain", tmp_path)
    arguments = ("bench", model, "--board", BOARD, "--kernels", "portable,auto")
    report = succeeded(*arguments)
    (other,) = report["beside"]
    assert {row["backend"] for row in report["operators"]} == {"portable"}
    assert {row["name"] for row in report["operators"]} == {row["name"] for row in other["operators"]}
    assert other["cycles"] <= report["cycles"] and other["macs"] == report["macs"]
    result = invoke(*arguments)
    assert result.exit_code == 0 and "portable" in result.stdout and "auto" in result.stdout


def test_refusals(plain: Built, tmp_path: Path) -> None:
    model = save_model("plain", tmp_path)
    refused(invoke("bench", tmp_path / "none.tflite", "--board", BOARD), r"none\.tflite does not exist")
    refused(invoke("bench", model, "--board", "stm32f4"), "unknown board 'stm32f4'")
    refused(invoke("bench", model, "--board", "host"), "board host does not run on qemu")
    refused(invoke("bench", model, "--board", BOARD, "--beside", "dps"), "there is no kernel backend 'dps'")
    refused(invoke("bench", plain.directory, "--beside", "portable"), "name the model or a folder", code=2)
    refused(invoke("bench", tmp_path), "is not a tinypeft project")
    refused(invoke("bench", model), "Missing --board", code=2)
    refused(invoke("bench", "--json"), "Missing MODEL", code=2)
    refused(invoke("bench", plain.directory, "--r", "2"), "generated already: --r would", code=2)
    refused(invoke("bench", plain.directory, "--board", "mps2_an385"), "is generated for stm32f4_discovery", code=2)
    refused(invoke("bench", "plannr"), r"No such command and no such file 'plannr'\. Did you mean 'planner'", code=2)


def test_the_group_tells_of_both_forms() -> None:
    result = invoke("bench", "--help")
    assert result.exit_code == 0 and "bench model MODEL" in result.stdout and "planner" in result.stdout

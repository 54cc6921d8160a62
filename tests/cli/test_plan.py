"""`tinypeft plan`: what it prints and writes, that `generate` builds what it chose, and its errors."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from invocation import generate, invoke, refused
from projects import BOARD, save_model
from small_models import load, samples

from tinypeft.generate import open_project

SCHEMA = Path(__file__).resolve().parents[2] / "tinypeft" / "schemas" / "plan-1.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """plain.tflite and its samples."""
    path = tmp_path_factory.mktemp("plan")
    dataset = samples(load("mlp"), 8)
    assert dataset.y is not None
    np.savez(path / "data.npz", x=dataset.x, y=dataset.y)
    save_model("mlp", path)
    return path


def arguments(folder: Path, *more: str) -> list[str]:
    return ["plan", str(folder / "mlp.tflite"), "--board", BOARD, "--data", f"{folder / 'data.npz'}:x:y", *more]


def test_a_plan_is_built_by_generate_as_it_says(folder: Path, tmp_path: Path) -> None:
    config, page = tmp_path / "tinypeft.toml", tmp_path / "frontier.html"
    result = invoke(*arguments(folder, "--ram", "9KiB", "-o", str(config), "--plot", str(page), "--json"))
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(report)
    (chosen,) = [plan for plan in report["frontier"] if plan["chosen"]]
    assert chosen["ram_bytes"] <= 9 * 1024 and report["budget"]["ram_bytes"] == 9 * 1024
    assert report["labels"] == "given" and report["samples"] == 8
    written = tomllib.loads(config.read_text())
    assert written["board"] == {"name": BOARD, "stack_bytes": 4096, "ram_budget": 9 * 1024}

    project = tmp_path / "p"
    made = generate(folder / "mlp.tflite", project, "--config", str(config), "--json")
    assert made.exit_code == 0, made.output
    sizes = json.loads(made.stdout)
    assert sizes["ram_bytes"]["total"] <= chosen["ram_bytes"] and sizes["recomputed_operations"] == 0
    assert sizes["trainable_parameters"] == chosen["trainable_parameters"]
    assert abs(sizes["flash_bytes"] / chosen["flash_bytes"] - 1) < 0.15
    adapted = {parameter.layer for parameter in open_project(project).model.parameters}
    assert adapted == {layer["layer"] for layer in chosen["layers"]}

    stored = invoke(*arguments(folder, "--samples", "4", "--limit", "6", "-o", str(config), "--json"))
    assert stored.exit_code == 0, stored.output
    assert json.loads(stored.stdout)["samples"] == 6
    assert tomllib.loads(config.read_text())["board"]["samples"] == 4

    text = page.read_text()
    assert "<svg" in text and "Content-Security-Policy" in text and "http" not in text.split("</title>")[1]
    assert text.count('class="plan chosen"') == 2 and all(plan["label"] in text for plan in report["frontier"])


def test_kernels_are_planned_with_and_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CMSIS_NN_PATH", raising=False)
    config = tmp_path / "tinypeft.toml"
    plans = {}
    for name, kernels in (("portable", ("--kernels", "portable")), ("speed", ("--optimize", "speed"))):
        result = invoke(*arguments(folder, *kernels, "-o", str(config), "--json"))
        assert result.exit_code == 0, result.output
        plans[name] = next(plan for plan in json.loads(result.stdout)["frontier"] if plan["chosen"])
        written = tomllib.loads(config.read_text())["kernels"]
        assert written == ({"backends": ["portable"]} if name == "portable" else {"optimize": "speed"})
        made = generate(folder / "mlp.tflite", tmp_path / name, "--config", str(config))
        assert made.exit_code == 0, made.output
    assert open_project(tmp_path / "speed").kernels.optimize == "speed"
    assert plans["portable"]["flash_bytes"] != plans["speed"]["flash_bytes"]


def test_people_see_the_chosen_plan_marked(folder: Path) -> None:
    result = invoke("plan", folder / "mlp.tflite", "--board", "host", "--data", f"{folder / 'data.npz'}:x")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("→") == 1 and "without labels: its own decisions count" in result.stdout
    assert "100.0%" in result.stdout and "chosen: " in result.stdout


def test_nothing_fits(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "tinypeft.toml"
    result = invoke(*arguments(folder, "--ram", "5KB", "-o", str(config)))
    assert result.exit_code == 1 and result.stdout == "" and not config.exists()
    message = (
        r"\nerror: no adapter of mlp fits: the least, .* needs [\d,]+ B of RAM, .*; that is [\d,]+ B of RAM beyond"
    )
    assert re.search(message, result.stderr) and re.search(r"\ntry: --ram \d+\n", result.stderr), result.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--ram", "lots"], "'lots' is no size such as 40KB, 40KiB or 65536"),
        (["--plot", "frontier.png"], "--plot frontier.png: the frontier is drawn as a page, name it F.html"),
        (["--measure", "--board", "host"], "--measure counts under QEMU"),
        (["--r", "4"], "No such option"),
    ],
)
def test_options_that_cannot_be(folder: Path, more: list[str], message: str) -> None:
    refused(invoke(*arguments(folder, *more)), message, code=2)


def test_samples_are_needed(folder: Path) -> None:
    refused(invoke("plan", folder / "mlp.tflite", "--board", BOARD), "Missing --data, or --calibration", code=2)


def test_a_folder_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    result = invoke(*arguments(folder, "-o", str(tmp_path / "none" / "tinypeft.toml")))
    refused(result, "cannot write .*none/tinypeft.toml: No such file or directory")


@pytest.mark.slow
def test_instructions_are_counted_and_the_estimate_is_near(folder: Path) -> None:
    result = invoke(*arguments(folder, "--ram", "9KiB", "--measure", "--json"))
    assert result.exit_code == 0, result.output
    (chosen,) = [plan for plan in json.loads(result.stdout)["frontier"] if plan["chosen"]]
    assert chosen["instructions_measured"] == pytest.approx(chosen["instructions_per_step"], rel=0.3)

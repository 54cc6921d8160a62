"""`tinypeft analyze`: tables for people, JSON by its schema, the page; what it says is what `generate` then reports."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from invocation import generate, invoke, refused, succeeded
from projects import BOARD, save_model
from test_generate import big_model

import tinypeft
from tinypeft.boards import load_board
from tinypeft.cli import main


def schema(name: str) -> dict:
    return json.loads((Path(tinypeft.__file__).parent / "schemas" / f"{name}.json").read_text())


def test_for_people(tmp_path: Path) -> None:
    result = invoke("analyze", save_model("plain", tmp_path), "--board", BOARD)
    assert result.exit_code == 0, result.output
    text = result.stdout
    for part in (
        *("plain on stm32f4_discovery: lora r=4, alpha 8; sgd, batch 1", "inference: ", "training: "),
        *("Forward", "Loss", "Backward", "Update", "tp_conv_s8", "adds LoRA r=4", "C for every core, int8"),
        *(
            "optimal (proved)",
            "live at the peak of inference",
            "live at the peak of training",
            "fits stm32f4_discovery",
        ),
        *("RAM sram", "flash", "(estimate)", "runtime ~1,216", "All else is exact", "MACs a training step"),
    ):
        assert part in text, part
    assert re.search(r"RAM sram +█*░+ +[\d,]+ of 131,072 B  \d+\.\d%", text)
    assert list(tmp_path.iterdir()) == [tmp_path / "plain.tflite"], "nothing is generated"


@pytest.mark.parametrize(
    ("graph", "shown", "hidden"),
    [
        ("inference", "inference: ", "training: "),
        ("training", "training: ", "inference: "),
        ("all", "inference: ", None),
    ],
)
def test_the_graphs_that_are_listed(tmp_path: Path, graph: str, shown: str, hidden: str | None) -> None:
    lines = invoke("analyze", save_model("plain", tmp_path), "--graph", graph).stdout.splitlines()
    assert any(line.startswith(shown) for line in lines)
    assert hidden is None or not any(line.startswith(hidden) for line in lines)


def test_without_adapter_and_board(tmp_path: Path) -> None:
    model = save_model("residual", tmp_path)
    text = invoke("analyze", model, "--adapter", "none").stdout
    assert "no adapter: inference only" in text and "training" not in text
    assert "does not fit" not in text and "fits" not in text
    for board in ([], ["--board", "host"]):
        analysis = succeeded("analyze", model, "--adapter", "none", *board)
        assert analysis["board"] is None and analysis["fit"] == {"fits": None, "ways": []}
        assert [graph["name"] for graph in analysis["graphs"]] == ["inference"]


def test_json_and_page(tmp_path: Path) -> None:
    model, page = save_model("plain", tmp_path), tmp_path / "page.html"
    analysis = succeeded("analyze", model, "--board", BOARD, "--html", page, "--graph", "inference")
    jsonschema.Draft202012Validator(schema("analysis-1")).validate(analysis)
    assert {"inference", "training"} <= {graph["name"] for graph in analysis["graphs"]}
    assert page.read_text().startswith("<!DOCTYPE html>") and "Memory map of training" in page.read_text()
    first = page.read_bytes()
    told = invoke("analyze", model, "--board", BOARD, "--html", page)
    assert told.exit_code == 0 and f"written to {page}" in told.stdout.replace("\n", "")
    assert page.read_bytes() == first


@pytest.mark.parametrize("extra", [[], ["--r", "2", "--momentum", "0.9"], ["--adapter", "none"]])
def test_measured_is_what_generate_reports(tmp_path: Path, extra: list[str]) -> None:
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed; apt install gcc-arm-none-eabi")
    model = save_model("plain", tmp_path)
    analysis = succeeded("analyze", model, "--board", BOARD, "--measure", *extra)
    assert [p.name for p in tmp_path.iterdir()] == ["plain.tflite"]
    result = generate(model, tmp_path / "p", *extra, "--json")
    assert result.exit_code == 0, result.output
    report, memory, totals = json.loads(result.stdout), analysis["memory"], analysis["totals"]
    assert memory["ram"]["basis"] == memory["flash"]["basis"] == "measured"
    assert (memory["ram"]["bytes"], memory["flash"]["bytes"]) == (report["ram_bytes"]["total"], report["flash_bytes"])
    for key in ("macs", "arena_bytes", "trainable_parameters", "base_parameters"):
        assert totals[key] == report[key]
    for part in memory["ram"]["parts"]:
        assert part["name"] == "runtime" or part["bytes"] == report["ram_bytes"][part["name"]]


def test_what_does_not_fit(tmp_path: Path) -> None:
    """Three ways at most, the cheapest first; each that stays on the board, analysed itself, fits."""
    model = big_model(tmp_path)
    analysis = succeeded("analyze", model, "--board", BOARD, "--measure")
    assert analysis["fit"]["fits"] is False and analysis["notes"] == [
        f"Not measured: it does not fit {BOARD}, so it cannot be linked."
    ]
    ways = analysis["fit"]["ways"]
    assert 2 <= len(ways) <= 3
    lost = [way["lost_parameters"] for way in ways]
    assert lost == sorted(lost) and lost[0] == 0
    for way in ways:
        if way["options"].startswith("--board "):
            memories = load_board(way["options"].split()[1]).memories
            assert sum(region.length for region in memories if region.kind == "ram") >= way["ram_bytes"]
            continue
        again = succeeded("analyze", model, "--board", BOARD, *shlex.split(way["options"]))
        assert again["fit"]["fits"] and again["memory"]["ram"]["bytes"] == way["ram_bytes"]
        assert again["totals"]["trainable_parameters"] == way["trainable_parameters"]
    text = invoke("analyze", model, "--board", BOARD).stdout
    assert f"does not fit {BOARD}" in text
    for way in ways:
        assert f"   {way['options']}\n" in text, "an option is printed in one line, to be copied"


def test_options_from_a_file(tmp_path: Path) -> None:
    save_model("plain", tmp_path)
    config = tmp_path / "tinypeft.toml"
    config.write_text(f'[model]\npath = "plain.tflite"\n[board]\nname = "{BOARD}"\n[adapter]\nr = 2\n')
    analysis = succeeded("analyze", "--config", config)
    assert analysis["configuration"]["adapter"]["r"] == 2 and analysis["board"]["name"] == BOARD
    assert succeeded("analyze", "--config", config, "--r", "3")["configuration"]["adapter"]["r"] == 3


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        ([], "Missing MODEL", 2),
        (["{model}", "--graph", "loss"], "'loss' is not one of", 2),
        (["{model}", "--measure"], "--measure builds firmware: give it a --board", 2),
        (["{model}", "--measure", "--board", "host"], "--measure builds firmware", 2),
        (["{model}", "--stack-bytes", "1001"], "no multiple of 8", 2),
        (["absent.tflite"], "absent.tflite does not exist", 1),
        (["{model}", "--board", "stm32f4_discover"], f"unknown board .*\n.*did you mean {BOARD}", 1),
        (["{model}", "--r", "0"], "r is 0, the limits are 1 and 256", 1),
        (["{model}", "--html", "{folder}/absent/page.html"], "cannot write .*page.html: No such file", 1),
        (["{model}", "--html", "{folder}"], "cannot write ", 1),
    ],
)
def test_refusals(tmp_path: Path, arguments: list[str], message: str, code: int) -> None:
    model = save_model("plain", tmp_path)
    result = CliRunner().invoke(main, ["analyze", *(a.format(model=model, folder=tmp_path) for a in arguments)])
    refused(result, message, code)
    assert [p.name for p in tmp_path.iterdir()] == ["plain.tflite"]

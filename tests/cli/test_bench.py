"""`bench planner`: a table or JSON of instances and of models' graphs, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from invocation import invoke, refused, succeeded
from projects import Built, save_model

from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import compile_model
from tinypeft.demo import DemoFiles
from tinypeft.frontend import load_model
from tinypeft.planner import plan_arena
from tinypeft.stages.autodiff import TrainingConfig

SMALL = "id,lower,upper,size\nb1,0,3,4\nb2,3,9,4\nb3,0,9,4\nb4,9,21,4\nb5,0,21,4\n"
#: first fit by size needs 16 bytes here
WIDE = "id,lower,upper,size\na,0,2,4\nb,1,4,8\nc,3,6,4\nd,2,5,4\n"


def test_instances_as_json_and_as_a_table(tmp_path: Path) -> None:
    (tmp_path / "small.csv").write_text(SMALL)
    (tmp_path / "wide.csv").write_text(WIDE)
    report = succeeded("bench", "planner", "--instances", tmp_path, "--time-limit", "20")
    assert (report["effort"], report["time_limit"]) == ("exact", 20.0)
    small, wide = report["instances"]
    assert (small["name"], small["buffers"], small["lower_bound"], small["arena_bytes"]) == ("small", 5, 12, 12)
    assert wide["name"] == "wide" and wide["greedy_bytes"] >= wide["arena_bytes"] == wide["bound"] == 16
    for row in (small, wide):
        assert row["optimal"] and row["gap_bytes"] == 0 and row["gap_percent"] == 0
        assert row["proof"] in ("lower bound met", "exact search", "CP-SAT") and row["method"]
    result = invoke("bench", "planner", "--instances", tmp_path / "small.csv", "--effort", "fast")
    assert result.exit_code == 0 and "optimal (proved)" in result.stdout and "wide" not in result.stdout
    assert "small: 12 B, optimal (proved)" in result.stderr


def test_what_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results are no worse for it here."""
    (tmp_path / "wide.csv").write_text(WIDE)
    monkeypatch.setattr("tinypeft.planner.native.why_not_native", lambda: "no compiler")
    monkeypatch.setattr("tinypeft.planner.cp_sat.available", lambda: False)
    result = invoke("bench", "planner", "--instances", tmp_path)
    assert result.exit_code == 0 and "optimal (proved)" in result.stdout
    assert "runs in Python, some fifty times slower than in C: no compiler" in result.stderr.replace("\n", " ")
    assert "pip install 'tinypeft[planner]'" in result.stderr.replace("\n", " ")
    assert len(succeeded("bench", "planner", "--instances", tmp_path)["missing"]) == 2
    assert succeeded("bench", "planner", "--instances", tmp_path, "--effort", "fast")["missing"] == []


def test_a_gap_is_told_in_bytes_and_per_cent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.csv").write_text(SMALL)

    def higher(*arguments, **options):
        plan = plan_arena(*arguments, **options)
        plan.arena_bytes += 3
        return plan

    monkeypatch.setattr("tinypeft.cli.bench.plan_arena", higher)
    result = invoke("bench", "planner", "--instances", tmp_path)
    assert "3 B (25.00 %)" in result.stdout and "optimal" not in result.stdout


def test_the_graphs_of_a_model_and_of_a_project(plain: Built, tmp_path: Path) -> None:
    model = save_model("plain", tmp_path)
    report = succeeded("bench", "planner", model, plain.directory, "--effort", "fast")
    names = [row["name"] for row in report["instances"]]
    assert [name.split()[-1] for name in names] == ["inference", "training"] * 2
    source = load_model(model)
    compiled = compile_model(source.name, source.fingerprint, source.graph, AdapterConfig(), TrainingConfig())
    assert compiled.training is not None
    plan = compiled.arena.plans["training"]
    assert report["instances"][1]["arena_bytes"] == plan.arena_bytes
    assert report["instances"][1]["buffers"] == len(plan.buffers)


def test_without_arguments_it_runs_on_the_demo_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here with a ready .tflite in place of the model that Keras would train."""
    model = save_model("plain", tmp_path)
    data = tmp_path / "data.npz"
    np.savez(data, x_base=np.zeros((2, 4), np.float32))
    monkeypatch.setattr("tinypeft.cli.bench.make_model", lambda folder: DemoFiles(model, data))
    result = invoke("bench", "planner", "--effort", "fast", "--json")
    assert result.exit_code == 0, result.output
    assert [row["name"] for row in json.loads(result.stdout)["instances"]] == ["plain inference", "plain training"]
    assert "runs on the demo's model" in result.stderr.replace("\n", " ")


def test_refusals(tmp_path: Path) -> None:
    faulty = tmp_path / "faulty.csv"
    faulty.write_text(SMALL + "b6,3,3,4\n")
    refused(invoke("bench", "planner", "--instances", tmp_path), r"faulty\.csv, line 7: upper is 3")
    refused(invoke("bench", "planner", "--instances", tmp_path / "none"), "cannot be read")
    refused(invoke("bench", "planner", tmp_path / "none.tflite"), "does not exist")
    refused(invoke("bench", "planner", "--time-limit", "0"), "time-limit", code=2)
    refused(invoke("bench", "plan"), "No such command", code=2)

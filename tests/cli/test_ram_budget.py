"""`tinypeft generate --ram-budget`: kept to by the ELF, in the manifest, the same training; or refused with figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from invocation import generate, generate_refused
from projects import save_model
from small_models import learning_rate, load, samples

from tinypeft.cli.byte_size import ByteSize
from tinypeft.cli.compile_options import compile_settings
from tinypeft.data import Dataset
from tinypeft.emulators import EMULATORS
from tinypeft.generate import open_project
from tinypeft.parity import check_parity
from tinypeft.project import build_twin


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The report of the model without a budget."""
    folder = tmp_path_factory.mktemp("full")
    result = generate(save_model("residual", folder), folder / "p", "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_project_within_a_budget(tmp_path: Path, full: dict) -> None:
    budget = full["ram_bytes"]["total"] - 600
    folder = tmp_path / "p"
    config = tmp_path / "tinypeft.toml"
    config.write_text(f"[board]\nram_budget = {budget}\n")
    result = generate(save_model("residual", tmp_path), folder, "--config", str(config), "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["ram_bytes"]["total"] <= budget < full["ram_bytes"]["total"]
    assert report["recomputed_operations"] > 0 and report["recomputed_macs"] > 0
    assert full["recomputed_operations"] == full["recomputed_macs"] == 0
    opened = open_project(folder)
    assert opened.model.recomputed is not None
    assert len(opened.model.recomputed.again) == report["recomputed_operations"]
    source = load("residual")
    dataset: Dataset = samples(source, 3)
    build_twin(folder)
    with EMULATORS["host"].open(folder, opened.board) as device:
        parity = check_parity(
            opened.model,
            opened.source.tflite,
            device,
            "host",
            dataset,
            train_steps=6,
            learning_rate=learning_rate("residual"),
        )
    assert parity.parity and parity.steps_compared == 6


@pytest.mark.parametrize(("written", "size"), [("12KB", 12000), ("12KiB", 12288), ("0.5MiB", 524288), ("9000", 9000)])
def test_a_budget_has_a_unit(tmp_path: Path, written: str, size: int) -> None:
    config = tmp_path / "tinypeft.toml"
    config.write_text(f'[model]\npath = "m.tflite"\n[board]\nram_budget = "{written}"\n')
    assert compile_settings(str(config), {}).memory.ram_budget == size
    flag = ByteSize().convert(written, None, None)
    assert compile_settings(None, {"model": "m.tflite", "ram_budget": flag}).memory.ram_budget == size


def test_a_unit_that_is_none_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "tinypeft.toml"
    config.write_text('[board]\nram_budget = "40 apples"\n')
    result = generate(save_model("residual", tmp_path), tmp_path / "p", "--config", str(config))
    generate_refused(result, tmp_path / "p", "ram_budget: '40 apples' is no size such as 40KB, 40KiB or 65536", code=2)


def test_people_are_told_what_it_costs(tmp_path: Path, full: dict) -> None:
    budget = full["ram_bytes"]["total"] - 600
    result = generate(save_model("residual", tmp_path), tmp_path / "p", "--ram-budget", str(budget))
    assert result.exit_code == 0, result.output
    assert "again to stay within the RAM budget" in " ".join(result.stdout.split())


def test_too_small_a_budget_is_refused(tmp_path: Path) -> None:
    result = generate(save_model("residual", tmp_path), tmp_path / "p", "--ram-budget", "6000")
    message = r"needs [\d,]+ B of RAM, the budget is 6,000 B; with \d+ operations of training run again it needs"
    generate_refused(result, tmp_path / "p", message, r"--ram-budget \d+")


@pytest.mark.parametrize("value", ["0", "-5", "many", "40 apples", "0.5"])
def test_a_budget_is_a_positive_number(tmp_path: Path, value: str) -> None:
    result = generate(save_model("residual", tmp_path), tmp_path / "p", "--ram-budget", value)
    generate_refused(result, tmp_path / "p", "Invalid value for '--ram-budget'", code=2)

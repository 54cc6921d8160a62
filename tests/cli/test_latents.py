"""`generate --latents` and `train` from latents: the adapter of training from the input, reports, RAM, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import small_models
from invocation import generate, generate_refused, invoke, succeeded
from projects import save_model

from tinypeft.generate import open_project

ADAPTERS = ("--r", "2", "--target-modules", "again|head", "--samples", "16")


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same model without latents and with them."""
    folder = tmp_path_factory.mktemp("latents")
    model = save_model("residual", folder)
    for name in ("without", "with"):
        extra = ("--latents",) if name == "with" else ()
        result = generate(model, folder / name, *ADAPTERS, *extra, board="host")
        assert result.exit_code == 0, result.output
    return folder / "without", folder / "with"


def train(project: Path, data: str, *extra: str) -> dict:
    return succeeded("train", project, "--data", data, "--train-split", "0.6", "--epochs", "3", "--lr", "0.002", *extra)


@pytest.fixture(scope="module")
def samples(projects: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    path, dataset = (
        tmp_path_factory.mktemp("data") / "data.npz",
        small_models.samples(small_models.load("residual"), 20),
    )
    assert dataset.y is not None
    np.savez(path, x=dataset.x, y=dataset.y)
    return f"{path}:x:y"


@pytest.mark.parametrize("extra", [["--no-guard"], ["--patience", "2"], ["--schedule", "linear"], ["--lr", "1e30"]])
def test_the_adapter_is_the_same(projects: tuple[Path, Path], samples: str, extra: list[str]) -> None:
    """With guard rails and without, by the host and by the device itself; all else that is reported, too."""
    expected, found = (train(project, samples, *extra) for project in projects)
    kept = "samples_from_latents"
    assert found[kept] > 0 and expected[kept] == 0
    assert found | {kept: 0} == expected
    alone = train(projects[1], samples, *extra, "--on-device")
    assert alone["adapter_sha256"] == train(projects[0], samples, *extra, "--on-device")["adapter_sha256"]


def test_every_sample_has_room(projects: tuple[Path, Path]) -> None:
    """Of the store; what it takes is counted as replay."""
    plain, latent = (open_project(project).model for project in projects)
    assert latent.latent is not None and latent.replay_bytes == plain.replay_bytes + 16 * latent.latent.nbytes
    source = (projects[1] / "src" / "residual_device.c").read_text()
    assert "latents[16][RESIDUAL_LATENT_BYTES];" in source
    assert "latents" not in (projects[0] / "src" / "residual_device.c").read_text()


def test_without_a_store_there_is_room_for_one(projects: tuple[Path, Path], samples: str, tmp_path: Path) -> None:
    """The others are learned from their inputs, with the same adapter, and a person is told."""
    model = save_model("residual", tmp_path)
    result = generate(model, tmp_path / "p", *ADAPTERS[:-2], "--latents", "--json")
    assert result.exit_code == 0, result.output
    opened, ram = open_project(tmp_path / "p").model, json.loads(result.stdout)["ram_bytes"]
    assert opened.latent is not None and ram["replay"] == opened.replay_bytes == opened.latent.nbytes == 216
    assert sum(size for part, size in ram.items() if part != "total") == ram["total"]
    report = train(tmp_path / "p", samples, "--no-guard")
    assert report["samples_from_latents"] == 1
    assert report["adapter_sha256"] == train(projects[0], samples, "--no-guard")["adapter_sha256"]
    learned = report["steps"] // 3
    told = invoke("train", tmp_path / "p", "--data", samples, "--train-split", "0.6", "--epochs", "1", "--no-guard")
    assert f"1 of {learned} samples were learned from their latents" in told.stdout
    assert f"--samples {learned}" in told.stdout


def test_parity_of_the_command_line(projects: tuple[Path, Path], samples: str) -> None:
    reports = [succeeded("test", project, "--data", samples, "--train-steps", "4") for project in projects]
    assert all(report["parity"] for report in reports)
    assert reports[1]["layers_compared"] > reports[0]["layers_compared"]


def test_refusals(tmp_path: Path) -> None:
    model = save_model("plain", tmp_path)
    result = generate(model, tmp_path / "p", "--latents")
    generate_refused(result, tmp_path / "p", "the first adapter reads the model's input", "leave --latents out")
    result = generate(model, tmp_path / "p", "--latents", "--target-modules", "pointwise", "--samples", "2000")
    generate_refused(result, tmp_path / "p", r"plain needs [\d,]+ B of RAM .*samples and latents [\d,]+")
    result = generate(model, tmp_path / "p", "--latents", "--target-modules", "pointwise", "--ram-budget", "5KiB")
    generate_refused(result, tmp_path / "p", r"plain needs [\d,]+ B of RAM, the budget is 5,120 B", "or --no-latents")

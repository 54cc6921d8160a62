"""`generate --samples` and `train` with guard rails: reports, files, the store in RAM, refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from fits import with_store
from invocation import generate, generate_refused, invoke, refused, succeeded
from projects import Built, save_model

from tinypeft.generate import open_project


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """A project with room for 16 samples."""
    return with_store("plain", tmp_path_factory.mktemp("stored"))


def train(built: Built, folder: Path, *extra: str) -> list[str | Path]:
    data = built.save_samples(folder / "data.npz", 32)
    return ["train", built.directory, "--data", data, "--train-split", "0.4", "--epochs", "3", "--lr", "0.05", *extra]


def test_guard_rails_are_the_default(plain: Built, tmp_path: Path) -> None:
    report = succeeded(*train(plain, tmp_path, "--hold-back", "1"))
    fit = report["fit"]
    assert fit["held_back"] > 0 and report["steps"] == fit["steps"] == 3 * fit["learned"]
    assert fit["end"] == "all_epochs" and len(report["loss_per_epoch"]) == 3
    assert set(fit["before"]) == set(fit["after"]) == {"right", "loss"}
    share = succeeded(*train(plain, tmp_path, "--hold-back", "0.5"))["fit"]
    assert share["held_back"] > fit["held_back"]
    without = succeeded(*train(plain, tmp_path, "--no-guard"))
    assert without["fit"] is None and without["steps"] == 3 * (fit["learned"] + fit["held_back"])
    assert set(without) == set(report)


def test_a_rate_that_diverges(plain: Built, tmp_path: Path) -> None:
    """The adapter written is the fresh one, as good as before."""
    report = succeeded(*train(plain, tmp_path, "--lr", "1e30", "-o", str(tmp_path / "a")))
    assert report["fit"]["undone"] == 3 and report["fit"]["end"] == "too_many_undone" and not report["fit"]["kept"]
    assert report["accuracy_before"] == report["accuracy_after"]
    with plain.twin() as device:
        device.reset_adapter(0)
        assert (tmp_path / "a" / "adapter.bin").read_bytes() == device.export_adapter()
    text = invoke(*train(plain, tmp_path, "--lr", "1e30")).stdout
    assert re.search(r"samples held back: right decisions \d+ -> \d+, mean loss", text) and "not kept" in text
    assert "3 updates diverged and were undone" in text


def test_patience(plain: Built, tmp_path: Path) -> None:
    result = invoke(*train(plain, tmp_path, "--epochs", "30", "--patience", "1"))
    assert result.exit_code == 0 and re.search(r"ended after epoch \d+, the best was \d+", result.stdout), result.output


def test_on_the_device_by_itself(stored: Built, tmp_path: Path) -> None:
    """The same adapter as where the host drives it, with guard rails and without."""
    for extra in (("--patience", "2"), ("--lr", "0.1")):
        alone, driven = (succeeded(*train(stored, tmp_path, *extra, *by)) for by in (("--on-device",), ()))
        assert alone == driven and alone["fit"]["held_back"] > 0
    unguarded = succeeded(*train(stored, tmp_path, "--on-device", "--no-guard"))
    assert unguarded["fit"]["held_back"] == 0 and unguarded["fit"]["before"]["loss"] is None


def test_a_schedule(stored: Built, tmp_path: Path) -> None:
    """It counts the updates of what is not held back, and the device follows it."""
    falling = train(stored, tmp_path, "--schedule", "cosine", "--warmup", "0.1", "-o", str(tmp_path / "a"))
    alone, driven = (succeeded(*falling, *by) for by in (("--on-device",), ()))
    constant = succeeded(*train(stored, tmp_path))
    assert alone == driven and alone["adapter_sha256"] != constant["adapter_sha256"]
    schedule = json.loads((tmp_path / "a" / "adapter_config.json").read_text())["tinypeft"]["schedule"]
    assert schedule["total_steps"] == alone["fit"]["updates"] == 3 * alone["fit"]["learned"]


def test_refusals(plain: Built, stored: Built, tmp_path: Path) -> None:
    refused(invoke(*train(plain, tmp_path, "--on-device")), "plain has no store of samples")
    refused(
        invoke(*train(stored, tmp_path, "--on-device", "--train-split", "0.9")),
        r"\d+ samples are more than the 16 that plain has",
    )
    few = [a for a in train(plain, tmp_path, "--shots", "1") if a not in ("--train-split", "0.4")]
    refused(invoke(*few), r"none is held back by held_back 0 and a share of 0.2")
    refused(invoke(*train(plain, tmp_path, "--hold-back", "1.5")), "--hold-back is 1.5", code=2)
    refused(invoke(*train(plain, tmp_path, "--hold-back", "0")), "--hold-back is 0", code=2)
    refused(invoke(*train(plain, tmp_path, "--no-guard", "--patience", "2")), "--no-guard leaves them out", code=2)


def test_the_store_is_generated_and_counted(tmp_path: Path) -> None:
    (tmp_path / "tinypeft.toml").write_text("[board]\nsamples = 20\n")
    model = save_model("plain", tmp_path)
    result = generate(model, tmp_path / "p", "--config", str(tmp_path / "tinypeft.toml"), "--json")
    assert result.exit_code == 0, result.output
    ram = json.loads(result.stdout)["ram_bytes"]
    opened = open_project(tmp_path / "p").model
    assert opened.store is not None and opened.store.samples == 20
    assert ram["replay"] == opened.replay_bytes
    source = (tmp_path / "p" / "src" / "plain_device.c").read_text()
    assert f"store[20][{opened.store.sample_bytes}];" in source and "sizeof store + sizeof fit_memory" in source
    usage = succeeded("analyze", model, "--board", "stm32f4_discovery", "--samples", "20")
    assert {"name": "replay", "bytes": opened.replay_bytes, "basis": "exact"} in usage["memory"]["ram"]["parts"]


def test_a_store_too_large_for_the_board(tmp_path: Path) -> None:
    result = generate(save_model("plain", tmp_path), tmp_path / "p", "--samples", "5000")
    generate_refused(result, tmp_path / "p", r"plain needs [\d,]+ B of RAM")


@pytest.mark.parametrize(("extra", "message", "code"), [
    (("--adapter", "none", "--samples", "4"), "a store of 4 samples is of no use: plain has no adapter", 1),
    (("--samples", "70000"), "70000 is not in the range", 2),
])  # fmt: skip
def test_stores_that_are_none(tmp_path: Path, extra: tuple[str, ...], message: str, code: int) -> None:
    generate_refused(generate(save_model("plain", tmp_path), tmp_path / "p", *extra), tmp_path / "p", message, "", code)

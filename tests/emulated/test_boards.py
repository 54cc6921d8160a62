"""End to end on emulated boards: parity, the twin's adapter, exact counts, stack and guards."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from projects import save_model
from small_models import load, samples

from tinypeft.boards import load_board
from tinypeft.cli import main
from tinypeft.emulators import EMULATORS

BOARDS = ("stm32f4_discovery", "mps2_an386")
#: Bytes of the reserved stack that must stay unused
MARGIN = 1024


def invoke(*arguments: str | Path) -> dict:
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def need(emulator: str, board: str) -> None:
    reason = EMULATORS[emulator].missing()
    if reason is not None:
        pytest.skip(reason)
    if emulator not in load_board(board).emulators:
        pytest.skip(f"{board} has no settings for {emulator}")
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed; apt install gcc-arm-none-eabi")


def make(folder: Path, name: str, board: str, *extra: str) -> tuple[Path, str]:
    """(project, --data)."""
    project = folder / "project"
    invoke("generate", save_model(name, folder), "--board", board, "-o", project, *extra)
    dataset = samples(load(name), 24)
    assert dataset.y is not None
    np.savez(folder / "data.npz", x=dataset.x, y=dataset.y)
    return project, f"{folder / 'data.npz'}:x:y"


CASES = {
    "plain": ("plain", []),
    "residual": ("residual", ["--momentum", "0.9"]),
    "batches": ("softmax_end", ["--batch-size", "4", "--momentum", "0.5"]),
}


@pytest.mark.parametrize("emulator", ["qemu", "renode"])
@pytest.mark.parametrize(
    ("case", "board"),
    [
        ("plain", BOARDS[0]),
        ("plain", BOARDS[1]),
        ("batches", BOARDS[0]),
        ("residual", BOARDS[1]),
        pytest.param("batches", BOARDS[1], marks=pytest.mark.slow),
        pytest.param("residual", BOARDS[0], marks=pytest.mark.slow),
    ],
)
def test_small_models(tmp_path: Path, emulator: str, board: str, case: str) -> None:
    need(emulator, board)
    name, extra = CASES[case]
    project, data = make(tmp_path, name, board, *extra)
    rate = "0.002" if name == "residual" else "0.05"
    report = invoke("test", project, "--on", emulator, "--data", data, "--limit", 10, "--train-steps", 40, "--lr", rate)
    assert report["parity"] is True and report["steps_compared"] == 40 and report["first_divergence"] is None

    runs = [invoke("run", project, "--on", emulator, "--data", data, "--limit", 5) for _ in range(2)]
    assert runs[0] == runs[1]
    host = invoke("run", project, "--data", data, "--limit", 5)
    assert runs[0]["outputs_sha256"] == host["outputs_sha256"] and runs[0]["accuracy"] == host["accuracy"]

    training = ["--data", data, "--epochs", 4, "--lr", rate]
    trained = [invoke("train", project, "--on", emulator, *training, "-o", tmp_path / f"adapter{i}") for i in range(2)]
    assert trained[0] == trained[1]
    twin = invoke("train", project, *training)
    assert trained[0]["adapter_sha256"] == twin["adapter_sha256"]
    assert trained[0]["loss_per_epoch"] == twin["loss_per_epoch"]
    assert trained[0]["steps"] >= 40 and trained[0]["guards_intact"] is True
    assert 0 < trained[0]["stack_high_water"] <= 4096 - MARGIN
    counts = [runs[0]["instructions_per_inference"], trained[0]["instructions_per_step"]]
    if emulator == "qemu" and None not in counts:
        assert 1000 < counts[0] < counts[1]
    files = [(tmp_path / f"adapter{i}" / "adapter_model.safetensors").read_bytes() for i in range(2)]
    assert files[0] == files[1]
    kept = invoke("run", project, "--on", emulator, "--data", data, "--adapter", tmp_path / "adapter0")
    assert (
        kept["outputs_sha256"]
        == invoke("run", project, "--data", data, "--adapter", tmp_path / "adapter0")["outputs_sha256"]
    )


def test_instructions_are_counted_where_the_plugin_builds(tmp_path: Path) -> None:
    """Exact counts are the same in every run and differ between models; None is told apart from zero."""
    from tinypeft.emulators.icount import build_plugin

    need("qemu", BOARDS[0])
    plugin, reason = build_plugin()
    if plugin is None:
        pytest.skip(str(reason))
    project, data = make(tmp_path, "mlp", BOARDS[0])
    counts = [invoke("run", project, "--on", "qemu", "--data", data)["instructions_per_inference"] for _ in range(2)]
    assert counts[0] == counts[1] and counts[0] > 1000


@pytest.mark.parametrize("emulator", ["qemu", "renode"])
@pytest.mark.parametrize("board", [BOARDS[0], pytest.param(BOARDS[1], marks=pytest.mark.slow)])
def test_a_real_model(shared_data: Path, tmp_path: Path, emulator: str, board: str) -> None:
    """A keyword model: 10 inputs and 40 steps compared at every operation; the adapter is the twin's."""
    need(emulator, board)
    folder, project = shared_data / "fsdd_loso", tmp_path / "project"
    report = invoke("generate", folder / "nicolas.tflite", "--board", board, "-o", project)
    assert report["arena_bytes"] - report["arena_lower_bound"] < 8
    data = np.load(folder / "nicolas.npz")
    chosen = np.arange(0, len(data["x"]), 10)
    np.savez(tmp_path / "data.npz", x=data["x"][chosen], y=data["y"][chosen])
    spec = f"{tmp_path / 'data.npz'}:x:y"
    parity = invoke("test", project, "--on", emulator, "--data", spec, "--limit", 10, "--train-steps", 40)
    assert parity["parity"] is True and parity["steps_compared"] == 40
    training = ["--data", spec, "--shots", 4, "--epochs", 1]
    trained, twin = (invoke("train", project, "--on", on, *training) for on in (emulator, "host"))
    assert trained["steps"] == 40 and trained["adapter_sha256"] == twin["adapter_sha256"]
    assert trained["accuracy_after"] == twin["accuracy_after"]
    assert trained["guards_intact"] and trained["stack_high_water"] <= 4096 - MARGIN

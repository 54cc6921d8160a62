"""End to end on emulated boards: parity, the twin's adapter, exact counts, stack and guards."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from emulation import invoke, need
from projects import save_model
from small_models import load, samples

from tinypeft.boards import board_names, board_on, describe_twin, load_board
from tinypeft.cli import main
from tinypeft.emulators import EMULATORS

BOARDS = ("stm32f4_discovery", "mps2_an386")
ALL_BOARDS = [name for name in board_names() if not load_board(name).is_host]
#: Bytes of the reserved stack that must stay unused
MARGIN = 1024


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
    "latents": (
        "residual",
        ["--momentum", "0.5", "--r", "2", "--target-modules", "again|head", "--latents", "--samples", "16"],
    ),
    "adam8": ("plain", ["--optimizer", "adam8", "--weight-decay", "0.01"]),
}


@pytest.mark.parametrize("board", ALL_BOARDS)
def test_every_board(tmp_path: Path, board: str) -> None:
    """Its firmware builds; on it or its twin every layer and training step has the bits of LiteRT and interpreter."""
    need("qemu", board)
    project, data = make(tmp_path, "plain", board)
    steps = ["--data", data, "--limit", 5, "--train-steps", 10, "--lr", "0.05"]
    report = invoke("test", project, "--on", "qemu", *steps)
    assert report["parity"] is True and report["steps_compared"] == 10 and report["first_divergence"] is None
    assert report["ran_on"] == board_on(load_board(board), "qemu").name
    assert (project / "build" / "firmware.elf").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["residual", "batches", "adam8"])
@pytest.mark.parametrize("board", ["raspberry_pi_pico", "mps2_an385", "nucleo_h743zi", "nucleo_l552ze_q", "mps3_an547"])
def test_every_core(tmp_path: Path, board: str, case: str) -> None:
    """Larger graphs, whole training runs: the adapter is the host twin's."""
    need("qemu", board)
    name, extra = CASES[case]
    project, data = make(tmp_path, name, board, *extra)
    rate = "0.002" if name == "residual" else "0.05"
    report = invoke("test", project, "--on", "qemu", "--data", data, "--limit", 10, "--train-steps", 40, "--lr", rate)
    assert report["parity"] is True and report["steps_compared"] == 40
    training = ["--data", data, "--epochs", 4, "--lr", rate, "--schedule", "cosine", "--warmup", "0.1"]
    trained, twin = invoke("train", project, "--on", "qemu", *training), invoke("train", project, *training)
    assert trained["adapter_sha256"] == twin["adapter_sha256"] and trained["loss_per_epoch"] == twin["loss_per_epoch"]
    assert trained["guards_intact"] is True and 0 < trained["stack_high_water"] <= 4096 - MARGIN
    assert trained["ran_on"] == board_on(load_board(board), "qemu").name and twin["ran_on"] == "host"


def test_a_twin_is_announced(tmp_path: Path) -> None:
    """A person is told which machine stands in, and the board's own ELF is built all the same elsewhere."""
    need("qemu", "nucleo_h743zi")
    project, data = make(tmp_path, "mlp", "nucleo_h743zi")
    arguments = ["test", str(project), "--on", "qemu", "--data", data, "--limit", "2"]
    result = CliRunner().invoke(main, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    told = f"qemu has no nucleo_h743zi: runs on {describe_twin(load_board('nucleo_h743zi'))}"
    assert told in result.stderr
    assert "parity: LiteRT = interpreter = qemu (mps2_an500)" in result.stdout


def test_a_board_without_machine_and_twin_says_so(tmp_path: Path) -> None:
    project, data = make(tmp_path, "mlp", "bbc_microbit")
    if EMULATORS["renode"].missing() is not None:
        pytest.skip("renode is not installed")
    result = CliRunner().invoke(main, ["test", str(project), "--on", "renode", "--data", data])
    assert result.exit_code == 1 and "bbc_microbit does not run on renode" in result.stderr


@pytest.mark.parametrize("board", [name for name in ALL_BOARDS if "renode" in load_board(name).emulators])
def test_scripts_for_renode(tmp_path: Path, board: str) -> None:
    """Written beside the firmware, with the platform and UART of the board file."""
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed; apt install gcc-arm-none-eabi")
    project, _ = make(tmp_path, "mlp", board)
    settings = load_board(board).emulators["renode"]
    for name in ("firmware.resc", "firmware.robot"):
        text = (project / "build" / name).read_text()
        assert f"@{settings['platform']}\n" in text and settings["uart"] in text


@pytest.mark.parametrize("emulator", ["qemu", "renode"])
@pytest.mark.parametrize(
    ("case", "board"),
    [
        ("plain", BOARDS[0]),
        ("plain", BOARDS[1]),
        ("batches", BOARDS[0]),
        ("residual", BOARDS[1]),
        ("latents", BOARDS[0]),
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
        assert (trained[0]["instructions_per_encoding"] is not None) == (case == "latents")
    files = [(tmp_path / f"adapter{i}" / "adapter_model.safetensors").read_bytes() for i in range(2)]
    assert files[0] == files[1]
    kept = invoke("run", project, "--on", emulator, "--data", data, "--adapter", tmp_path / "adapter0")
    assert (
        kept["outputs_sha256"]
        == invoke("run", project, "--data", data, "--adapter", tmp_path / "adapter0")["outputs_sha256"]
    )


@pytest.mark.parametrize("board", [BOARDS[0], "bbc_microbit", "mps3_an547"])
def test_instructions_are_counted_where_the_plugin_builds(tmp_path: Path, board: str) -> None:
    """Exact counts are the same in every run; None is told apart from zero."""
    from tinypeft.emulators.icount import build_plugin

    need("qemu", board)
    plugin, reason = build_plugin()
    if plugin is None:
        pytest.skip(str(reason))
    project, data = make(tmp_path, "mlp", board)
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
    training = ["--data", spec, "--shots", 4, "--epochs", 1]  # one shot of the four is held back
    trained, twin = (invoke("train", project, "--on", on, *training) for on in (emulator, "host"))
    assert trained["steps"] == 30 and trained["adapter_sha256"] == twin["adapter_sha256"]
    assert trained["accuracy_after"] == twin["accuracy_after"]
    assert trained["guards_intact"] and trained["stack_high_water"] <= 4096 - MARGIN

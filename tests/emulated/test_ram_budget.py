"""All RAM of a keyword model that trains at full depth, below 40 KB: the same adapter as without a budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from emulation import invoke, need

BOARD = "mps2_an386"
BUDGET, STACK = 40_000, 2048


def test_training_within_40_kb_learns_the_same(shared_data: Path, tmp_path: Path) -> None:
    """Arena, adapter, masters, stack and the runtime's data; gradients of 8 bits in both."""
    need("qemu", BOARD)
    model = shared_data / "fsdd_loso" / "nicolas.tflite"
    given = ["generate", model, "--board", BOARD, "--grad-bits", 8]
    free = invoke(*given, "-o", tmp_path / "free")
    small = invoke(*given, "--stack-bytes", STACK, "--ram-budget", BUDGET, "-o", tmp_path / "small")
    assert small["ram_bytes"]["total"] <= BUDGET < free["ram_bytes"]["total"]
    with np.load(model.with_suffix(".npz")) as data:
        np.savez(tmp_path / "data.npz", x=data["x"][::10], y=data["y"][::10])
    training = ["--data", f"{tmp_path / 'data.npz'}:x:y", "--shots", 2, "--no-guard", "--epochs", 1]
    learned = invoke("train", tmp_path / "small", "--on", "qemu", *training)
    assert learned["steps"] == 20 and learned["guards_intact"] and learned["stack_high_water"] < STACK - 512
    without = invoke("train", tmp_path / "free", "--on", "host", *training)
    assert learned["adapter_sha256"] == without["adapter_sha256"]

"""All RAM of a keyword model that trains at full depth, within budgets: the same adapter as without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from emulation import invoke, need

BOARD = "mps2_an386"
STACK = 2048


@pytest.mark.parametrize(("grad_bits", "budget"), [(8, 40_000), (16, 56_000)])
def test_training_within_a_budget_learns_the_same(
    grad_bits: int, budget: int, shared_data: Path, tmp_path: Path
) -> None:
    """Arena, adapter, masters, stack and the runtime's data; fast kernels, for gradients of 16 bits, run again too."""
    need("qemu", BOARD)
    model = shared_data / "fsdd_loso" / "nicolas.tflite"
    given = ["generate", model, "--board", BOARD, "--grad-bits", grad_bits]
    free = invoke(*given, "-o", tmp_path / "free")
    small = invoke(*given, "--stack-bytes", STACK, "--ram-budget", budget, "-o", tmp_path / "small")
    assert small["ram_bytes"]["total"] <= budget < free["ram_bytes"]["total"]
    with np.load(model.with_suffix(".npz")) as data:
        np.savez(tmp_path / "data.npz", x=data["x"][::10], y=data["y"][::10])
    training = ["--data", f"{tmp_path / 'data.npz'}:x:y", "--shots", 2, "--no-guard", "--epochs", 1]
    learned = invoke("train", tmp_path / "small", "--on", "qemu", *training)
    assert learned["steps"] == 20 and learned["guards_intact"] and learned["stack_high_water"] < STACK - 512
    without = invoke("train", tmp_path / "free", "--on", "host", *training)
    assert learned["adapter_sha256"] == without["adapter_sha256"]

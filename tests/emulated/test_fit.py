"""A board that trains by itself under QEMU: the adapter and the decisions of the interpreter, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from emulation import need
from fits import task, with_store
from projects import BOARD

from tinypeft.device.fit import End
from tinypeft.emulators import EMULATORS
from tinypeft.fit import FitConfig
from tinypeft.project import build_twin


@pytest.mark.parametrize("name", ["plain", "latents", pytest.param("batches", marks=pytest.mark.slow)])
def test_a_board_by_itself(tmp_path: Path, name: str) -> None:
    need("qemu", BOARD)
    built = with_store(name, tmp_path, BOARD)
    of = task(built)
    configs = {
        "epochs": FitConfig(2, built.learning_rate, seed=3, held_back=1, patience=1),
        "undone": FitConfig(2, 1e30, seed=3, held_back=1, max_undone=2),
    }
    expected = {key: of.interpreted(config) for key, config in configs.items()}
    assert expected["undone"].result.end is End.TOO_MANY_UNDONE and not expected["undone"].result.kept
    build_twin(built.directory)
    for emulator in ("host", "qemu"):
        with EMULATORS[emulator].open(built.directory, built.opened.board) as device:
            for key, config in configs.items():
                assert of.alone(device, config) == expected[key], f"{key} on {emulator}"
    ram, latent = built.report.ram_bytes, built.model.latent
    latents = 0 if latent is None else 16 * latent.nbytes
    assert ram is not None and built.model.store is not None
    assert (
        ram["replay"]
        == built.model.replay_bytes
        == 16 * built.model.store.sample_bytes + built.model.store.fit_bytes + latents
    )
    assert sum(size for part, size in ram.items() if part != "total") == ram["total"]

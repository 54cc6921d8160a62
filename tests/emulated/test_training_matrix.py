"""Every adapter kind, optimiser and loss trains to the same bits in the interpreter, on the host and under QEMU."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from training_matrix import (
    TRAININGS,
    VARIANTS,
    MatrixProject,
    by_model,
    expected_lines,
    first_difference,
    models,
)

from tinypeft.adapters import ADAPTERS
from tinypeft.boards import load_board
from tinypeft.emulators import EMULATORS
from tinypeft.losses import LOSSES
from tinypeft.optimizers import OPTIMIZERS

BOARD = "mps2_an386"


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> MatrixProject:
    """The folder in which kernels are compiled once."""
    reason = EMULATORS["qemu"].missing()
    if reason is not None:
        pytest.skip(reason)
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed; apt install gcc-arm-none-eabi")
    return MatrixProject(tmp_path_factory.mktemp("matrix"), load_board(BOARD))


def _compare(matrix: MatrixProject, variant: str, steps: int) -> None:
    combinations = models(variant)
    matrix.build(combinations, steps, "build/firmware.elf", "host")
    expected = {c.name: expected_lines(c, steps) for c in combinations}
    for place, lines in (("host twin", matrix.host_lines()), ("QEMU", matrix.qemu_lines())):
        assert lines[-1] == "done", f"{place}: {lines[-1]}"
        found = dict(by_model(lines[:-1]))
        assert set(found) == set(expected), place
        for combination in combinations:
            difference = first_difference(combination, expected[combination.name], found[combination.name])
            assert difference is None, f"{place}: {difference}"
    for combination in combinations:
        _assert_learned(combination.model.adapter_weights, expected[combination.name])


def _assert_learned(weights: list, lines: list[str]) -> None:
    """Some adapter weight has changed: equal bits of training that does nothing would say nothing."""
    first, last = (line.split(" ")[3 : 3 + len(weights)] for line in (lines[0], lines[-2]))
    assert first != last, f"nothing was learned: {lines[-2]}"


@pytest.mark.parametrize("variant", VARIANTS)
def test_trains_to_the_same_bits(matrix: MatrixProject, variant: str) -> None:
    _compare(matrix, variant, 5)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_trains_long_to_the_same_bits(matrix: MatrixProject, variant: str) -> None:
    _compare(matrix, variant, 50)


def test_the_matrix_holds_every_kind_optimizer_and_loss() -> None:
    assert {kind for config in VARIANTS.values() for kind in config.kinds} == set(ADAPTERS)
    assert {config.optimizer for config in TRAININGS.values()} == set(OPTIMIZERS)
    wanted = {(loss, target) for loss, entry in LOSSES.items() for target in entry.targets}
    assert {(config.loss, config.target) for config in TRAININGS.values()} == wanted
    assert any(config.momentum and not config.nesterov for config in TRAININGS.values())
    assert any(config.nesterov for config in TRAININGS.values())


def test_a_difference_is_named(tmp_path: Path) -> None:
    combination = models("bitfit")[0]
    lines = expected_lines(combination, 2)
    assert first_difference(combination, lines, list(lines)) is None
    words = lines[1].split(" ")
    for at, name in ((2, "the loss"), (3, combination.model.adapter_weights[0].name)):
        wrong = " ".join([*words[:at], "0" * 8, *words[at + 1 :]])
        assert name in str(first_difference(combination, lines, [lines[0], wrong, *lines[2:]]))
    assert "3 lines" in str(first_difference(combination, lines, lines[:3]))

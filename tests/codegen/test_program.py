"""The generated model in a C program: clean under the sanitizers, and equal to the interpreter to the bit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from caller import compile_library, expected_lines, run_program
from projects import CONFIGURATIONS, Built

SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
STEPS = 5


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], list[Path]]:
    """(bits of gradients) -> the kernels with sanitizers."""

    @functools.cache
    def library(bits: int) -> list[Path]:
        return compile_library(tmp_path_factory.mktemp("sanitized"), [*SANITIZERS, f"-DTP_GRADIENT_BITS={bits}"])

    return library


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The kernels without."""
    return compile_library(tmp_path_factory.mktemp("quiet"), [])


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_under_the_sanitizers(
    project: Callable[[str], Built], sanitized: Callable[[int], list[Path]], tmp_path: Path, name: str
) -> None:
    """Inference, training, export and load without a report; outputs, losses and all state as interpreted."""
    built = project(name)
    bits = built.model.training_config.grad_bits
    flags = [*SANITIZERS, f"-DTP_GRADIENT_BITS={bits}"]
    lines, expected = run_program(built, tmp_path, sanitized(bits), flags, STEPS), expected_lines(built, STEPS)
    assert len(expected) >= STEPS
    for number, (line, wanted) in enumerate(zip(lines, expected, strict=True)):
        assert line == wanted, f"line {number}"


@pytest.mark.parametrize("name", ["plain", "batches", "inference"])
def test_without_tracing(project: Callable[[str], Built], quiet: list[Path], tmp_path: Path, name: str) -> None:
    built, flags = project(name), ["-DTP_NO_TRACE", "-Wall", "-Wextra", "-Werror"]
    assert run_program(built, tmp_path, quiet, flags, STEPS) == expected_lines(built, STEPS)

"""`tinypeft train --replay` and `--min-gain`: samples of others are learned from, and a gain is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from emulation import invoke
from projects import Built

from tinypeft.cli import main


@pytest.fixture(scope="module")
def files(project: Callable[[str], Built], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """(project, data, replayed data) of random samples."""
    built, folder = project("plain"), tmp_path_factory.mktemp("data")
    own, others = built.samples(40, 5), built.samples(12, 6)
    np.savez(folder / "own.npz", x=own.x, y=own.y)
    np.savez(folder / "others.npz", x=others.x, y=others.y)
    return built.directory, f"{folder / 'own.npz'}:x:y", f"{folder / 'others.npz'}:x:y"


def test_replayed_samples_are_learned_from(files: tuple[Path, str, str]) -> None:
    directory, data, others = files
    given = ["train", directory, "--data", data, "--epochs", 2]
    alone, both = invoke(*given), invoke(*given, "--replay", others)
    assert both["fit"]["held_back"] == alone["fit"]["held_back"] > 0
    assert both["fit"]["learned"] == alone["fit"]["learned"] + 12
    assert both["adapter_sha256"] != alone["adapter_sha256"]
    assert both["accuracy_before"] == alone["accuracy_before"], "measured on the same samples"
    free = invoke(*given, "--replay", others, "--no-guard")
    assert free["steps"] == invoke(*given, "--no-guard")["steps"] + 24


def test_a_gain_that_is_out_of_reach(files: tuple[Path, str, str]) -> None:
    directory, data, _ = files
    report = invoke("train", directory, "--data", data, "--epochs", 2, "--min-gain", 1000)
    assert report["fit"]["kept"] is False
    assert report["accuracy_after"] == report["accuracy_before"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--replay", "nothing.npz:x:y"], 1, "nothing.npz"),
        (["--replay", "{data}"], 2, "--replay {data} names no labels"),
        (["--min-gain", "1", "--no-guard"], 2, "--min-gain are of the guard rails"),
        (["--min-gain", "-1"], 2, "--min-gain"),
    ],
)
def test_refusals(files: tuple[Path, str, str], arguments: list[str], code: int, said: str) -> None:
    directory, data, _ = files
    unlabelled = data.rpartition(":")[0]
    given = [each.format(data=unlabelled) for each in arguments]
    result = CliRunner().invoke(main, ["train", str(directory), "--data", data, *given])
    assert result.exit_code == code and said.format(data=unlabelled) in " ".join(result.stderr.split())

"""Integer methods of the personalisation benchmark: trained and cached, summarised, drawn, refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tinypeft.benchmark import load_benchmark
from tinypeft.benchmark.cache import cache_folder
from tinypeft.benchmark.device_results import Cost, DeviceResult, device_results, summarize_device
from tinypeft.benchmark.methods import METHODS
from tinypeft.benchmark.plot import plot_users
from tinypeft.cli import main
from tinypeft.errors import DataError

COST = Cost(10, 100, 1000, 50, 2000, 1000)


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", "personalise", *arguments])


def results(*values: tuple[str, int, float, float]) -> list[DeviceResult]:
    return [DeviceResult("head", user, seed, value, before, COST) for user, seed, value, before in values]


def test_means_are_of_users_and_what_is_lost_of_runs(data: Path) -> None:
    found = results(("ada", 0, 0.9, 0.5), ("ada", 1, 0.7, 0.75), ("bob", 0, 0.6, 0.6))
    (summary,) = summarize_device(load_benchmark("fsdd"), found)
    assert summary.users == {"ada": pytest.approx(0.8), "bob": 0.6}
    assert (summary.mean, summary.worst) == (pytest.approx(0.7), 0.6)
    assert summary.lost == pytest.approx(0.05) and summary.rate == 0.02 and summary.cost == COST


def test_of_errors_less_is_better(data: Path) -> None:
    dataset = load_benchmark("fsdd")
    dataset.metric = "mse"
    (summary,) = summarize_device(dataset, results(("ada", 0, 0.9, 0.5), ("bob", 0, 0.2, 0.6)))
    assert summary.worst == 0.9 and summary.lost == pytest.approx(0.4)


def test_the_same_results_give_the_same_picture(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    dataset = load_benchmark("fsdd")
    summaries = summarize_device(dataset, results(("ada", 0, 0.9, 0.5), ("bob", 0, 0.6, 0.6)))
    pictures = []
    for name in ("a.svg", "b.svg"):
        plot_users(tmp_path / name, dataset, summaries)
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] == pictures[1] and b"<svg" in pictures[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "heads"), "unknown method 'heads'"),
        (("--users", "zoe"), "there is no user 'zoe'"),
        (("--plot", "users.txt"), "users.txt is no name of a picture"),
        (("--plot", "absent/users.svg"), "its folder does not exist"),
    ],
)
def test_refusals(data: Path, arguments: tuple[str, ...], message: str) -> None:
    result = bench(*arguments)
    assert result.exit_code == 1 and message in result.stderr and "try: " in result.stderr


def test_no_data_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYPEFT_DATA", str(tmp_path / "absent"))
    result = bench()
    assert result.exit_code == 1 and "TINYPEFT_DATA" in result.stderr


def test_every_method_is_filed_under_its_name() -> None:
    assert {"head", "lora", "lora int4", "bitfit", "ia3", "bottleneck", "sparse"} <= set(METHODS)
    assert all(name == method.name and method.rate > 0 for name, method in METHODS.items())


@pytest.mark.slow
def test_trains_every_method_once(data: Path) -> None:
    """All of them learn from a speaker of bumps; what is cached is taken as it is."""
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    result = bench("--users", "bob", "--seeds", "1", "--floats", "base,head", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert [s["method"] for s in report["device"]] == list(METHODS) and len(report["float"]) == 2
    costs = {s["method"]: s["cost"] for s in report["device"]}
    assert costs["head"]["package_bytes"] < costs["lora int4"]["package_bytes"] < costs["lora"]["package_bytes"]
    dataset = load_benchmark("fsdd")
    path = next((cache_folder() / "device" / "fsdd").glob("bob-0-head-*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"value": 0.125}))
    (cached,) = device_results(dataset, ["head"], [0], ["bob"])
    assert cached.value == 0.125
    (guarded,) = device_results(dataset, ["head"], [0], ["bob"], guard=True)
    assert guarded.value != 0.125 and dataclasses.asdict(guarded.cost) == costs["head"]


def test_unknown_methods_are_refused(data: Path) -> None:
    with pytest.raises(DataError, match="unknown method 'nothing'"):
        device_results(load_benchmark("fsdd"), ["nothing"], [0])

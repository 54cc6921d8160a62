"""Base models and float baselines by the process that trains: cached, computed again where damaged, summarised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from tinypeft.benchmark import base_models, float_results, load_benchmark, summarize  # noqa: E402
from tinypeft.benchmark.cache import cache_folder, digest  # noqa: E402
from tinypeft.benchmark.datasets import BaseTraining, BenchmarkDataset  # noqa: E402
from tinypeft.benchmark.datasets.fsdd import Fsdd  # noqa: E402
from tinypeft.benchmark.float_baselines import FloatResult  # noqa: E402
from tinypeft.benchmark.training import adjust_logits, class_weights  # noqa: E402
from tinypeft.errors import DataError, ToolError  # noqa: E402


class Recorder:
    """A progress callback that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int]] = []

    def __call__(self, what: str, done: int, total: int) -> None:
        assert 0 <= done <= total and total > 0
        self.seen.append((what, done, total))


def result(method: str, rate: float, user: str, seed: int, value: float) -> FloatResult:
    return FloatResult(method, rate, user, seed, value)


@pytest.mark.slow
def test_trains_once_and_again_where_the_cache_is_damaged(data: Path) -> None:
    dataset, progress, idle = load_benchmark("fsdd"), Recorder(), Recorder()
    results = float_results(dataset, ["base", "head"], [0], ["bob"], progress)
    assert ("fsdd: training the base model bob", 15, 15) in progress.seen
    assert ("fsdd: float head at 0.02, bob, seed 0", 1, 2) in progress.seen
    assert [(r.method, r.rate, r.user, r.seed) for r in results] == [("base", 0.0, "bob", 0), ("head", 0.02, "bob", 0)]
    assert all(0 <= r.value <= 1 for r in results)

    model = base_models(dataset, ["bob"], idle)["bob"]
    assert model.calibration.shape == (120, 49, 10, 1) and model.path.is_relative_to(cache_folder())
    assert float_results(dataset, ["base", "head"], [0], ["bob"], idle) == results
    assert not idle.seen, "what is in the cache was computed again"

    content = model.path.read_bytes()
    model.path.write_bytes(content[: len(content) // 2])
    damaged = list((cache_folder() / "float" / "fsdd").glob("bob-0-*.json"))
    for path in damaged:
        path.write_text('{"value": 0.')
    again = Recorder()
    assert float_results(dataset, ["base", "head"], [0], ["bob"], again) == results, "training is not deterministic"
    assert ("fsdd: training the base model bob", 15, 15) in again.seen and len(damaged) == 2


def test_an_error_of_the_process_arrives(data: Path) -> None:
    dataset = load_benchmark("fsdd")
    (data / "fsdd_mfcc.npz").rename(data / "elsewhere.npz")
    dataset.arrays = dict(np.load(data / "elsewhere.npz"))
    with pytest.raises(DataError, match="fsdd_mfcc.npz, which dataset fsdd needs"):
        base_models(dataset, ["bob"])
    assert not list(cache_folder().rglob("*.keras"))


def test_a_process_that_dies_is_reported(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinypeft.benchmark.process.tensorflow_command", lambda module: (["false"], {}))
    with pytest.raises(ToolError, match="training for fsdd ended with exit code 1"):
        base_models(load_benchmark("fsdd"), ["bob"])


def test_unknown_methods_are_refused(data: Path) -> None:
    with pytest.raises(DataError, match="unknown float method 'ia3'"):
        float_results(load_benchmark("fsdd"), ["base", "ia3"], [0])


def test_the_best_rate_is_that_of_the_best_mean(tmp_path: Path) -> None:
    values = {("full", 0.1): ((0.9, 0.8), (0.1, 0.2)), ("full", 0.01): ((0.7, 0.7), (0.6, 0.4))}
    results = [
        result(method, rate, user, seed, value)
        for (method, rate), users in values.items()
        for user, seeds in zip("ab", users, strict=True)
        for seed, value in enumerate(seeds)
    ] + [result("head", 0.02, "a", 0, 0.3), result("head", 0.02, "b", 0, 0.5)]
    full, head = summarize(Fsdd(tmp_path), results)
    assert (full.method, full.rate, head.method) == ("full", 0.01, "head")
    assert full.users == pytest.approx({"a": 0.7, "b": 0.5}) and full.mean == pytest.approx(0.6)
    assert full.worst == pytest.approx(0.5) and head.worst == pytest.approx(0.3)
    assert len(summarize(Fsdd(tmp_path), results, best_rates=False)) == 3


def test_of_errors_the_smallest_is_best_and_diverged_runs_are_worst(tmp_path: Path) -> None:
    class Error(BenchmarkDataset):
        metric = "mse"

    results = [result("full", 0.1, "a", 0, float("inf")), result("full", 0.01, "a", 0, 9.0)]
    (full,) = summarize(Error(tmp_path), results)
    assert full.rate == 0.01 and full.worst == 9.0


def test_class_weights() -> None:
    y = np.array([0] * 16 + [1] * 4 + [3])
    assert class_weights(y, 0) is None
    whole, half = class_weights(y, 1.0), class_weights(y, 0.5)
    assert whole is not None and half is not None and set(whole) == {0, 1, 3}
    assert whole[0] * 16 == pytest.approx(whole[1] * 4) == pytest.approx(whole[3])
    assert half[1] == pytest.approx(2 * half[0]) and half[3] == pytest.approx(4 * half[0])
    for weights in (whole, half):
        assert sum(weights[int(label)] for label in y) == pytest.approx(len(y))


def test_logits_are_adjusted_to_what_the_weights_hid() -> None:
    import keras

    head = keras.layers.Dense(3)
    head.build((None, 4))
    x = np.random.RandomState(0).randn(5, 4).astype(np.float32)
    before = np.exp(np.array(head(x), np.float64))
    adjust_logits(head, {0: 0.5, 2: 4.0})
    np.testing.assert_allclose(np.exp(np.array(head(x), np.float64)), before / [0.5, 1.0, 4.0], rtol=1e-5)


def test_a_recipe_is_part_of_the_key() -> None:
    recipes = [BaseTraining("ds_cnn", 15, 64, 1e-3), BaseTraining("ds_cnn", 15, 64, 1e-3, seed=1)]
    assert digest(recipes[0]) != digest(recipes[1])

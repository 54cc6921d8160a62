"""Protocol of the datasets: no test sample is ever trained on, seeds reproduce, missing files are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinypeft.benchmark.datasets import DATASETS, BaseTraining, BenchmarkDataset, load_benchmark, register
from tinypeft.benchmark.datasets.base import draw_balanced
from tinypeft.data import choose_shots
from tinypeft.errors import DataError


def rows(x: np.ndarray) -> set[bytes]:
    return {sample.tobytes() for sample in np.ascontiguousarray(x)}


def check_protocol(dataset: BenchmarkDataset, users: list[str]) -> None:
    for user in users:
        for seed in (0, 1):
            split, again = dataset.split(user, seed), dataset.split(user, seed)
            assert not set(split.train_ids) & set(split.test_ids)
            assert len(split.train) == len(split.train_ids) and len(split.test) == len(split.test_ids)
            assert split.train.x.dtype == split.test.x.dtype == np.float32
            for part in ("train", "test"):
                np.testing.assert_array_equal(getattr(split, part).x, getattr(again, part).x)
                np.testing.assert_array_equal(getattr(split, part).y, getattr(again, part).y)
            if isinstance(dataset.base, BaseTraining):
                base = dataset.base_samples(dataset.base_key(user))
                assert not rows(base.x) & rows(split.test.x), f"the base model of {user} saw test samples"


@pytest.mark.parametrize("name", ["fsdd", "mitbih"])
def test_no_test_sample_is_trained_on(data: Path, name: str) -> None:
    dataset = load_benchmark(name)
    check_protocol(dataset, dataset.users())


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_no_test_sample_of_real_data_is_trained_on(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("TINYPEFT_DATA", str(shared_data))
    dataset = load_benchmark(name)
    split = dataset.split(dataset.users()[-1], 0)
    assert not set(split.train_ids) & set(split.test_ids)
    assert np.isfinite(dataset.calibration(dataset.base_key(dataset.users()[-1]))).all()


def test_speech_takes_the_shots_that_the_command_line_takes(data: Path) -> None:
    dataset = load_benchmark("fsdd")
    spoken = np.where(dataset.arrays["speaker"] == 1)[0]
    for seed in (0, 3):
        train, test = choose_shots(dataset.arrays["y"][spoken], 5, seed)
        split = dataset.split("bob", seed)
        np.testing.assert_array_equal(split.train_ids, spoken[train])
        np.testing.assert_array_equal(split.test_ids, spoken[test])
        np.testing.assert_array_equal(split.train.y, np.repeat(np.arange(10), 5))
    assert set(dataset.split("bob", 0).train_ids) != set(dataset.split("bob", 1).train_ids)


def test_speech_is_standardised_by_the_other_speakers(data: Path) -> None:
    dataset = load_benchmark("fsdd")
    for user in dataset.users():
        others = dataset.base_samples(user).x
        np.testing.assert_allclose(others.mean(axis=(0, 1, 3)), 0, atol=1e-4)
        np.testing.assert_allclose(others.std(axis=(0, 1, 3)), 1, atol=1e-4)
        assert len(others) == 120 and len(dataset.split(user, 0).test) == 10


def test_the_patient_of_two_records_is_in_no_base_model(data: Path) -> None:
    dataset = load_benchmark("mitbih")
    assert dataset.users() == ["202", "205"]
    record, t = dataset.arrays["record"], dataset.arrays["t"]
    assert len(dataset.base_samples("ds1")) == (record == 203).sum()
    split = dataset.split("202", 0)
    assert set(record[split.train_ids]) == {202, 203}
    assert (t[split.test_ids] >= 108_000).all() and set(record[split.test_ids]) == {202}
    own, replayed = (split.train_ids[record[split.train_ids] == number] for number in (202, 203))
    assert len(own) == 300 and (t[own] < 108_000).all()
    counts = np.bincount(dataset.arrays["y"][replayed], minlength=5)
    assert counts[0] == 60 and counts[4] == 0
    assert set(replayed) != set(dataset.split("202", 1).train_ids[300:])


def test_a_missing_folder_says_how_to_set_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "nowhere"
    monkeypatch.setenv("TINYPEFT_DATA", str(missing))
    with pytest.raises(DataError) as caught:
        load_benchmark("fsdd")
    assert str(missing) in caught.value.message and "TINYPEFT_DATA" in str(caught.value.hint)


def test_a_missing_or_damaged_file_is_named(data: Path) -> None:
    with pytest.raises(DataError, match="pretrainedResnet_k3|cifar10_jpeg_uint8") as caught:
        load_benchmark("cifar_jpeg")
    assert "TINYPEFT_DATA" in str(caught.value.hint)
    (data / "fsdd_mfcc.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match="fsdd_mfcc.npz cannot be read"):
        load_benchmark("fsdd").users()


def test_unknown_and_duplicate_names(data: Path) -> None:
    with pytest.raises(DataError, match="unknown dataset 'fsd'") as caught:
        load_benchmark("fsd")
    assert caught.value.hint == "did you mean fsdd?"
    with pytest.raises(KeyError, match="fsdd is registered twice"):
        register(DATASETS["fsdd"])


def test_draws_are_balanced() -> None:
    y = np.array([2, 0, 0, 1, 0, 2, 2, 2])
    drawn = draw_balanced(y, 2, 0)
    assert list(np.bincount(y[drawn])) == [2, 1, 2] and list(drawn) == sorted(set(drawn))

"""Samples and labels: quantisation to the bit, splits, and every array that must be refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tflite_builder import Node, build_model, float_tensor, int8_tensor

from tinypeft.data import (
    VectorForm,
    choose_fraction,
    choose_share,
    choose_shots,
    load_array,
    load_dataset,
    quantize,
)
from tinypeft.errors import DataError, ModelError
from tinypeft.frontend import load_model
from tinypeft.ir import Purpose, Tensor
from tinypeft.oracle import LiteRtOracle

INPUT = Tensor("input", (1, 4, 3, 1), "int8", Purpose.ACTIVATION, np.array([0.5], np.float32), -3)


def store(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "d.npz", **arrays)
    return str(folder / "d.npz")


def test_quantises_like_litert() -> None:
    scale = 0.0437
    tensor = int8_tensor("y", (1, 64), scale, 5)
    oracle = LiteRtOracle(build_model(Node("QUANTIZE", None, [float_tensor("x", (1, 64))], [tensor])))
    random = np.random.RandomState(0)
    halves = ((random.randint(-140, 140, (200, 64)) + 0.5) * scale).astype(np.float32)
    for x in [*halves, *np.nextafter(halves, np.float32(0)), *(random.randn(200, 64) * 3).astype(np.float32)]:
        np.testing.assert_array_equal(quantize(x[None], tensor), oracle.run(x))


def test_float_int8_and_other_integers(tmp_path: Path) -> None:
    spec = store(
        tmp_path, f=np.full((2, 4, 3), 1.0), q=np.full((2, 4, 3, 1), 7, np.int8), u=np.full((2, 4, 3), 9, np.uint8)
    )
    assert set(load_dataset(f"{spec}:f", INPUT, None).x.ravel()) == {-1}
    assert set(load_dataset(f"{spec}:q", INPUT, None).x.ravel()) == {7}
    assert set(load_dataset(f"{spec}:u", INPUT, None).x.ravel()) == {15}
    dataset = load_dataset(f"{spec}:f", INPUT, None)
    assert dataset.x.shape == (2, 4, 3, 1) and dataset.x.dtype == np.int8 and dataset.y is None and len(dataset) == 2


def test_trailing_axis_may_be_there_or_not(tmp_path: Path) -> None:
    flat = Tensor("input", (1, 4, 3), "int8", Purpose.ACTIVATION, np.array([0.5], np.float32), 0)
    spec = store(tmp_path, x=np.zeros((2, 4, 3, 1)))
    assert load_dataset(f"{spec}:x", flat, None).x.shape == (2, 4, 3)


def test_float_input_stays_float(tmp_path: Path) -> None:
    tensor = Tensor("input", (1, 2), "float32", Purpose.ACTIVATION)
    assert load_dataset(f"{store(tmp_path, x=np.ones((3, 2)))}:x", tensor, None).x.dtype == np.float32


def test_labels(tmp_path: Path) -> None:
    spec = store(tmp_path, x=np.zeros((3, 4, 3)), y=np.array([[0], [2], [1]], np.uint8))
    y = load_dataset(f"{spec}:x:y", INPUT, 3).y
    assert y is not None and y.tolist() == [0, 2, 1] and y.dtype == np.int64


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("d.npz:none", r"no array 'none'; it has: x, nan, empty, text, y"),
        ("d.npz", "0 keys, expected one or two keys; the file has: x"),
        ("d.npz:", "no array ''"),
        ("d.npz:x:y:z", "3 keys"),
        ("other.npz:x", "does not exist"),
        ("d.csv:x", "does not name arrays"),
        ("broken.npz:x", "cannot be read"),
        ("pickled.npz:x", "cannot be read.*pickle"),
        ("d.npz:nan", "NaN or infinite values, first in sample 1"),
        ("d.npz:empty", "empty"),
        ("d.npz:text", "dtype <U1"),
        ("d.npz:y", r"shape \(3,\), the model takes \(N, 4, 3, 1\)"),
        ("d.npz:wide", r"shape \(3, 4, 4\), the model takes \(N, 4, 3, 1\)"),
        ("d.npz:huge", "float32's range"),
        ("d.npz:x:short", r"shape \(2,\), the samples need \(3,\)"),
        ("d.npz:x:real", "dtype float64, they must be integers"),
        ("d.npz:x:high", "label 1 of .* is 5, the model has classes 0 to 4"),
        ("d.npz:x:low", "label 2 of .* is -1"),
    ],
)
def test_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, message: str) -> None:
    x = np.zeros((3, 4, 3))
    nan = x.copy()
    nan[1, 0, 0] = np.nan
    store(
        tmp_path, x=x, nan=nan, empty=x[:0], text=np.array(["a"]), y=np.array([0, 1, 2]), wide=np.zeros((3, 4, 4)),
        huge=x + 1e300, short=np.array([0, 1]), real=np.zeros(3), high=np.array([0, 5, 9]), low=np.array([0, 1, -1]),
    )  # fmt: skip
    data = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "broken.npz").write_bytes(data[: len(data) // 2])
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], object))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        load_dataset(spec, INPUT, 5)
    assert caught.value.hint


def test_target_vectors(tmp_path: Path) -> None:
    """One value an output, in any shape of as many; a loss of one output takes them without an axis."""
    x, y = np.zeros((3, 4, 3), np.int8), np.linspace(0, 1, 6).reshape(3, 1, 2)
    spec = store(tmp_path, x=x, y=y, single=np.array([0, 1, 1]), wide=y * 2, nan=y * np.nan)
    form = VectorForm(2, 0.0, 1.0)
    found = load_dataset(f"{spec}:x:y", INPUT, None, form).y
    assert found is not None and found.dtype == np.float64
    np.testing.assert_array_equal(found, y.reshape(3, 2))
    single = load_dataset(f"{spec}:x:single", INPUT, None, VectorForm(1, 0.0, 1.0)).y
    assert single is not None and single.tolist() == [[0.0], [1.0], [1.0]]
    with pytest.raises(DataError, match=r"targets .* have shape \(3,\), the samples need \(3, 2\)"):
        load_dataset(f"{spec}:x:single", INPUT, None, form)
    with pytest.raises(DataError, match="target 1 of sample 1 of .* is 1.2, the loss takes 0 to 1"):
        load_dataset(f"{spec}:x:wide", INPUT, None, form)
    with pytest.raises(DataError, match="target 0 of sample 0 of .* is nan"):
        load_dataset(f"{spec}:x:nan", INPUT, None, form)


def test_choose_share() -> None:
    train, test = choose_share(10, 0.3, 1)
    assert len(train) == 3 and sorted([*train, *test]) == list(range(10))


def test_load_array_takes_one_key(tmp_path: Path) -> None:
    spec = store(tmp_path, x=np.arange(3), y=np.arange(2))
    assert load_array(f"{spec}:x").tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="2 keys, expected one key"):
        load_array(f"{spec}:x:y")


def test_choose_shots() -> None:
    y = np.array([2, 0, 1, 0, 1, 2, 0, 2, 1])
    train, test = choose_shots(y, 2, 7)
    random = np.random.RandomState(7)
    assert train.tolist() == [i for k in range(3) for i in random.permutation(np.where(y == k)[0])[:2]]
    assert sorted([*train, *test]) == list(range(9)) and test.tolist() == sorted(test)
    with pytest.raises(DataError, match="class 0 has 3 samples, 4 are asked for"):
        choose_shots(y, 4, 7)
    with pytest.raises(DataError, match="0 samples a class"):
        choose_shots(y, 0, 7)


def test_choose_fraction() -> None:
    y = np.repeat([0, 1, 2], [10, 20, 1])
    train, test = choose_fraction(y, 0.3, 0)
    assert np.bincount(y[train]).tolist() == [3, 6, 1] and len(train) + len(test) == len(y)
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(DataError, match="train split"):
            choose_fraction(y, fraction, 0)


def test_oracle_accuracy_of_real_models(shared_data: Path) -> None:
    model = load_model(shared_data / "models" / "kws_ref_model.tflite")
    dataset = load_dataset(f"{shared_data}/kws01_mfcc_int8.npz:x:y", model.graph.inputs[0], 12)
    oracle = LiteRtOracle(model.tflite)
    assert dataset.y is not None
    assert oracle.accuracy(dataset.x[:200], dataset.y[:200]) > 0.85
    layers = oracle.layers(dataset.x[0])
    assert list(layers) == [op.output.source for op in model.graph.operations]
    assert [output.shape for output in layers.values()] == [op.output.shape for op in model.graph.operations]
    with pytest.raises(DataError, match="the model takes"):
        oracle.run(dataset.x[0, :3])


def test_an_operator_that_the_reference_kernels_lack_is_named() -> None:
    x, y = (int8_tensor(name, (1, 4), 0.1) for name in ("x", "y"))
    with pytest.raises(ModelError, match="reference kernels lack ELU"):
        LiteRtOracle(build_model(Node("ELU", None, [x], [y])))


@pytest.mark.slow
def test_demo_leaves_room_to_personalise(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from tinypeft.demo import make_model

    files = make_model(tmp_path / "demo")
    model = load_model(files.model, load_array(f"{files.data}:x_base"))
    oracle = LiteRtOracle(model.tflite)
    base = load_dataset(f"{files.data}:x_base:y_base", model.graph.inputs[0], 10)
    device = load_dataset(f"{files.data}:x:y", model.graph.inputs[0], 10)
    assert base.y is not None and device.y is not None
    assert oracle.accuracy(base.x, base.y) > 0.95
    assert 0.35 < oracle.accuracy(device.x, device.y) < 0.7

"""Converting Keras models: names and determinism, and every file and calibration that must be refused."""

import importlib.util
import re
import sys
from pathlib import Path

import keras_models
import numpy as np
import pytest

from tinypeft.errors import DataError, ModelError, ToolError
from tinypeft.frontend import load_model
from tinypeft.frontend.keras import convert_keras

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("TensorFlow is not installed", allow_module_level=True)


def samples(*shape: int) -> np.ndarray:
    return np.random.RandomState(0).randn(8, *shape).astype(np.float32)


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keras_models.save("convolutions", tmp_path_factory.mktemp("keras"))


def test_names_steps_and_silence(convolutions: Path, capfd: pytest.CaptureFixture[str]) -> None:
    steps: list[str] = []
    model = load_model(convolutions, samples(8, 8, 2), progress=steps.append)
    assert [(op.kind, op.name, op.layer) for op in model.graph.operations if op.kind != "PAD"] == [
        ("CONV_2D", "my_conv", "my-conv"),
        ("DEPTHWISE_CONV_2D", "separable_depthwise", "separable"),
        ("CONV_2D", "separable", "separable"),
        ("MAX_POOL_2D", "int_", "int"),
        ("RESHAPE", "flatten", "flatten"),
        ("FULLY_CONNECTED", "dense_1", "dense_1"),
        ("SOFTMAX", "dense_1_softmax", "dense_1"),
    ]
    assert model.keras_layers["my-conv"] == "Conv2D"
    assert model.graph.inputs[0].shape == (1, 8, 8, 2)
    assert steps[0] == "starting TensorFlow" and "8 samples" in steps[-1]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_same_input_gives_same_bytes(convolutions: Path, tmp_path: Path) -> None:
    first, second = (convert_keras(convolutions, samples(8, 8, 2)) for _ in range(2))
    assert first == second
    moved = tmp_path / "elsewhere.keras"
    moved.write_bytes(convolutions.read_bytes())
    assert convert_keras(moved, samples(8, 8, 2)) == first


@pytest.mark.slow
def test_nested_models_and_h5(tmp_path: Path) -> None:
    model = load_model(keras_models.save("nested", tmp_path, ".h5"), samples(4, 4, 3))
    assert [op.layer for op in model.graph.operations] == ["conv2d_1", "conv2d", "sum", "pool", "dense"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "shape"),
    [
        ("models/kws_ref_model_k3", (49, 10)),
        ("models/pretrainedResnet_k3", (32, 32, 3)),
        ("models/ad01_k3", (640,)),
        ("models/vww_96_k3", (96, 96, 3)),
        ("fsdd_loso/lucas", (49, 10, 1)),
        ("fsdd_loso/nicolas", (49, 10, 1)),
        ("fsdd_loso/theo", (49, 10, 1)),
    ],
)
def test_layers_of_real_models(shared_data: Path, file: str, shape: tuple[int, ...]) -> None:
    model = load_model(shared_data / f"{file}.keras", samples(*shape))
    wanted = ("Conv2D", "DepthwiseConv2D", "Dense", "AveragePooling2D", "GlobalAveragePooling2D", "Add")
    expected = [name for name, kind in model.keras_layers.items() if kind in wanted]
    found = list(dict.fromkeys(op.layer for op in model.graph.operations))
    assert sorted(found) == sorted(expected)
    for op in model.graph.operations:
        if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            assert op.name == op.layer


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("two_inputs", (4,), "2 inputs and 1 outputs"),
        ("two_outputs", (4,), "1 inputs and 2 outputs"),
        ("dynamic_shape", (6, 6, 3), "dynamic shape"),
        ("softsign", (4,), r"DIV of layer squash \(Activation\) is not supported; DIV stops LiteRT"),
        ("erfinv", (4,), r"Erfinv of layer erfinv \(Erfinv\) is not supported; supported: ABS, ADD"),
        ("recurrent", (5, 4), r"While of layer memory \(LSTM\) is not supported; supported: ABS, ADD"),
        ("scripted", (4,), "cannot be loaded by Keras"),
    ],
)
def test_refuses_models(tmp_path: Path, name: str, shape: tuple[int, ...], message: str) -> None:
    path = keras_models.save(name, tmp_path)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(path, samples(*shape))
    assert str(path) in caught.value.message and "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("suffix", "cut", "message"),
    [
        (".keras", slice(0, 0), "empty"),
        (".keras", slice(100, None), "does not start like"),
        (".keras", slice(0, -100), "truncated"),
        (".h5", slice(0, None), "does not start like a .h5 file"),
        (".pt", slice(0, None), "suffix .pt"),
    ],
)
def test_refuses_damaged_files(convolutions: Path, tmp_path: Path, suffix: str, cut: slice, message: str) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(convolutions.read_bytes()[cut])
    with pytest.raises(ModelError, match=re.escape(str(path)) + ".*" + message):
        convert_keras(path, samples(8, 8, 2))


@pytest.mark.slow
def test_refuses_damaged_contents(convolutions: Path, tmp_path: Path) -> None:
    data = convolutions.read_bytes()
    path = tmp_path / "bad.keras"
    path.write_bytes(data[:3000] + bytes(50) + data[3050:])
    with pytest.raises(ModelError, match="bad.keras cannot be loaded by Keras: Bad CRC"):
        convert_keras(path, samples(8, 8, 2))
    h5 = keras_models.save("convolutions", tmp_path, ".h5")
    h5.write_bytes(h5.read_bytes()[:9000])
    with pytest.raises(ModelError, match="truncated file"):
        convert_keras(h5, samples(8, 8, 2))


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (np.zeros((0, 8, 8, 2)), "empty"),
        (np.full((2, 8, 8, 2), np.nan), "NaN"),
        (np.full((2, 8, 8, 2), np.inf), "infinite"),
        (np.zeros((2, 8, 8, 2), bool), "dtype bool"),
        (np.zeros((2, 8, 8, 3)), r"\(2, 8, 8, 3\), the model takes \(N, 8, 8, 2\)"),
        (np.float32(1), r"shape \(\)"),
    ],
)
def test_refuses_calibration(convolutions: Path, calibration: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_model(convolutions, np.asarray(calibration))


def test_asks_for_calibration(convolutions: Path) -> None:
    with pytest.raises(DataError, match="samples of its input") as caught:
        load_model(convolutions)
    assert caught.value.hint is not None and "--calibration F.npz:KEY" in caught.value.hint


def test_tensorflow_missing(convolutions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ToolError, match="not installed") as caught:
        convert_keras(convolutions, samples(8, 8, 2))
    assert caught.value.hint is not None and "pip install tinypeft[keras]" in caught.value.hint


def test_tensorflow_broken(convolutions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorflow.py").write_text("raise ImportError('no such library')")
    (tmp_path / "keras.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ToolError, match="no such library"):
        convert_keras(convolutions, samples(8, 8, 2))

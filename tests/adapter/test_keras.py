"""What Keras trained with enable_lora becomes an adapter of the converted model, BatchNormalization folded or not."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from tinypeft import Model
from tinypeft.adapter_files import read_keras_adapter
from tinypeft.errors import AdapterError

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("TensorFlow is not installed", allow_module_level=True)
pytestmark = pytest.mark.slow
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, np.ndarray]:
    """A base with a folded BatchNormalization, what enable_lora made of it, and samples."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    folder, rng = tmp_path_factory.mktemp("keras"), np.random.default_rng(0)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(8, 3, name="conv"),
            layers.BatchNormalization(name="conv_bn"),
            layers.ReLU(name="conv_relu"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(6, name="hidden"),
            layers.BatchNormalization(name="norm"),
        ]
    )
    for name in ("conv_bn", "norm"):
        for variable in model.get_layer(name).weights:
            variable.assign(rng.uniform(0.5, 2.0, variable.shape))
    model.save(folder / "base.keras")
    for name in ("conv", "hidden"):
        layer = model.get_layer(name)
        layer.enable_lora(2, lora_alpha=3)
        layer.lora_kernel_a.assign(rng.normal(0, 0.3, layer.lora_kernel_a.shape))
        layer.lora_kernel_b.assign(rng.normal(0, 0.3, layer.lora_kernel_b.shape))
    model.get_layer("conv").bias.assign(rng.normal(0, 0.3, 8))
    model.get_layer("hidden").bias.assign(rng.normal(0, 0.3, 6))
    model.save(folder / "lora.keras")
    return folder / "base.keras", folder / "lora.keras", rng.normal(0, 1, (60, 6, 6, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def model(files: tuple[Path, Path, np.ndarray]) -> Model:
    settings = {"r": 2, "lora_alpha": 8, "modules_to_save": [], "loss": "mean_squared_error"}
    return Model.load(files[0], files[2]).attach("lora+bitfit", **settings)


def test_the_adapter_does_what_keras_trained(files: tuple[Path, Path, np.ndarray], model: Model) -> None:
    import keras

    base, lora, x = files
    assert model.layers == ["conv", "hidden"], "the dense layer under the last BatchNormalization keeps its name"
    adapter = read_keras_adapter(lora, base, model.compiled)
    found = model.evaluate(x, adapter=adapter, on="interpreter").outputs.scores
    before = model.evaluate(x, on="interpreter").outputs.scores
    expected, without = (keras.models.load_model(path).predict(x, verbose=0) for path in (lora, base))
    limits = model.source.graph.outputs[0]
    assert limits.scale is not None
    low, high = ((q - limits.zero_point) * limits.scale[0] for q in (-128, 127))
    moved = np.abs(expected - without).mean()
    assert np.abs(before - without).mean() < 0.1 * moved
    assert np.abs(found - np.clip(expected, low, high)).mean() < 0.15 * moved


def test_merged_keras_is_the_trained_model(files: tuple[Path, Path, np.ndarray], model: Model, tmp_path: Path) -> None:
    """There and back: what Keras trained, imported and merged into the base, computes what Keras' own file does."""
    import keras

    base, lora, x = files
    adapter = read_keras_adapter(lora, base, model.compiled)
    report = model.merge(adapter, tmp_path / "merged.tflite", keras=tmp_path / "merged.keras", x=x)
    assert report.check is not None and report.check.interpreter_is_litert
    merged, expected = (keras.models.load_model(p).predict(x, verbose=0) for p in (tmp_path / "merged.keras", lora))
    np.testing.assert_allclose(merged, expected, atol=0.02 * np.abs(expected).max())


def test_another_base_and_rank_are_refused(files: tuple[Path, Path, np.ndarray], tmp_path: Path) -> None:
    import keras

    base, lora, x = files
    other = keras.models.load_model(base)
    other.get_layer("conv").kernel.assign(np.random.default_rng(5).normal(0, 1, (3, 3, 2, 8)))
    other.save(tmp_path / "other.keras")
    settings = {"modules_to_save": [], "loss": "mean_squared_error"}
    converted = Model.load(tmp_path / "other.keras", x).attach("lora+bitfit", r=2, **settings)
    with pytest.raises(AdapterError, match=r"layer conv: its filter differs from the converted one by \d+%"):
        read_keras_adapter(lora, base, converted.compiled)
    with pytest.raises(AdapterError, match="has rank 2, the project's rank 1"):
        read_keras_adapter(lora, base, Model.load(base, x).attach("lora+bitfit", r=1, **settings).compiled)

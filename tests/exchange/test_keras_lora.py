"""LoRA that Keras trained: from a saved model and its base to PEFT's form and back to the same kernels."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinypeft.errors import AdapterError, ModelError
from tinypeft.exchange.keras_lora import factors_to_peft, read_keras_lora
from tinypeft.exchange.layouts import filters_from_kernel
from tinypeft.exchange.peft_files import check_adapter, peft_files
from tinypeft.exchange.peft_merge import merge, merged_delta

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("TensorFlow is not installed", allow_module_level=True)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def network() -> Any:
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, (3, 2), name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.Flatten(name="flatten"),
            layers.Dense(16, name="dense"),
            layers.Dense(12, name="other"),
            layers.Dense(4, name="head"),
        ]
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder of base.keras, tuned.keras, tuned.weights.h5, tuned.lora.h5; and the tuned model, its LoRA apart."""
    import keras
    from keras.src.saving.saving_lib import H5IOStore

    folder = tmp_path_factory.mktemp("lora")
    base = network()
    base.save(folder / "base.keras")
    tuned = keras.models.load_model(folder / "base.keras")
    tuned.get_layer("conv").enable_lora(2, lora_alpha=5)
    tuned.get_layer("dense").enable_lora(3)
    rng = np.random.default_rng(0)
    for name in ("conv", "dense"):
        layer = tuned.get_layer(name)
        layer.lora_kernel_a.assign(rng.normal(size=layer.lora_kernel_a.shape))
        layer.lora_kernel_b.assign(rng.normal(size=layer.lora_kernel_b.shape))
    tuned.get_layer("dense").bias.assign(rng.normal(size=16))
    tuned.get_layer("head").kernel.assign(rng.normal(size=(12, 4)))
    tuned.save(folder / "tuned.keras")
    tuned.save_weights(folder / "tuned.weights.h5")
    store = H5IOStore(folder / "tuned.lora.h5", mode="w")
    store.make("lora")["rank"] = 3
    with_weights = [layer for layer in tuned._flatten_layers(include_self=False) if layer.weights]
    entry = store.make(f"lora/{[layer.name for layer in with_weights].index('dense')}")
    entry["lora_kernel_a"] = tuned.get_layer("dense").lora_kernel_a
    entry["lora_kernel_b"] = tuned.get_layer("dense").lora_kernel_b
    store.close()
    return folder, tuned


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Carries requests out here, without a process that takes seconds to start."""
    from tinypeft.exchange import keras_lora, keras_process

    monkeypatch.setattr(keras_lora, "run_keras", lambda job, arrays, folder: keras_process.carry_out(folder, job))


def test_a_process_of_its_own_reads_the_same(trained: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from tinypeft.exchange.keras_rewrite import run_keras

    folder, _ = trained
    here = read_keras_lora(folder / "tuned.keras", folder / "base.keras")
    monkeypatch.setattr("tinypeft.exchange.keras_lora.run_keras", run_keras)
    there = read_keras_lora(folder / "tuned.keras", folder / "base.keras")
    assert peft_files(there) == peft_files(here)


@pytest.mark.parametrize("file", ["tuned.keras", "tuned.weights.h5"])
def test_the_adapter_gives_the_tuned_kernels(file: str, trained: tuple[Path, Any]) -> None:
    import keras

    folder, tuned = trained
    adapter = read_keras_lora(folder / file, folder / "base.keras")
    check_adapter(adapter)
    base = keras.models.load_model(folder / "base.keras")
    assert list(adapter.tensors) == ["conv", "dense", "head"]
    for name in adapter.tensors:
        layer, after = base.get_layer(name), tuned.get_layer(name)
        kind = type(layer).__name__
        filters, bias = merge(adapter, name, filters_from_kernel(layer.kernel.numpy(), kind), layer.bias.numpy())
        expected = filters_from_kernel(after.kernel.numpy(), kind)
        np.testing.assert_allclose(filters, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(bias, after.bias.numpy())
    assert adapter.config.modules_to_save == ("head",) and adapter.config.bias == "lora_only"
    assert adapter.tensors["conv"]["lora_A"].shape == (2, 3, 3, 2)
    assert adapter.tensors["dense"]["lora_B"].shape == (16, 3)
    alpha = 5 if file == "tuned.keras" else 2  # only a .keras says it
    assert adapter.config.scaling("conv") == alpha / 2 and adapter.config.scaling("dense") == 1


def test_kerashubs_file_holds_the_very_factors(trained: tuple[Path, Any]) -> None:
    folder, tuned = trained
    adapter = read_keras_lora(folder / "tuned.lora.h5", folder / "base.keras")
    layer = tuned.get_layer("dense")
    assert list(adapter.tensors) == ["dense"] and adapter.config.r == 3
    np.testing.assert_array_equal(adapter.tensors["dense"]["lora_A"], layer.lora_kernel_a.numpy().T)
    np.testing.assert_array_equal(adapter.tensors["dense"]["lora_B"], layer.lora_kernel_b.numpy().T)
    expected = (layer.lora_kernel_a.numpy() @ layer.lora_kernel_b.numpy()).T
    np.testing.assert_allclose(merged_delta(adapter, "dense"), expected, rtol=1e-5, atol=1e-5)


def test_another_base_is_refused(trained: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = trained
    network().save(tmp_path / "base.keras")
    with pytest.raises(AdapterError, match=r"layer conv \(Conv2D\): its kernel differs .* more than a LoRA of rank 2"):
        read_keras_lora(folder / "tuned.keras", tmp_path / "base.keras")


def test_moving_averages_are_refused(trained: tuple[Path, Any], tmp_path: Path) -> None:
    import keras

    folder, _ = trained
    model = keras.models.load_model(folder / "base.keras")
    model.get_layer("dense").enable_lora(1)
    model.get_layer("bn").moving_mean.assign(np.ones(8))
    model.save(tmp_path / "tuned.keras")
    with pytest.raises(AdapterError, match=r"layer bn \(BatchNormalization\): its moving_mean differ from the base's"):
        read_keras_lora(tmp_path / "tuned.keras", folder / "base.keras")


def test_a_model_without_a_lora_is_refused(trained: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = trained
    with pytest.raises(AdapterError, match=r"base.keras has no layer with a LoRA"):
        read_keras_lora(folder / "base.keras", folder / "base.keras")
    (tmp_path / "x.weights.h5").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"x.weights.h5 does not suit .*base.keras"):
        read_keras_lora(tmp_path / "x.weights.h5", folder / "base.keras")


def test_factors_of_a_convolution() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(3, 2, 5, 4)), rng.normal(size=(4, 6))
    peft = factors_to_peft(a, b)
    assert peft["lora_A"].shape == (4, 5, 3, 2) and peft["lora_B"].shape == (6, 4, 1, 1)
    found = np.einsum("or,rihw->hwio", peft["lora_B"][:, :, 0, 0], peft["lora_A"])
    np.testing.assert_allclose(found, a @ b, rtol=1e-5, atol=1e-5)
    with pytest.raises(AdapterError, match=r"A \(3, 2\) and B \(4, 6\), which do not fit"):
        factors_to_peft(rng.normal(size=(3, 2)), b)

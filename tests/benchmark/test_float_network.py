"""The float twin: the outputs of the model, adapters that begin as nothing, training of the chosen weights only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from tinypeft.benchmark.datasets import BenchmarkDataset, Samples  # noqa: E402
from tinypeft.benchmark.float_network import folded_weights, load, rebuild  # noqa: E402
from tinypeft.benchmark.float_training import FloatTrainer  # noqa: E402
from tinypeft.errors import ModelError  # noqa: E402


class Blobs(BenchmarkDataset):
    name = "blobs"
    metric = "accuracy"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A softmax classifier (6,4,2) to 3 of every form that is folded or adapted, BatchNorm far from identity."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    x = entry = keras.Input((6, 4, 2))
    x = layers.Conv2D(5, (3, 2), 2, padding="same", use_bias=False, name="conv")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="conv_bn")(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.ReLU()(layers.BatchNormalization(center=False, name="depthwise_bn")(x))
    y = layers.Conv2D(5, 1, activation="relu", name="pointwise")(x)
    x = layers.Flatten()(layers.Add()([x, y]))
    x = layers.BatchNormalization(scale=False, name="hidden_bn")(layers.Dense(7, name="hidden")(x))
    network = keras.Model(entry, layers.Dense(3, activation="softmax", name="head")(x))
    random = np.random.RandomState(0)
    for layer in network.layers:
        layer.set_weights([random.uniform(0.3, 1.5, w.shape) for w in layer.get_weights()])
    path = tmp_path_factory.mktemp("model") / "model.keras"
    network.save(path)
    return path


def samples(count: int, seed: int) -> Samples:
    """Classes that differ in their mean."""
    random = np.random.RandomState(seed)
    y = random.randint(0, 3, count)
    return Samples((random.randn(count, 6, 4, 2) + y[:, None, None, None]).astype(np.float32), y.astype(np.int64))


def trainer(path: Path, method: str) -> FloatTrainer:
    made = FloatTrainer(path, method, Blobs(path.parent))
    made.start(path, 0)
    return made


def weights_of(network: Any) -> dict[str, list[np.ndarray]]:
    return {layer.name: layer.get_weights() for layer in network.layers if layer.weights}


@pytest.mark.parametrize("method", ["base", "lora", "full"])
def test_folding_and_fresh_adapters_change_nothing(model: Path, method: str) -> None:
    x = samples(150, 1).x
    logits = trainer(model, method).outputs(x).astype(np.float64)
    softmax = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax /= softmax.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax, load(model)(x).numpy(), atol=2e-5)


@pytest.mark.parametrize(
    ("method", "changed"),
    [
        ("head", {"head"}),
        ("full", {"conv", "depthwise", "pointwise", "hidden", "head"}),
        ("lora", {"head", *(f"{name}_lora_{m}" for name in ("conv", "pointwise", "hidden") for m in "AB")}),
    ],
)
def test_a_method_trains_its_own_weights_only(model: Path, method: str, changed: set[str]) -> None:
    made = trainer(model, method)
    before = weights_of(made.network)
    made.train(samples(20, 2), 2, 1e-3, 0)
    after = weights_of(made.network)
    differing = {n for n in before if not all(np.array_equal(*pair) for pair in zip(before[n], after[n], strict=True))}
    assert differing == changed


def test_lora_is_a_low_rank_change_of_the_sum(model: Path) -> None:
    """The adapter's layers equal a kernel with alpha / r times B A added."""
    made = trainer(model, "lora")
    made.train(samples(20, 2), 3, 1e-3, 0)
    merged = rebuild(load(model), logits=True, lora=False, target_modules="")[0]
    for name, weights in folded_weights(load(model)).items():
        merged.get_layer(name).set_weights(weights)
    merged.get_layer("head").set_weights(made.network.get_layer("head").get_weights())
    for name, (down, up) in made.adapters.items():
        kernel, bias = merged.get_layer(name).get_weights()
        low_rank = np.tensordot(np.asarray(down.kernel), np.asarray(up.kernel).reshape(4, -1), axes=1)
        merged.get_layer(name).set_weights([kernel + 2 * low_rank, bias])
    x = samples(30, 4).x
    np.testing.assert_allclose(made.outputs(x), merged(x).numpy(), rtol=1e-3, atol=1e-3)


def test_target_modules_name_the_adapted_layers(model: Path) -> None:
    adapters = rebuild(load(model), logits=True, lora=True, target_modules="point.*|head|depthwise")[1]
    assert set(adapters) == {"pointwise"}


def test_a_step_is_one_sample_of_sgd_in_the_device_order(model: Path) -> None:
    """Against the head's gradient by hand, over the very order that RandomState(seed).permutation gives."""
    made = trainer(model, "head")
    data, rate, seed = samples(9, 5), 0.003, 4
    kernel, bias = (np.array(w, np.float64) for w in made.network.get_layer("head").get_weights())
    import keras

    features = keras.Model(made.network.inputs, made.network.get_layer("head").input)(data.x).numpy().astype(np.float64)
    made.train(data, 2, rate, seed)
    shuffle = np.random.RandomState(seed)
    for _ in range(2):
        for index in shuffle.permutation(len(data)):
            logits = features[index] @ kernel + bias
            gradient = np.exp(logits - logits.max())
            gradient /= gradient.sum()
            gradient[data.y[index]] -= 1
            kernel -= rate * np.outer(features[index], gradient)
            bias -= rate * gradient
    np.testing.assert_allclose(made.network.get_layer("head").get_weights()[0], kernel, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(made.network.get_layer("head").get_weights()[1], bias, rtol=1e-4, atol=1e-5)


def test_a_run_is_reproduced_by_the_same_trainer(model: Path) -> None:
    made, data = trainer(model, "lora"), samples(12, 6)
    outputs = []
    for seed in (0, 1, 0):
        made.start(model, seed)
        made.train(data, 2, 1e-3, seed)
        outputs.append(made.outputs(data.x))
    np.testing.assert_array_equal(outputs[0], outputs[2])
    assert not np.array_equal(outputs[0], outputs[1])


def test_batch_norm_that_cannot_be_folded_is_refused(tmp_path: Path) -> None:
    import keras
    from keras import layers

    entry = keras.Input((4,))
    x = layers.BatchNormalization(name="late")(layers.Dense(4, activation="relu", name="first")(entry))
    keras.Model(entry, layers.Dense(2)(x)).save(tmp_path / "model.keras")
    with pytest.raises(ModelError, match="late cannot be folded into first"):
        folded_weights(load(tmp_path / "model.keras"))

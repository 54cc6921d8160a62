"""Every form of convolution, pooling and mean that Keras has: layers as LiteRT computes them, trained where allowed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinypeft.adapters import ADAPTERS, AdapterConfig
from tinypeft.compiler import compile_model
from tinypeft.frontend import LoadedModel, load_model
from tinypeft.interpreter import run_graph
from tinypeft.oracle import LiteRtOracle
from tinypeft.stages.autodiff import TrainingConfig

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("TensorFlow is not installed", allow_module_level=True)

pytestmark = pytest.mark.slow


def sequence() -> Any:
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((24, 4)),
            layers.Conv1D(6, 3, strides=2, padding="same", activation="relu", name="strided"),
            layers.Conv1D(6, 3, dilation_rate=2, padding="causal", name="causal"),
            layers.Conv1D(8, 4, groups=2, padding="valid", name="grouped"),
            layers.DepthwiseConv1D(3, depth_multiplier=2, padding="same", activation="relu", name="depthwise"),
            layers.SeparableConv1D(5, 3, dilation_rate=2, padding="same", name="separable"),
            layers.Conv1DTranspose(6, 3, strides=2, name="transposed"),
            layers.MaxPooling1D(2, name="max_pool"),
            layers.AveragePooling1D(2, name="average_pool"),
            layers.Conv1D(5, 3, dilation_rate=3, padding="same", name="dilated"),
            layers.GlobalMaxPooling1D(name="highest"),
            layers.Dense(3, name="head"),
        ]
    )


def image() -> Any:
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((11, 9, 4)),
            layers.Conv2D(8, 3, groups=2, padding="same", activation="relu", name="grouped"),
            layers.Conv2D(6, (3, 2), dilation_rate=(2, 3), padding="same", name="dilated"),
            layers.DepthwiseConv2D(3, dilation_rate=2, padding="same", depth_multiplier=2, name="depthwise"),
            layers.SeparableConv2D(5, 3, dilation_rate=2, name="separable"),
            layers.Conv2DTranspose(6, 3, strides=2, padding="same", activation="relu", name="transposed"),
            layers.Conv2D(6, 5, strides=7, padding="valid", name="sparse"),
            layers.Conv2DTranspose(4, 2, strides=3, use_bias=False, name="spread"),
            layers.GlobalMaxPooling2D(keepdims=True, name="highest"),
            layers.Conv2D(5, 3, padding="same", name="one_pixel"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(3, name="head"),
        ]
    )


def tokens() -> Any:
    import keras
    from keras import layers, ops

    entry = keras.Input((6, 5))
    x = layers.Dense(7, use_bias=False, name="project")(entry)
    x = layers.Reshape((3, 2, 7))(x)
    x = layers.Dense(8, activation="relu", name="mix")(x)
    x = layers.Concatenate()([ops.mean(x, axis=-1, keepdims=True), ops.min(x, axis=3, keepdims=True), x])
    x = ops.max(x, axis=2)
    x = layers.GlobalAveragePooling1D(name="average")(x)
    return keras.Model(entry, layers.Dense(3, name="head")(x))


def _converted(build: Callable[[], Any], folder: Path) -> LoadedModel:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    keras.backend.clear_session()
    model, rng = build(), np.random.default_rng(0)
    model.set_weights([w + rng.normal(0, 0.2, w.shape) for w in model.get_weights()])
    path = folder / f"{build.__name__}.keras"
    model.save(path)
    return load_model(path, rng.normal(0, 1, (16, *model.input_shape[1:])).astype(np.float32))


@pytest.mark.parametrize("build", [sequence, image, tokens])
def test_layers_equal_litert_and_learn(build: Callable[[], Any], tmp_path: Path) -> None:
    loaded = _converted(build, tmp_path)
    graph, oracle = loaded.graph, LiteRtOracle(loaded.tflite)
    assert {op.layer for op in graph.operations} >= {n for n in loaded.keras_layers if n in ("head", "grouped", "mix")}
    rng = np.random.default_rng(1)
    compared = 0
    for _ in range(20):
        x = rng.integers(-128, 128, graph.inputs[0].shape).astype(np.int8)
        references = oracle.layers(x)

        def compare(op: Any, name: str, tensor: Any, value: Any, references: Any = references) -> None:
            nonlocal compared
            if tensor.source in references:
                np.testing.assert_array_equal(value.reshape(-1), references[tensor.source].reshape(-1), f"{op}")
                compared += 1

        run_graph(graph, {graph.inputs[0].name: x}, {}, compare)
    assert compared >= 20 * 6

    model = compile_model(loaded.name, loaded.fingerprint, graph, AdapterConfig(r=2), TrainingConfig())
    adapted = {p.layer for p in model.parameters}
    allowed = {op.layer for op in graph.operations if ADAPTERS["lora"].refuses(op) is None}
    assert adapted == allowed and len(allowed) >= 3
    state = model.fresh_state(0)
    before = {p.name: state[p.master.name].copy() for p in model.parameters}
    assert model.training is not None
    x = rng.integers(-128, 128, graph.inputs[0].shape).astype(np.int8)
    arguments = {model.training.inputs[0].name: x, "label": np.int32(1), "learning_rate": np.float32(0.05)}
    run_graph(model.training, arguments, state)
    for parameter in model.parameters:
        if not parameter.name.endswith("lora_A"):  # whose gradient is zero while B is
            moved = state[parameter.master.name] != before[parameter.name]
            assert moved.any(), f"no gradient reaches {parameter.name}"

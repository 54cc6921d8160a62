"""Keras models of activation, merging and normalisation layers: all layers as LiteRT computes them, and trainable."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import compile_model
from tinypeft.frontend import keras_process, read_tflite
from tinypeft.interpreter import run_graph
from tinypeft.ir import Graph
from tinypeft.oracle import LiteRtOracle
from tinypeft.stages.autodiff import TrainingConfig

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("TensorFlow is not installed", allow_module_level=True)

pytestmark = pytest.mark.slow


def activations(x: Any) -> Any:
    import keras
    from keras import layers

    slopes = keras.initializers.RandomUniform(0.05, 0.4)
    y = layers.LeakyReLU(negative_slope=0.1)(layers.Conv2D(6, 3, padding="same")(x))
    y = layers.PReLU(slopes, shared_axes=[1, 2])(layers.Conv2D(6, 1)(y))
    y = layers.PReLU(slopes)(layers.Conv2D(6, 1)(y))
    y = layers.ReLU(max_value=6)(layers.Conv2D(6, 1)(y))
    y = layers.ReLU(max_value=1)(layers.Conv2D(6, 1)(y))
    for name in ("hard_swish", "silu", "tanh", "gelu", "sigmoid", "hard_tanh"):
        y = layers.Activation(name)(layers.Conv2D(6, 1)(y))
    y = keras.ops.gelu(layers.Conv2D(6, 1)(y), approximate=False)
    return layers.Dense(3)(layers.ReLU()(layers.GlobalAveragePooling2D()(y)))


def arithmetic(x: Any) -> Any:
    from keras import layers, ops

    y = layers.Conv2D(6, 3, padding="same")(x)
    for merge in (layers.Multiply, layers.Subtract, layers.Maximum, layers.Minimum, layers.Average):
        y = merge()([y, layers.Conv2D(6, 1)(y)])
    y = ops.abs(y - layers.Conv2D(6, 1)(y)) + 1.0
    y = layers.Conv2D(6, 1)(ops.log(y) + ops.sqrt(y) + ops.rsqrt(y))
    y = 1.0 - ops.square(y) * ops.negative(y)
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(y))


def gated(x: Any) -> Any:
    """Squeeze and excite, by convolutions and by dense layers, and a batch normalisation that cannot be folded."""
    import keras
    from keras import layers

    y = layers.ReLU()(layers.Conv2D(6, 3, padding="same")(x))
    normal, positive = keras.initializers.RandomNormal(), keras.initializers.RandomUniform(0.5, 1.5)
    y = layers.BatchNormalization(beta_initializer=normal, gamma_initializer=positive, moving_mean_initializer=normal)(
        y
    )
    gate = layers.Conv2D(3, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(y))
    y = layers.Multiply()([y, layers.Conv2D(6, 1, activation="sigmoid")(gate)])
    gate = layers.Dense(3, activation="relu")(layers.GlobalAveragePooling2D()(y))
    y = layers.Multiply()([y, layers.Reshape((1, 1, 6))(layers.Dense(6, activation="hard_sigmoid")(gate))])
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Softmax()(y)))


def normalised(x: Any) -> Any:
    from keras import layers

    y = layers.LayerNormalization()(layers.Conv2D(6, 3, padding="same")(x))
    y = layers.RMSNormalization()(layers.Conv2D(6, 1)(y))
    y = layers.GroupNormalization(2)(layers.Conv2D(6, 1)(y))
    return layers.Dense(3)(layers.GlobalAveragePooling2D()(y))


MODELS: dict[str, tuple[Callable[[Any], Any], set[str]]] = {
    "activations": (
        activations,
        {"LEAKY_RELU", "PRELU", "MINIMUM", "RELU", "HARD_SWISH", "LOGISTIC", "MUL", "TANH", "GELU"},
    ),
    "arithmetic": (
        arithmetic,
        {"MUL", "SUB", "ADD", "MAXIMUM", "MINIMUM", "ABS", "LOG", "SQRT", "RSQRT", "SQUARE", "NEG"},
    ),
    "gated": (gated, {"MUL", "ADD", "LOGISTIC", "SOFTMAX"}),
    "normalised": (normalised, {"SQUARED_DIFFERENCE", "RSQRT", "MUL", "SUB", "SQUARE", "NEG"}),
}


def _converted(body: Callable[[Any], Any], shape: tuple[int, ...]) -> tuple[bytes, Graph]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    entry = keras.Input(shape)
    model = keras.Model(entry, body(entry))
    samples = np.random.default_rng(0).normal(0, 1, (24, *shape)).astype(np.float32)
    data = keras_process._quantise(keras_process._trace(model, shape), samples)
    return data, read_tflite(data, keras_layers=dict(keras_process._leaves(model)))


def _computed(graph: Graph, sample: np.ndarray) -> dict[int, np.ndarray]:
    """Every output of every operation by its tensor's index in the file."""
    found: dict[int, np.ndarray] = {}
    run_graph(graph, {graph.inputs[0].name: sample}, {}, lambda op, _, t, value: found.update({t.source: value}))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_layers_equal_litert_and_train(name: str) -> None:
    body, kinds = MODELS[name]
    data, graph = _converted(body, (6, 6, 3))
    assert {op.kind for op in graph.operations} >= kinds
    assert not any(tensor.dtype == "float32" for tensor in graph.tensors())
    oracle, rng = LiteRtOracle(data), np.random.default_rng(1)
    for _ in range(10):
        sample = np.clip(rng.normal(0, 40, graph.inputs[0].shape), -128, 127).astype(np.int8)
        found, layers = _computed(graph, sample), oracle.layers(sample)
        # what is folded into a table has no float32 tensors, nor those in front of it where nothing else reads them
        assert {i for i, value in layers.items() if value.dtype == np.int8} == set(found)
        for index, value in found.items():
            np.testing.assert_array_equal(value.reshape(layers[index].shape), layers[index])
    model = compile_model(name, data, graph, AdapterConfig(r=2), TrainingConfig())
    assert model.training is not None
    state = model.fresh_state(1)
    untrained = [p.master.name for p in model.parameters if not state[p.master.name].any()]
    assert len(untrained) > 3
    arguments = {graph.inputs[0].name: sample, "label": np.int32(1), "learning_rate": np.float32(0.01)}
    run_graph(model.training, arguments, state)
    assert [master for master in untrained if not state[master].any()] == []


def test_elu_becomes_a_table() -> None:
    """BUILTIN_REF has no ELU: its bits are compared without a model around it."""
    from keras import layers

    _, graph = _converted(lambda x: layers.Dense(2)(layers.ELU()(layers.Dense(4)(x))), (5,))
    assert [op.kind for op in graph.operations] == ["FULLY_CONNECTED", "ELU", "FULLY_CONNECTED"]

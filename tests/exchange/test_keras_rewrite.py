"""Merging into Keras models: the merged model computes what base and delta give together, BatchNormalization or not."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinypeft.errors import AdapterError, ModelError
from tinypeft.exchange.keras_rewrite import merge_keras
from tinypeft.exchange.layouts import KERAS_CLASSES, filters_from_kernel, kernel_from_filters
from tinypeft.ir import Operation

if importlib.util.find_spec("tensorflow") is None:
    pytest.skip("TensorFlow is not installed", allow_module_level=True)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

#: branch -> (its layer, the BatchNormalization's arguments or None, whether the converter folds that)
BRANCHES: dict[str, tuple[Callable[[Any, str], Any], dict[str, Any] | None, bool]] = {
    "plain": (lambda k, n: k.Conv2D(3, 3, name=n), None, False),
    "conv": (lambda k, n: k.Conv2D(3, (3, 2), name=n), {}, True),
    "no_bias": (lambda k, n: k.Conv2D(3, 3, use_bias=False, name=n), {}, True),
    "no_beta": (lambda k, n: k.Conv2D(3, 3, name=n), {"center": False}, True),
    "no_gamma": (lambda k, n: k.Conv2D(3, 3, name=n), {"scale": False}, True),
    "groups": (lambda k, n: k.Conv2D(4, 3, groups=2, name=n), {}, True),
    "depthwise": (lambda k, n: k.DepthwiseConv2D(3, depth_multiplier=2, name=n), {}, True),
    "transposed": (lambda k, n: k.Conv2DTranspose(3, 3, name=n), {}, True),
    "dense": (lambda k, n: k.Dense(5, name=n), {}, True),
    "active": (lambda k, n: k.Conv2D(3, 3, activation="tanh", name=n), {}, False),
}


def randomise(model: Any, rng: np.random.Generator) -> None:
    for layer in model.layers:
        for variable in layer.weights:
            low, high = (0.5, 2.0) if "variance" in variable.name or "gamma" in variable.name else (-1.0, 1.0)
            variable.assign(rng.uniform(low, high, variable.shape))


@pytest.fixture(scope="module")
def branches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One input, and an output a branch."""
    import keras
    from keras import layers

    entry = keras.Input((6, 5, 4))
    outputs = {}
    for name, (build, normalisation, _) in BRANCHES.items():
        x = build(layers, name)(entry)
        if normalisation is not None:
            x = layers.Dropout(0.5, name=f"{name}_dropout")(x)
            x = layers.BatchNormalization(name=f"{name}_bn", **normalisation)(x)
        outputs[name] = x
    model = keras.Model(entry, outputs)
    randomise(model, np.random.default_rng(0))
    path = tmp_path_factory.mktemp("merge") / "branches.keras"
    model.save(path)
    return path


def linear(layer: Any, kernel: np.ndarray, bias: np.ndarray | None, x: np.ndarray) -> np.ndarray:
    """What a layer of these weights computes without its activation."""
    config = layer.get_config() | {"activation": "linear", "use_bias": True, "name": "alone"}
    alone = type(layer).from_config(config)
    alone.build(x.shape)
    alone.set_weights([kernel, np.zeros(alone.bias.shape) if bias is None else bias])
    return np.array(alone(x))


def load(data: bytes, folder: Path) -> Any:
    import keras

    (folder / "merged.keras").write_bytes(data)
    return keras.models.load_model(folder / "merged.keras")


def test_base_and_delta_add_up(branches: Path, tmp_path: Path) -> None:
    import keras

    rng = np.random.default_rng(1)
    base = keras.models.load_model(branches)
    deltas = {}
    for name in BRANCHES:
        kernel = base.get_layer(name).weights[0]
        channels = int(np.prod(kernel.shape[-2:])) if name == "depthwise" else base.output[name].shape[-1]
        deltas[name] = {"kernel_delta": rng.normal(0, 0.3, kernel.shape), "bias_delta": rng.normal(0, 0.3, channels)}
    merged = load(merge_keras(branches, deltas), tmp_path)
    x = rng.normal(size=(3, 6, 5, 4)).astype(np.float32)
    before, after = base.predict(x, verbose=0), merged.predict(x, verbose=0)
    for name, (_, normalisation, folded) in BRANCHES.items():
        layer, delta = base.get_layer(name), deltas[name]
        if folded or normalisation is None:
            expected = before[name] + linear(layer, delta["kernel_delta"], delta["bias_delta"], x)
        else:
            kernel, bias = layer.get_weights()
            active = np.tanh(linear(layer, kernel + delta["kernel_delta"], bias + delta["bias_delta"], x))
            expected = np.array(base.get_layer(f"{name}_bn")(active))
        np.testing.assert_allclose(after[name], expected, rtol=1e-4, atol=1e-4, err_msg=name)
        assert not np.allclose(after[name], before[name], atol=1e-2)


def in_process(path: Path, deltas: dict[str, dict[str, np.ndarray]]) -> Any:
    """`merge_keras` without the process, which takes seconds to start."""
    from tinypeft.exchange import keras_process

    arrays = {f"{name}:{layer}": a for layer, given in deltas.items() for name, a in given.items()}
    return keras_process.merge(str(path), arrays)


def dequantised(op: Operation) -> np.ndarray:
    filters, axis = op.inputs["filter"], 3 if op.kind == "DEPTHWISE_CONV_2D" else 0
    assert filters.data is not None and filters.scale is not None
    return filters.data * np.moveaxis(filters.scale.reshape(-1, *[1] * (filters.data.ndim - 1)), 0, axis)


def save(folder: Path, *layers: Any, shape: tuple[int, ...] = (4, 4, 2), seed: int = 2) -> Path:
    import keras

    model = keras.Sequential([keras.Input(shape), *layers])
    randomise(model, np.random.default_rng(seed))
    model.save(folder / "model.keras")
    return folder / "model.keras"


def test_a_layer_in_a_model_in_the_model(tmp_path: Path) -> None:
    """The convolution ends an inner model, its BatchNormalization begins another."""
    import keras
    from keras import layers

    inner = keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2D(3, 1, name="conv")], name="first")
    rest = keras.Sequential([keras.Input((4, 4, 3)), layers.BatchNormalization(name="bn"), layers.ReLU()], name="rest")
    path = save(tmp_path, inner, rest)
    base = keras.models.load_model(path)
    delta = np.full((1, 1, 2, 3), 0.5, np.float32)
    merged = in_process(path, {"conv": {"kernel_delta": delta}})
    normalisation = base.get_layer("rest").get_layer("bn")
    factor = normalisation.gamma.numpy() / np.sqrt(normalisation.moving_variance.numpy() + normalisation.epsilon)
    before, after = (m.get_layer("first").get_layer("conv").kernel.numpy() for m in (base, merged))
    np.testing.assert_allclose((after - before) * factor, delta, rtol=1e-5)


def test_gamma_of_zero_loses_a_delta(tmp_path: Path) -> None:
    import keras
    from keras import layers

    path = save(tmp_path, layers.Conv2D(3, 1, name="conv"), layers.BatchNormalization(name="bn", center=False))
    model = keras.models.load_model(path)
    model.get_layer("bn").gamma.assign([1.0, 0.0, 2.0])
    model.save(path)
    delta = np.ones((1, 1, 2, 3), np.float32)
    with pytest.raises(
        AdapterError, match=r"layer conv \(Conv2D\): gamma of bn .* is 0 for channels \[1\], .* no kernel"
    ):
        in_process(path, {"conv": {"kernel_delta": delta}})
    with pytest.raises(AdapterError, match=r"is 0 for channels \[1\], so that no bias"):
        in_process(path, {"conv": {"bias_delta": np.ones(3)}})
    delta[..., 1] = 0
    merged = in_process(path, {"conv": {"kernel_delta": delta, "bias_delta": np.array([1, 0, 1])}})
    np.testing.assert_array_equal(merged.get_layer("conv").kernel[..., 1], model.get_layer("conv").kernel[..., 1])


def test_what_cannot_be_merged_is_named(tmp_path: Path) -> None:
    from keras import layers

    path = save(
        tmp_path,
        layers.Conv2D(3, 1, use_bias=False, name="bare"),
        layers.ReLU(name="relu"),
        layers.Conv2D(3, 1, use_bias=False, name="conv"),
        layers.BatchNormalization(center=False, name="bn"),
        layers.Conv2D(4, 1, name="rows"),
        layers.BatchNormalization(axis=1, name="odd"),
    )
    refused = [
        ("body", "kernel_delta", (1,), "has no layer body; it has bare, relu, conv, bn, rows, odd"),
        ("relu", "kernel_delta", (1,), r"layer relu \(ReLU\) has no kernel"),
        ("bare", "kernel_delta", (1, 2, 3), r"kernel_delta has the shape \(1, 2, 3\), the layer needs \(1, 1, 2, 3\)"),
        ("bare", "bias_delta", (3,), r"layer bare \(Conv2D\) has no bias: its bias delta cannot be merged"),
        ("conv", "bias_delta", (3,), r"layer conv \(Conv2D\) has no bias, and bn \(BatchNormalization\) no beta"),
        ("rows", "kernel_delta", (1, 1, 3, 4), r"layer odd \(BatchNormalization\) normalises axis 1"),
    ]
    for layer, name, shape, message in refused:
        with pytest.raises(AdapterError, match=message):
            in_process(path, {layer: {name: np.ones(shape, np.float32)}})
    with pytest.raises(AdapterError, match="layer bare: unknown kernel; there are kernel_delta, bias_delta"):
        merge_keras(path, {"bare": {"kernel": np.ones(1)}})
    with pytest.raises(AdapterError, match="layer bare: kernel_delta has values that are not finite"):
        merge_keras(path, {"bare": {"kernel_delta": np.full((1, 1, 2, 3), np.inf)}})
    with pytest.raises(ModelError, match=r"none.keras does not exist"):
        merge_keras(tmp_path / "none.keras", {})


def test_errors_of_the_process_are_ours(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="model.keras cannot be loaded by Keras"):
        merge_keras(tmp_path / "model.keras", {})


def test_a_fork_is_open_until_the_folded_kernel_is_given(tmp_path: Path) -> None:
    import keras
    from keras import layers

    entry = keras.Input((4, 4, 3))
    x = layers.Conv2D(3, 1, name="conv")(entry)
    model = keras.Model(entry, layers.Add(name="sum")([layers.BatchNormalization(name="bn")(x), x]))
    randomise(model, np.random.default_rng(3))
    path = tmp_path / "model.keras"
    model.save(path)
    kernel = model.get_layer("conv").kernel.numpy()
    bn = model.get_layer("bn")
    factor = bn.gamma.numpy() / np.sqrt(bn.moving_variance.numpy() + bn.epsilon)
    delta = np.ones_like(kernel)
    with pytest.raises(AdapterError, match="its output goes to bn .* and elsewhere"):
        in_process(path, {"conv": {"kernel_delta": delta}})
    for folded, expected in ((kernel, delta), (kernel * factor, delta / factor)):
        merged = in_process(path, {"conv": {"kernel_delta": delta, "folded_kernel": folded}})
        np.testing.assert_allclose(merged.get_layer("conv").kernel.numpy() - kernel, expected, rtol=1e-5)
    with pytest.raises(
        AdapterError, match=r"conv .*: its kernel differs from the converted one by \d+%, \d+% with bn folded"
    ):
        in_process(path, {"conv": {"kernel_delta": delta, "folded_kernel": kernel[..., ::-1]}})


def test_layers_and_normalisations_that_are_called_twice(tmp_path: Path) -> None:
    import keras
    from keras import layers

    entry = keras.Input((4, 4, 3))
    twice, bn = layers.Conv2D(3, 1, name="twice"), layers.BatchNormalization(name="bn")
    first = bn(layers.Conv2D(3, 1, name="first")(entry))
    second = bn(layers.Conv2D(3, 1, use_bias=False, name="second")(entry))
    model = keras.Model(entry, layers.Add(name="sum")([twice(first), twice(second)]))
    randomise(model, np.random.default_rng(6))
    path = tmp_path / "model.keras"
    model.save(path)
    with pytest.raises(AdapterError, match=r"layer twice \(Conv2D\) is called 2 times"):
        in_process(path, {"twice": {"bias_delta": np.ones(3, np.float32)}})
    with pytest.raises(
        AdapterError, match=r"layer second .* has no bias, and bn \(BatchNormalization\) no beta of its own"
    ):
        in_process(path, {"second": {"bias_delta": np.ones(3, np.float32)}})
    merged = in_process(path, {"first": {"bias_delta": np.ones(3, np.float32)}})
    factor = bn.gamma.numpy() / np.sqrt(bn.moving_variance.numpy() + bn.epsilon)
    change = merged.get_layer("first").bias.numpy() - model.get_layer("first").bias.numpy()
    np.testing.assert_allclose(change * factor, 1, rtol=1e-5)
    np.testing.assert_array_equal(merged.get_layer("bn").beta.numpy(), bn.beta.numpy())


def test_layers_of_one_name_are_refused(tmp_path: Path) -> None:
    import keras
    from keras import layers

    inner = [
        keras.Sequential([keras.Input((4, 4, 2)), layers.Conv2D(2, 1, name="conv")], name=name)
        for name in ("one", "two")
    ]
    path = save(tmp_path, *inner)
    with pytest.raises(AdapterError, match="has 2 layers conv"):
        in_process(path, {"conv": {"bias_delta": np.ones(2, np.float32)}})


@pytest.mark.slow
def test_the_converter_folds_what_we_take_as_folded(tmp_path: Path) -> None:
    """Converted before and after the merge: the filters of the int8 file move by the delta, to its rounding."""
    from keras import layers

    from tinypeft.frontend.keras import convert
    from tinypeft.frontend.tflite import read_tflite

    path = save(
        tmp_path,
        layers.Conv2D(6, 3, name="conv"),
        layers.BatchNormalization(name="bn_1"),
        layers.ReLU(name="relu_1"),
        layers.DepthwiseConv2D(3, use_bias=False, name="depthwise"),
        layers.Dropout(0.1, name="dropout"),
        layers.BatchNormalization(name="bn_2"),
        layers.Conv2D(5, 1, activation="relu", name="active"),
        layers.BatchNormalization(name="bn_3"),
        layers.Flatten(name="flatten"),
        layers.Dense(7, name="dense"),
        layers.BatchNormalization(name="bn_4"),
        shape=(8, 8, 3),
    )
    classes = {"conv": "Conv2D", "depthwise": "DepthwiseConv2D", "active": "Conv2D", "dense": "Dense"}
    calibration = np.random.default_rng(4).normal(size=(16, 8, 8, 3)).astype(np.float32)

    def kernels(model: Path) -> dict[str, np.ndarray]:
        graph = read_tflite(convert(model, calibration).tflite)
        found = {}
        for name, op in zip(classes, (op for op in graph.operations if "filter" in op.inputs), strict=True):
            found[name] = kernel_from_filters(dequantised(op), classes[name], shapes[name])
        return found

    shapes = {"conv": (3, 3, 3, 6), "depthwise": (3, 3, 6, 1), "active": (1, 1, 6, 5), "dense": (80, 7)}
    before = kernels(path)
    rng = np.random.default_rng(5)
    deltas = {n: {"kernel_delta": rng.normal(0, 0.2, shape).astype(np.float32)} for n, shape in shapes.items()}
    with_proof = {n: {**delta, "folded_kernel": before[n]} for n, delta in deltas.items()}
    for given in (deltas, with_proof):
        merged = tmp_path / "merged.keras"
        in_process(path, given).save(merged)
        for name, kernel in kernels(merged).items():
            expected = before[name] + deltas[name]["kernel_delta"]
            assert np.abs(kernel - expected).max() < 0.02 * np.abs(expected).max(), name


def test_a_real_models_filters_are_those_of_its_keras_model(shared_data: Path) -> None:
    """Every layer of a DS-CNN: folded or not as its int8 file shows, and nothing changes where the deltas are zero."""
    import keras

    from tinypeft.frontend.tflite import read_tflite

    path = shared_data / "fsdd_loso" / "lucas.keras"
    base = keras.models.load_model(path, compile=False)
    deltas: dict[str, dict[str, np.ndarray]] = {}
    graph = read_tflite(path.with_suffix(".tflite").read_bytes())
    layers = [layer for layer in base.layers if type(layer).__name__ in KERAS_CLASSES]
    for layer, op in zip(layers, (op for op in graph.operations if "filter" in op.inputs), strict=True):
        kernel = kernel_from_filters(dequantised(op), type(layer).__name__, layer.kernel.shape)
        deltas[layer.name] = {"kernel_delta": np.zeros_like(kernel), "folded_kernel": kernel}
    assert len(deltas) == 10
    merged = in_process(path, deltas)
    for before, after in zip(base.get_weights(), merged.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    deltas["conv2d"]["folded_kernel"] *= -1
    with pytest.raises(AdapterError, match="layer conv2d .*: its kernel differs from the converted one by"):
        in_process(path, deltas)


@pytest.mark.parametrize(
    "keras_class, kernel, filters",
    [
        ("Dense", (4, 3), (3, 4)),
        ("Conv2D", (2, 3, 4, 5), (5, 2, 3, 4)),
        ("Conv1D", (3, 4, 5), (5, 1, 3, 4)),
        ("SeparableConv2D", (1, 1, 4, 5), (5, 1, 1, 4)),
        ("DepthwiseConv2D", (2, 3, 4, 2), (1, 2, 3, 8)),
        ("DepthwiseConv1D", (3, 4, 2), (1, 1, 3, 8)),
        ("Conv2DTranspose", (2, 3, 5, 4), (5, 2, 3, 4)),
    ],
)
def test_layouts_go_both_ways(keras_class: str, kernel: tuple[int, ...], filters: tuple[int, ...]) -> None:
    values = np.arange(np.prod(kernel)).reshape(kernel)
    there = filters_from_kernel(values, keras_class)
    assert there.shape == filters
    np.testing.assert_array_equal(kernel_from_filters(there, keras_class, kernel), values)
    with pytest.raises(AdapterError, match=f"filters .* do not make the kernel .* of a {keras_class}"):
        kernel_from_filters(np.zeros((*filters[:-1], filters[-1] + 1)), keras_class, kernel)


def test_layouts_of_odd_forms() -> None:
    one = np.arange(18).reshape(2, 3, 3, 1)
    np.testing.assert_array_equal(
        kernel_from_filters(one, "DepthwiseConv2D", (3, 3, 1, 2))[:, :, 0, 1], one[1, :, :, 0]
    )
    over_time = np.arange(24).reshape(2, 3, 1, 4)
    np.testing.assert_array_equal(kernel_from_filters(over_time, "Conv1D", (3, 4, 2))[1, 2], over_time[:, 1, 0, 2])
    with pytest.raises(AdapterError, match="a LSTM has no kernel that can be merged"):
        kernel_from_filters(one, "LSTM", (3, 3, 1, 2))

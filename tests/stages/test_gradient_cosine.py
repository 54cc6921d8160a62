"""Gradients of 16 and 8 bits of real models on real samples, against straight-through gradients in float64."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from whole_gradients import integer_gradients, loss_operation, reference_gradients

from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.data import quantize
from tinypeft.frontend import load_model
from tinypeft.interpreter import run_graph
from tinypeft.training import TrainingConfig

pytestmark = pytest.mark.slow

#: the least mean cosine of a parameter's gradient
LEAST = {16: 0.999, 8: 0.98}
TRAINING_STEPS, SAMPLES = 30, 12
#: Where all logits' gradients are smaller, a sample is learnt: what is left of its gradient is rounding.
MIN_LOSS_GRADIENT = 1e-3

Samples = tuple[np.ndarray, np.ndarray]


def _speech(data: Path, count: int) -> Samples:
    recordings = np.load(data / "fsdd_loso" / "nicolas.npz")
    chosen = np.random.default_rng(7).permutation(len(recordings["y"]))[:count]
    return recordings["x"][chosen].astype(np.float32), recordings["y"][chosen]


def _images(data: Path, count: int) -> Samples:
    images = np.load(data / "cifar10_jpeg_uint8.npz")
    chosen = np.random.default_rng(7).permutation(len(images["y_train"]))[:count]
    return (images["x_train"][chosen].astype(np.int16) - 128).astype(np.int8), images["y_train"][chosen]


#: model -> (its file, samples of a device, the learning rate)
MODELS: dict[str, tuple[str, Callable[[Path, int], Samples], float]] = {
    "DS-CNN": ("fsdd_loso/nicolas.tflite", _speech, 0.01),
    "ResNet8": ("models/pretrainedResnet_quant.tflite", _images, 0.0005),
}


def _moved_state(model: CompiledModel, x: np.ndarray, y: np.ndarray, rate: float) -> dict[str, np.ndarray]:
    """An adapter that has learnt from a few samples."""
    state = model.fresh_state(1)
    assert model.training is not None
    name = model.training.inputs[0].name
    for sample, label in zip(x, y, strict=True):
        arguments = {name: sample, "label": np.int32(label), "learning_rate": np.float32(rate)}
        run_graph(model.training, arguments, state)
    return state


def _cosines(
    model: CompiledModel, x: np.ndarray, y: np.ndarray, state: dict[str, np.ndarray]
) -> dict[str, list[float]]:
    """Of each parameter's gradient, over the samples, with the float64 reference of the same forward pass."""
    found: dict[str, list[float]] = {p.quantized.name: [] for p in model.parameters}
    for sample, label in zip(x, y, strict=True):
        actual, values = integer_gradients(model, sample, int(label), state)
        expected = reference_gradients(model, values, int(label))
        if np.abs(expected[loss_operation(model).inputs["logits"].name]).max() < MIN_LOSS_GRADIENT:
            continue
        for name, cosines in found.items():
            a, e = (np.asarray(g, np.float64).reshape(-1) for g in (actual[name], expected[name]))
            assert a.any() == e.any(), f"{name}: one of both is without a gradient"
            if not e.any():
                continue
            cosines.append(float(a @ e / (np.linalg.norm(a) * np.linalg.norm(e))))
    return found


@pytest.mark.parametrize("bits", LEAST)
@pytest.mark.parametrize("name", MODELS)
def test_every_layer_follows_float64(name: str, bits: int, shared_data: Path) -> None:
    file, samples, rate = MODELS[name]
    loaded = load_model(shared_data / file)
    training = TrainingConfig(momentum=0.5, grad_bits=bits)
    model = compile_model("model", b"\0" * 32, loaded.graph, AdapterConfig(r=4), training)
    x, y = samples(shared_data, TRAINING_STEPS + SAMPLES)
    tensor = model.inference.inputs[0]
    x = (x if x.dtype == np.int8 else quantize(x, tensor)).reshape(len(x), *tensor.shape)
    state = _moved_state(model, x[:TRAINING_STEPS], y[:TRAINING_STEPS], rate)
    found = _cosines(model, x[TRAINING_STEPS:], y[TRAINING_STEPS:], state)
    print(f"\n{name}, gradients of {bits} bits, arena {model.arena.arena_bytes:,} B: cosine with float64")
    print(f"{'':40} {'mean':>9} {'least':>9} samples")
    for weight, cosines in found.items():
        assert cosines, f"{weight} gets no gradient from any sample"
        print(f"{weight:40} {np.mean(cosines):9.6f} {np.min(cosines):9.6f} {len(cosines):7}")
    assert min(len(cosines) for cosines in found.values()) >= SAMPLES // 4
    low = {weight: float(np.mean(cosines)) for weight, cosines in found.items() if np.mean(cosines) < LEAST[bits]}
    assert not low, f"{name}: below {LEAST[bits]}: {low}"

"""The integer backward of whole models, adapters included, against straight-through gradients in float64."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import MODELS, load, samples
from whole_gradients import integer_gradients, loss_operation, reference_gradients, trained_state

from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.interpreter import run_graph
from tinypeft.ir import Purpose
from tinypeft.stages.autodiff import TrainingConfig

CONFIGS = {
    "lora": AdapterConfig(r=3, lora_alpha=6.0),
    "lora everywhere": AdapterConfig(r=2, modules_to_save=()),
    "channels": AdapterConfig("bitfit+ia3"),
    "lora and channels everywhere": AdapterConfig("lora+bitfit+ia3", r=2, modules_to_save=()),
    "bottleneck": AdapterConfig("bottleneck", options=(("reduction_factor", 2), ("bottleneck_scaling", 0.5))),
    "hard swish bottleneck": AdapterConfig(
        "bottleneck", modules_to_save=(), options=(("reduction_factor", 1), ("non_linearity", "hard_swish"))
    ),
    "parallel_bottleneck": AdapterConfig(
        "parallel_bottleneck", options=(("reduction_factor", 2), ("bottleneck_scaling", 4.0))
    ),
    "hard swish parallel_bottleneck": AdapterConfig(
        "parallel_bottleneck", modules_to_save=(), options=(("reduction_factor", 1), ("non_linearity", "hard_swish"))
    ),
    "input_offset": AdapterConfig("input_offset"),
    "input_offset, a bottleneck on each side": AdapterConfig(
        "bottleneck+parallel_bottleneck+input_offset",
        options=(("input_offset_shape", "channel"), ("reduction_factor", 1)),
    ),
    "lora in 4 bits": AdapterConfig(r=2, modules_to_save=(), options=(("lora_bits", 4), ("use_rslora", True))),
}


#: Where all logits' gradients are smaller, a float32 loss has lost more of them than the backward behind it.
MIN_LOSS_GRADIENT = 1e-4


def _compiled(name: str, config: AdapterConfig) -> CompiledModel:
    return compile_model(name, b"\0" * 32, load(name).graph, config, TrainingConfig())


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_follow_float64(name: str, config: str) -> None:
    model = _compiled(name, CONFIGS[config])
    data = samples(load(name), 6, 3)
    state = trained_state(model, 5)
    compared: dict[tuple[str, int | None], list[tuple[np.ndarray, np.ndarray]]] = {}
    for number, (x, label) in enumerate(zip(data.x, data.y, strict=True)):
        sample = x.reshape(model.inference.inputs[0].shape)
        actual, values = integer_gradients(model, sample, int(label), state)
        expected = reference_gradients(model, values, int(label))
        if np.abs(expected[loss_operation(model).inputs["logits"].name]).max() < MIN_LOSS_GRADIENT:
            continue
        assert len(actual) == len(model.parameters)
        for parameter in model.parameters:
            weight = parameter.quantized.name
            a, e = (np.asarray(g, np.float64).reshape(-1) for g in (actual[weight], expected[weight]))
            if not e.any():
                assert not a.any(), f"{name}: {weight} gets a gradient where there is none"
                continue
            rows = e.reshape(parameter.quantized.shape[0], -1).any(1)
            together = rows.sum() == 1  # a single unit's sum over channels may cancel in a sample, not in all of them
            compared.setdefault((weight, None if together else number), []).append((a, e))
    for (weight, _), pairs in compared.items():
        a, e = (np.concatenate(each) for each in zip(*pairs, strict=True))
        ratio = np.linalg.norm(a) / np.linalg.norm(e)
        cosine = a @ e / (np.linalg.norm(a) * np.linalg.norm(e))
        assert cosine >= 0.999 and abs(ratio - 1) <= 0.01, f"{name}: {weight}: cosine {cosine}, norm ratio {ratio}"
    assert sum(map(len, compared.values())) > 3 * len(model.parameters)


def test_state_survives_a_rate_of_zero() -> None:
    """Training at rate 0 changes neither masters nor the adapter's integers."""
    model = _compiled("residual", CONFIGS["lora"])
    state = trained_state(model, 5)
    before = {name: value.copy() for name, value in state.items()}
    assert model.training is not None
    x = samples(load("residual"), 1, 3).x.reshape(model.inference.inputs[0].shape)
    run_graph(model.training, {"x": x, "label": np.int32(1), "learning_rate": np.float32(0.0)} | {
        model.training.inputs[0].name: x}, state)  # fmt: skip
    for tensor in model.training_state + model.adapter_weights:
        if tensor.purpose is not Purpose.OPTIMIZER_STATE:
            np.testing.assert_array_equal(state[tensor.name], before[tensor.name], tensor.name)

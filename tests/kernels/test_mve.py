"""The kernels for Helium on QEMU's Cortex-M55 equal `evaluate` to the bit, at random shapes, scales and windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_harness import block_float
from layer_cases import lora_case, lora_operations, tensor
from on_target import Case, check_on_target, need_target
from random_operations import depthwise, random_operation, random_values, random_window
from training_cases import KERNEL_CASES
from update_cases import ROW_CASES
from weighted_cases import WEIGHTED_CASES

from tinypeft.frontend.tflite import read_tflite
from tinypeft.ir import Operation, Purpose
from tinypeft.kernels import BACKENDS, Target
from tinypeft.kernels.mve.backend import OFFERS
from tinypeft.ops import OPS
from tinypeft.ops.base import Value
from tinypeft.ops.window import Window

BOARD = "mps3_an547"
TARGET = Target("cortex-m55")
LORA_KERNELS = {
    "CONV_2D": {"tp_conv_narrow_lora_mve_s8", "tp_conv_wide_lora_mve_s8"},
    "FULLY_CONNECTED": {"tp_fully_connected_lora_mve_s8"},
}
#: Updates of these gradients are drawn.
ROWS = [kind for kind in ROW_CASES if kind.startswith(("LORA_BACKWARD_B", "CONV_2D_BACKWARD_FILTER"))]
#: Cases of one ELF: their tables fit into the board's memory for code.
TOGETHER = 50
#: What draws are made of, per operator, and how many of them at least have a kernel.
DRAWS = {kind: (60, 5) for kind in sorted(OFFERS)} | {
    "CONV_2D": (120, 40),
    "DEPTHWISE_CONV_2D": (240, 30),
    "FULLY_CONNECTED": (60, 15),
    "LORA_DOWN": (60, 40),
    "UPDATE_ROWS": (80, 25),
    "REQUANTIZE_BACKWARD": (80, 50),
    "CONV_2D_BACKWARD_INPUT": (60, 25),
    "DEPTHWISE_CONV_2D_BACKWARD_INPUT": (60, 15),
}


def draw(rng: np.random.Generator, kind: str, name: str) -> tuple[Operation, dict[str, Value]]:
    """A random operation; of adapted layers and gradients too."""
    if kind == "LORA_DOWN":
        return lora_case(rng, name, str(rng.choice(["CONV_2D", "FULLY_CONNECTED"])))[kind]
    if kind == "UPDATE_ROWS":
        return ROW_CASES[str(rng.choice(ROWS))](rng, name)
    if kind in KERNEL_CASES and (kind not in WEIGHTED_CASES or rng.random() < 0.3):
        return KERNEL_CASES[kind](rng, name)
    return random_operation(rng, kind)


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
@pytest.mark.parametrize("kind", sorted(OFFERS))
def test_random_operations(kind: str) -> None:
    need_target(BOARD)
    rng = np.random.default_rng(len(kind))
    draws, least = DRAWS[kind]
    cases: list[Case] = []
    for i in range(draws):
        operation, values = draw(rng, kind, f"op{i}")
        kernels = BACKENDS["mve"].offers(operation, TARGET)
        if isinstance(kernels, str):
            continue
        for kernel in kernels:
            cases.append(Case(operation, kernel, values))
            behind = operation.op.behind(operation) if kernel.in_order else {}
            for operand, distance in behind.items():
                cases.append(Case(operation, kernel, values, (operand, distance)))
            for operands in operation.op.in_place(operation).values() if kernel.in_order else ():
                cases += [Case(operation, kernel, values, (operand, 0)) for operand in operands]
    assert len({id(case.operation) for case in cases}) >= least
    for at in range(0, len(cases), TOGETHER):
        check_on_target(cases[at : at + TOGETHER], BOARD)


IMAGES = {
    "25x5x64": Window(25, 5, 64, 25, 5, 64, 3, 3, 1, 1, 1, 1, 1, 1),
    "6x6x96, 4x2": Window(6, 6, 96, 6, 6, 96, 4, 2, 1, 1, 1, 1, 2, 0),
    "12x7x128, padding above": Window(12, 7, 128, 12, 7, 128, 3, 3, 1, 1, 1, 1, 2, 1),
    "3x3x256": Window(3, 3, 256, 3, 3, 256, 3, 3, 1, 1, 1, 1, 1, 1),
    "13x4x30": Window(13, 4, 30, 13, 4, 30, 3, 3, 1, 1, 1, 1, 1, 1),
}


def test_depthwise_over_its_input() -> None:
    """Some channels at a time, some rows at a time: both where the output begins where the input does."""
    need_target(BOARD)
    rng = np.random.default_rng(11)
    cases: list[Case] = []
    for window in IMAGES.values():
        operation = depthwise(rng, window)
        while isinstance(kernels := BACKENDS["mve"].offers(operation, TARGET), str):
            operation = depthwise(rng, window)
        assert operation.op.in_place(operation) == {"output": ("input",)} and all(k.in_order for k in kernels)
        values = random_values(rng, operation)
        cases += [Case(operation, kernel, values, over) for kernel in kernels for over in (None, ("input", 0))]
    parameters = [case.kernel.call.fields for case in cases]
    assert any(p["channels"] < p["window"]["output_c"] and p["rows"] < p["window"]["output_h"] for p in parameters)
    check_on_target(cases, BOARD)


@pytest.mark.parametrize("kind", ["CONV_2D", "FULLY_CONNECTED"])
def test_layers_with_a_lora(kind: str) -> None:
    need_target(BOARD)
    rng = np.random.default_rng(5)
    cases: list[Case] = []
    for i in range(60):
        operation, values = lora_case(rng, f"op{i}", kind)["layer"]
        kernels = BACKENDS["mve"].offers(operation, TARGET)
        cases += [] if isinstance(kernels, str) else [Case(operation, kernel, values) for kernel in kernels]
    functions = {case.kernel.call.function for case in cases}
    assert {name for name in functions if "_lora_" in name} == LORA_KERNELS[kind]
    for at in range(0, len(cases), TOGETHER):
        check_on_target(cases[at : at + TOGETHER], BOARD)


def wide_gradient(rng: np.random.Generator, name: str, kind: str) -> tuple[Operation, dict[str, Value]]:
    """The gradient of an input of more channels than the operators' own tests draw."""
    depthwise = kind == "DEPTHWISE_CONV_2D_BACKWARD_INPUT"
    channels, others = (int(n) for n in rng.integers(9, 90, 2))
    window = random_window(rng, channels, channels if depthwise else others, (1, 1) if rng.random() < 0.4 else None)
    shape = (window.kernel_h, window.kernel_w)
    shape = (1, *shape, channels) if depthwise else (others, *shape, channels)
    data = rng.integers(-127, 128, shape).astype(np.int8)
    peak = int(rng.choice([3, 32767]))
    inputs = {
        "d_acc": tensor(f"{name}_d", window.output_shape, "bfp16"),
        "filter": tensor(f"{name}_w", shape, "int8", Purpose.FROZEN_WEIGHT, data=data),
    }
    values: dict[str, Value] = {"d_acc": block_float(rng, window.output_shape, peak), "filter": data}
    if not depthwise and rng.random() < 0.4:
        inputs["addend"] = tensor(f"{name}_addend", window.input_shape, "bfp16")
        values["addend"] = block_float(rng, window.input_shape, exponent=int(rng.integers(-30, 0)))
    outputs = {"d_input": tensor(f"{name}_d_input", window.input_shape, "bfp16")}
    return Operation(OPS[kind], name, inputs, outputs, {"window": window}), values


@pytest.mark.parametrize("kind", ["CONV_2D_BACKWARD_INPUT", "DEPTHWISE_CONV_2D_BACKWARD_INPUT"])
def test_wide_gradients(kind: str) -> None:
    need_target(BOARD)
    rng = np.random.default_rng(7)
    cases = []
    for i in range(40):
        operation, values = wide_gradient(rng, f"op{i}", kind)
        kernels = BACKENDS["mve"].offers(operation, TARGET)
        assert not isinstance(kernels, str)
        cases += [Case(operation, kernel, values) for kernel in kernels]
    for at in range(0, len(cases), TOGETHER):
        check_on_target(cases[at : at + TOGETHER], BOARD)


@pytest.mark.parametrize("channels", [16, 32, 48, 64, 80, 144])
def test_inputs_as_they_lie(channels: int) -> None:
    need_target(BOARD)
    rng = np.random.default_rng(channels)
    cases = []
    while len(cases) < 12:
        h, w, c = (int(n) for n in rng.integers(1, 9, 3))
        window = Window(h, w, channels, h, w, c, 1, 1)
        operation, values = random_operation(rng, "CONV_2D", window=window)
        kernels = BACKENDS["mve"].offers(operation, TARGET)
        cases += [Case(operation, k, values) for k in kernels if not isinstance(k, str) and not k.in_order]
    check_on_target(cases, BOARD)


@pytest.mark.parametrize("channels", [32, 48])
def test_slices_of_channels(channels: int) -> None:
    need_target(BOARD)
    rng = np.random.default_rng(channels)
    cases: list[Case] = []
    for _ in range(40):
        window = random_window(rng, channels, channels, (3, 3))
        operation, values = random_operation(rng, "DEPTHWISE_CONV_2D", window=window)
        kernels = BACKENDS["mve"].offers(operation, TARGET)
        offered = [] if isinstance(kernels, str) else kernels
        cases += [Case(operation, k, values) for k in offered if k.call.fields["channels"] < channels]
    assert len(cases) >= 10
    check_on_target(cases, BOARD)


@pytest.mark.parametrize("kind", ["CONV_2D", "FULLY_CONNECTED"])
def test_wide_loras(kind: str) -> None:
    """All operations of a LoRA on wide layers, forward and backward, with the values that they give each other."""
    need_target(BOARD)
    rng = np.random.default_rng(9)
    cases: list[Case] = []
    for i in range(20):
        fixed: dict[str, Any] = {"rows": None}
        if kind == "CONV_2D":
            pointwise = Window(3, 4, 16 * int(rng.integers(1, 7)), 3, 4, int(rng.integers(2, 40)), 1, 1)
            fixed = {"window": pointwise if i % 2 else None}
        base, values = random_operation(rng, kind, **fixed)
        made = lora_operations(base, int(rng.choice([1, 3, 4, 8])), 8.0)
        quantize, down, layer = made["LORA_QUANTIZE"], made["LORA_DOWN"], made["layer"]
        for name in ("master_A", "master_B"):
            values[name] = rng.normal(0, 0.1, quantize.inputs[name].shape).astype(np.float32)
        values |= quantize.op.evaluate(quantize, values)
        values |= down.op.evaluate(down, values)
        values["d_acc"] = block_float(rng, layer.output.shape)
        state = {n: layer.inputs[n] for n in ("lora_B", "lora_shift")} | {"hidden_shift": down.inputs["hidden_shift"]}
        state |= {"d_acc": tensor(f"d{i}", layer.output.shape, "bfp16"), "l1": quantize.outputs["l1"]}
        d_hidden = {"d_hidden": tensor(f"h{i}", layer.inputs["hidden"].shape, "bfp16")}
        names = OPS["LORA_BACKWARD_HIDDEN"].operands
        back = Operation(OPS["LORA_BACKWARD_HIDDEN"], f"b{i}", {n: state[n] for n in names}, d_hidden, {})
        for operation in (down, layer, back):
            kernels = BACKENDS["mve"].offers(operation, TARGET)
            given = {n: values[n] for n in operation.inputs}
            cases += [] if isinstance(kernels, str) else [Case(operation, kernel, given) for kernel in kernels]
    assert {"LORA_DOWN", "LORA_BACKWARD_HIDDEN", kind} == {case.operation.kind for case in cases}
    for at in range(0, len(cases), TOGETHER):
        check_on_target(cases[at : at + TOGETHER], BOARD)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kws_ref_model", "vww_96_int8", "pretrainedResnet_quant", "ad01_int8"])
def test_layers_of_models(name: str, shared_data: Path) -> None:
    need_target(BOARD)
    rng = np.random.default_rng(3)
    graph = read_tflite((shared_data / "models" / f"{name}.tflite").read_bytes())
    cases: list[Case] = []
    for operation in graph.operations:
        kernels = BACKENDS["mve"].offers(operation, TARGET)
        assert not isinstance(kernels, str) or operation.kind in ("RESHAPE", "SOFTMAX"), f"{operation}: {kernels}"
        if not isinstance(kernels, str):
            cases += [Case(operation, kernel, random_values(rng, operation)) for kernel in kernels]
    for at in range(0, len(cases), 8):
        check_on_target(cases[at : at + 8], BOARD)


def test_other_cores_have_none() -> None:
    rng = np.random.default_rng(0)
    operation, _ = random_operation(rng, "FULLY_CONNECTED")
    assert BACKENDS["mve"].offers(operation, Target("cortex-m4")) == "no kernels for cortex-m4"

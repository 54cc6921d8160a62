"""A LoRA's gradients: the float64 reference against finite differences, and the C sums of B's against `evaluate`."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from float_reference import Reference, real
from kernel_harness import compile_library
from layer_cases import lora_operations
from weighted_cases import WEIGHTED_CASES, constants

from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.parameter_gradient import ParameterGradient
from tinypeft.ops.weighted import LoraState


def _plain(op: Operation) -> bool:
    """Whether it has no groups, and one row if it is dense."""
    channels = op.inputs["filter"].shape[-1]
    return op.inputs["input"].shape[-1] == channels and (
        op.kind == "CONV_2D" or op.inputs["input"].shape == (1, channels)
    )


@pytest.mark.parametrize("kind", ["CONV_2D", "FULLY_CONNECTED"])
@pytest.mark.parametrize("seed", range(6))
def test_the_reference_is_the_derivative(kind: str, seed: int) -> None:
    """Of d . layer(x), where the layer adds scaling * B A x; x, A and B are what the integers stand for."""
    rng = np.random.default_rng(seed)
    node = WEIGHTED_CASES[kind](rng)
    base = node.operation("base")
    while not _plain(base):
        node = WEIGHTED_CASES[kind](rng)
        base = node.operation("base")
    made = lora_operations(base, 3)
    quantize, down, layer = made["LORA_QUANTIZE"], made["LORA_DOWN"], made["layer"]
    shapes = {name: tensor.shape for name, tensor in quantize.inputs.items()}
    values = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    results = quantize.op.evaluate(quantize, values)
    x_q = rng.integers(-128, 128, base.inputs["input"].shape).astype(np.int8)
    by_name = {tensor.name: results[name] for name, tensor in quantize.outputs.items()}
    by_name |= {base.inputs["input"].name: x_q, base.output.name: np.ones(base.output.shape, np.int8)}  # not clamped
    operands = {"input": x_q, "lora_A": results["lora_A"], "hidden_shift": results["hidden_shift"]}
    by_name[down.output.name] = down.op.evaluate(down, operands)["hidden"]
    layer.attributes["lora"] = LoraState(
        quantize.outputs["hidden_shift"], quantize.outputs["l1"], quantize.outputs["gradient_unit"],
        quantize.attributes["b_unit"],
    )  # fmt: skip
    layer.attributes["activation"] = "NONE"
    reference = Reference(by_name | {"lora_A of hidden": {down.output.name: down.inputs["lora_A"]}})
    d = rng.normal(0, 1, base.output.shape)
    reference.gradients[base.output.name] = d
    reference.backward(layer)

    restore = made["LORA_RESTORE"]
    masters = restore.op.evaluate(restore, results)
    a, b = masters["master_A"].astype(np.float64), masters["master_B"].astype(np.float64)
    x, w = real(base.inputs["input"], x_q), real(base.inputs["filter"], constants(node)["filter"])
    scaling = float(quantize.attributes["b_unit"][0]) * float(np.asarray(base.inputs["filter"].scale).reshape(-1)[0])

    def objective(x: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
        matrix = w.reshape(len(w), -1) + scaling * b @ a.reshape(len(a), -1)
        window = base.attributes.get("window")
        columns = x.reshape(-1, w.shape[-1]) if window is None else window.patches(x).reshape(-1, matrix.shape[1])
        return float((d.reshape(-1, len(w)) * (columns @ matrix.T)).sum())

    step = 1e-4
    for position, tensor in enumerate((base.inputs["input"], down.inputs["lora_A"], layer.inputs["lora_B"])):
        arguments = [x, a, b]
        gradient = reference.gradients[tensor.name]
        direction = rng.normal(0, 1, gradient.shape)
        moved = [[*arguments], [*arguments]]
        for side, sign in zip(moved, (1, -1), strict=True):
            side[position] = arguments[position] + sign * step * direction.reshape(arguments[position].shape)
        difference = (objective(*moved[0]) - objective(*moved[1])) / (2 * step)
        assert difference == pytest.approx(float((gradient * direction).sum()), rel=1e-4, abs=1e-9)


_CALL = """
#include "tinypeft/tp_kernels.h"
int row(int32_t positions, int32_t rank, int32_t channels, int16_t *g, int16_t *hidden, int32_t row, int32_t shift,
        int32_t *sums);
int row(int32_t positions, int32_t rank, int32_t channels, int16_t *g, int16_t *hidden, int32_t row, int32_t shift,
        int32_t *sums) {
  const tp_lora_backward_params params = {positions, rank, channels};
  const tp_bfp d_output = {.mantissa = g};
  return tp_lora_gradient_b_s32(&params, &d_output, hidden, row, 0, shift, sums);
}
"""


@pytest.mark.parametrize("rank", [1, 3, 4, 6, 8])
def test_rows_of_the_gradient_of_b(rank: int) -> None:
    """Extreme mantissas and zeros, sums that int32 does not hold."""
    library = compile_library(_CALL, ("tp_lora.c",))
    rng = np.random.default_rng(rank)
    positions, channels = 70, 5
    d = Tensor("d", (1, positions, 1, channels), "bfp16", Purpose.GRADIENT)
    source = Tensor("hidden", (1, positions, 1, rank), "int16", Purpose.ACTIVATION)
    op = OPS["LORA_BACKWARD_B"]
    assert isinstance(op, ParameterGradient)
    g = rng.integers(-32767, 32768, d.shape).astype(np.int16) * rng.integers(0, 2, d.shape).astype(np.int16)
    g[..., 0] = 32767
    hidden = rng.integers(-32767, 32768, source.shape).astype(np.int16)
    hidden[..., 0] = -32767
    exact = g.reshape(-1, channels).T.astype(object) @ hidden.reshape(-1, rank).astype(object)
    for row in range(channels):
        for shift in (0, 7) if row else (10,):
            sums = np.zeros(rank, np.int32)
            pointers = [v.ctypes.data_as(ctypes.c_void_p) for v in (g, hidden)]
            found = library.row(
                positions, rank, channels, *pointers, row, 16 + shift, sums.ctypes.data_as(ctypes.c_void_p)
            )
            half = 1 << (15 + shift)
            assert sums.tolist() == [(int(total) + half) >> (16 + shift) for total in exact[row]]
            assert found == int(sums.any())

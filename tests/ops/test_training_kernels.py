"""Kernels of adapters, gradients and updates against `evaluate`: to the bit, without undefined behaviour."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_harness import compare_kernel, compile_operations, in_8_bits
from layer_cases import narrows
from training_cases import KERNEL_CASES
from update_cases import ROW_CASES, held_by

from tinypeft.ir import Operation
from tinypeft.ops import OPS
from tinypeft.ops.base import BlockFloat

COUNT = 200
#: operators that take or give a gradient of activations, whose bits may be 8
OF_GRADIENTS = [
    k for k in KERNEL_CASES if {"d_output", "d_acc", "d_logits", "sum"} & {*OPS[k].operands, *OPS[k].results}
]


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
@pytest.mark.parametrize(("kind", "bits"), [*((kind, 16) for kind in KERNEL_CASES), *((k, 8) for k in OF_GRADIENTS)])
def test_kernel_equals_evaluate(kind: str, bits: int) -> None:
    rng = np.random.default_rng(11)
    cases = [KERNEL_CASES[kind](rng, f"op{i}") for i in range(COUNT)]
    if bits == 8:
        cases = [(op, in_8_bits(op, values)) for op, values in cases]
    for compiled, (op, values) in zip(compile_operations([op for op, _ in cases]), cases, strict=True):
        assert op.kind == kind
        results = compare_kernel(compiled, values)
        for name, result in results.items():
            if isinstance(result, BlockFloat):
                assert result.peak < 1 << bits - 1, f"{op}: {name} leaves the range of mantissas"
            elif result.dtype == np.float32 and not _sums(op):
                assert np.isfinite(result).all(), f"{op}: {name} is not finite"


@pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize("kind", ROW_CASES)
def test_rows_equal_evaluate(kind: str, bits: int) -> None:
    """Gradients of parameters and optimisers, which updates hold."""
    rng = np.random.default_rng(12)
    cases = [ROW_CASES[kind](rng, f"op{i}") for i in range(COUNT)]
    if bits == 8:
        cases = [(op, in_8_bits(op, values)) for op, values in cases]
    for compiled, (op, values) in zip(compile_operations([op for op, _ in cases]), cases, strict=True):
        assert kind in held_by(op)
        compare_kernel(compiled, values)


def _sums(op: Operation) -> bool:
    """Whether an update only adds to a sum."""
    return "ACCUMULATE_GRADIENT" in held_by(op)


@pytest.mark.parametrize("kind", ["CONV_2D_BACKWARD_INPUT", "DEPTHWISE_CONV_2D_BACKWARD_INPUT", "LORA_BACKWARD_HIDDEN"])
def test_cases_narrow_mantissas(kind: str) -> None:
    rng = np.random.default_rng(11)
    cases = [KERNEL_CASES[kind](rng, f"op{i}") for i in range(COUNT)]
    assert sum(narrows(op, values) for op, values in cases) > COUNT / 40
    in_place = [op.op.in_place(op).get("d_input") for op, _ in cases]
    assert kind == "LORA_BACKWARD_HIDDEN" or any(in_place) and not all(in_place)

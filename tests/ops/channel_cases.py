"""Random layers whose biases and channel factors are trained (BitFit, IA3), with values, and IA3's gradient."""

from __future__ import annotations

import numpy as np
from cases import random_int8, random_zero_point
from layer_cases import MASTER_STYLES, Case, gradient, masters, tensor
from weighted_cases import WEIGHTED_CASES, constants

from tinypeft.adapters import ADAPTERS, AdaptedGraph, AdapterConfig, Insertion
from tinypeft.ir import Graph, Operation, Purpose
from tinypeft.ops import OPS
from tinypeft.ops.base import Value
from tinypeft.ops.weighted import filter_scales, input_scale

KINDS = ("bitfit", "ia3")


def adapt(operation: Operation, *kinds: str) -> dict[str, Operation]:
    """Insert the kinds into `operation`; the operations that quantise and restore them, by operator."""
    adapted = AdaptedGraph(Graph("layer", [operation.inputs["input"]], [operation.output], [operation]))
    insertion = Insertion(adapted)
    for kind in kinds:
        assert ADAPTERS[kind].refuses(operation) is None
        ADAPTERS[kind].insert(operation, AdapterConfig(), insertion)
    made = {op.kind: op for op in (*adapted.quantizers, *adapted.restorers)}
    return made | {op.kind: op for op in insertion.before} | {"layer": operation}


def bias_masters(rng: np.random.Generator, base: Operation, style: str) -> np.ndarray:
    """Changes of a bias: from less than a step of the accumulator to more than fit."""
    unit = input_scale(base) * filter_scales(base)
    with np.errstate(over="ignore"):
        return (masters(rng, unit.shape, style, 1.0) * unit * np.float32(2.0 ** rng.integers(-2, 34))).astype(
            np.float32
        )


def factor_masters(rng: np.random.Generator, channels: int, style: str) -> np.ndarray:
    """Factors near 1 and far, powers of two, negative, not finite."""
    values = np.exp(rng.uniform(-6, 6, channels) * (rng.random() if style == "normal" else 1)).astype(np.float32)
    if style == "rows apart":
        values = 2.0 ** rng.integers(-8, 9, channels).astype(np.float32)
    if style in ("zero", "tiny", "huge", "not finite"):
        values = masters(rng, (channels,), style, 1.0)
    return values


def channel_case(rng: np.random.Generator, name: str, kind: str) -> dict[str, Case]:
    """The operations of BitFit, IA3 or both on a random layer of `kind`, with values."""
    node = WEIGHTED_CASES[kind](rng)
    layer = node.operation(name)
    kinds = [KINDS, KINDS[:1], KINDS[1:]][int(rng.integers(3))]
    made = adapt(layer, *kinds)
    values: dict[str, Value] = {"input": random_int8(rng, layer.inputs["input"].shape), **constants(node)}
    cases: dict[str, Case] = {}
    styles = rng.choice(MASTER_STYLES, 2, p=[0.4, 0.2, 0.08, 0.08, 0.08, 0.08, 0.08])
    for quantizer, restorer in (("BITFIT_QUANTIZE", "BITFIT_RESTORE"), ("IA3_QUANTIZE", "IA3_RESTORE")):
        if quantizer not in made:
            continue
        op = made[quantizer]
        bias = quantizer.startswith("BITFIT")
        master = bias_masters(rng, layer, styles[0]) if bias else factor_masters(rng, op.output.size, styles[1])
        integers = op.op.evaluate(op, {"master": master})
        cases[quantizer] = op, {"master": master}
        cases[restorer] = made[restorer], {n: integers[n] for n in made[restorer].inputs}
        values |= {n: value for n, value in integers.items() if n in layer.inputs}
    cases["layer"] = layer, {n: values[n] for n in layer.inputs}
    return cases


def quantizer_case(rng: np.random.Generator, name: str, kind: str) -> Case:
    """One of the four operators that quantise and restore."""
    while True:
        cases = channel_case(rng, name, str(rng.choice(list(WEIGHTED_CASES))))
        if kind in cases:
            return cases[kind]


def trained_logits_case(rng: np.random.Generator, name: str) -> Case:
    """DENSE_LOGITS with a trained bias."""
    while True:
        layer, values = channel_case(rng, name, "FULLY_CONNECTED")["layer"]
        if "trained_bias" in layer.attributes and layer.inputs["input"].size == layer.inputs["filter"].shape[1]:
            break
    kept = [n for n in layer.inputs if OPS["DENSE_LOGITS"].takes(n)]
    logits = tensor(f"{name}_logits", (1, layer.inputs["filter"].shape[0]), "int32")
    logits.scale = np.exp2(rng.integers(-20, -2, 1)).astype(np.float32)
    op = Operation(
        OPS["DENSE_LOGITS"], name, {n: layer.inputs[n] for n in kept}, {"logits": logits}, dict(layer.attributes)
    )
    return op, {n: values[n] for n in kept}


def ia3_backward(rng: np.random.Generator, name: str) -> Case:
    """Outputs of any zero point; now and then so many positions that sums are wider than int32."""
    positions = int(rng.choice([1, 3, 20, 700]))
    shape = 1, positions, 1, int(rng.integers(1, 9))
    source = tensor(f"{name}_output", shape, "int8")
    source.zero_point = random_zero_point(rng)
    result = {"gradient": tensor(f"{name}_gradient", shape[-1:], "bfp32", Purpose.GRADIENT)}
    inputs = {"d_output": tensor(f"{name}_d", shape, "bfp16"), "source": source}
    values: dict[str, Value] = {"d_output": gradient(rng, shape), "source": random_int8(rng, shape)}
    return Operation(OPS["IA3_BACKWARD"], name, inputs, result), values

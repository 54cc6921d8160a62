"""Random operations, with values, of a sparse update: SPARSE_CASES, and every operation of one on a random layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from cases import random_int8
from layer_cases import MASTER_STYLES, Case, gradient, masters, tensor
from weighted_cases import WEIGHTED_CASES, constants

from tinypeft.adapters import AdaptedGraph, AdapterConfig
from tinypeft.adapters.sparse import Sparse
from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.base import Value
from tinypeft.ops.sparse_quantize import BIAS_LIMIT
from tinypeft.stages.insert import insert_adapters

LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def random_layer(rng: np.random.Generator, name: str, kind: str) -> tuple[Operation, dict[str, Value]]:
    """A layer that a sparse update can adapt, and its constants."""
    while True:
        node = WEIGHTED_CASES[kind](rng)
        operation = node.operation(name)
        operation.layer = name
        if operation.op.check(operation) is None and Sparse().refuses(operation) is None:
            return operation, constants(node)


def insert_sparse(base: Operation, density: float, **options: Any) -> AdaptedGraph:
    """The layer alone, with a sparse update of a share of its channels."""
    graph = Graph("layer", [base.inputs["input"]], [base.output], [base])
    chosen = tuple({"density": density, **options}.items())
    return insert_adapters(graph, AdapterConfig("sparse", modules_to_save=(), options=chosen))


def random_density(rng: np.random.Generator) -> float:
    """Few channels, some, or all."""
    return float(rng.choice([0.01, rng.uniform(0.05, 0.95), 1.0]))


def sparse_case(rng: np.random.Generator, name: str, kind: str) -> dict[str, Case]:
    """The operations of a sparse update of a random layer by kind, each with the values that the ones before give.

    INITIALIZE_FROM_CHANNELS stands for the rows', or now and then the biases'.
    """
    base, values = random_layer(rng, name, kind)
    adapted = insert_sparse(base, random_density(rng))
    quantize, restore = adapted.quantizers[0], adapted.restorers[0]
    styles = rng.choice(MASTER_STYLES, 2)
    for operand, style in zip(("master_rows", "master_bias"), styles, strict=True):
        scale = float(quantize.attributes["filter_scale"].mean()) * 127
        values[operand] = masters(rng, quantize.inputs[operand].shape, style, scale * float(rng.choice([0.3, 3.0])))
    with np.errstate(over="ignore", invalid="ignore"):
        quantized = quantize.op.evaluate(quantize, values)
    values |= {"input": random_int8(rng, base.inputs["input"].shape)}
    layer = adapted.graph.operations[0]
    made = {
        quantize.kind: (quantize, values),
        restore.kind: (restore, quantized),
        layer.kind: (layer, values | quantized),
    }
    if len(adapted.graph.operations) > 1:
        outputs = {"rows": layer.op.evaluate(layer, values | quantized)["output"]}
        outputs["base"] = base.op.evaluate(base, values)["output"]
        made["REPLACE_CHANNELS"] = adapted.graph.operations[-1], outputs
    initialize = adapted.initializers[int(rng.integers(len(adapted.initializers)))]
    if initialize.kind == "INITIALIZE_FROM_CHANNELS":
        made[initialize.kind] = initialize, {"weights": initialize.inputs["weights"].data}
    return {kind: (op, {n: given[n] for n in op.inputs}) for kind, (op, given) in made.items()}


def _sparse(wanted: str) -> Callable[[np.random.Generator, str], Case]:
    def make(rng: np.random.Generator, name: str) -> Case:
        while True:
            made = sparse_case(rng, name, str(rng.choice(LAYERS)))
            if wanted in made:
                return made[wanted]

    return make


def _channels(kind: str) -> Callable[[np.random.Generator, str], Case]:
    def make(rng: np.random.Generator, name: str) -> Case:
        shape = (1, *(int(n) for n in rng.integers(1, 8, 3)))
        count = int(rng.integers(1, shape[-1] + 1))
        channel = np.sort(rng.choice(shape[-1], count, replace=False)).astype(np.int16)
        result = OPS[kind].results[0]
        outputs = {result: tensor(result, (*shape[:3], count) if result == "selected" else shape, "bfp16")}
        inputs = {"d_output": tensor("d", shape, "bfp16")}
        return Operation(OPS[kind], name, inputs, outputs, {"channel": channel}), {"d_output": gradient(rng, shape)}

    return make


def rows_backward_input(rng: np.random.Generator, name: str) -> Case:
    """CONV_2D_BACKWARD_INPUT of rows that each read channels of their own: a few of a grouped or depthwise layer."""
    while True:
        layer, values = sparse_case(rng, name, str(rng.choice(LAYERS[:2])))["SPARSE_ROWS"]
        if layer.attributes["first_channel"] is not None:
            break
    window, first = layer.attributes["window"], layer.attributes["first_channel"]
    rows = rng.choice(np.array([-127, 127], np.int8), values["rows"].shape) if rng.random() < 0.3 else values["rows"]
    l1 = np.abs(rows.astype(np.int64)).sum((1, 2))  # (k, filter_c)
    norm = max(l1[first == each].sum(0).max() for each in first)
    d_acc = tensor(f"{name}_d_acc", window.output_shape, "bfp16")
    d_input = tensor(f"{name}_d_input", window.input_shape, "bfp16")
    inputs = {"d_acc": d_acc, "filter": layer.inputs["rows"], "l1": tensor("l1", (1,), "int32")}
    given: dict[str, Value] = {"d_acc": gradient(rng, d_acc.shape), "filter": rows, "l1": np.array([norm], np.int32)}
    if rng.random() < 0.5:
        inputs["addend"] = tensor("addend", d_input.shape, "bfp16")
        given["addend"] = gradient(rng, d_input.shape)
    attributes = {"window": window, "first_channel": first}
    return Operation(OPS["CONV_2D_BACKWARD_INPUT"], name, inputs, {"d_input": d_input}, attributes), given


def rows_update(rng: np.random.Generator, name: str) -> Case:
    """UPDATE_ROWS by CONV_2D_BACKWARD_FILTER, of rows of any layer."""
    layer, values = sparse_case(rng, name, str(rng.choice(LAYERS)))["SPARSE_ROWS"]
    window, rows = layer.attributes["window"], layer.inputs["rows"]
    operands = {"d_output": tensor(f"{name}_d", window.output_shape, "bfp16"), "source": layer.inputs["input"]}
    attributes = {"window": window, "scale": np.float32(0.01)}
    if layer.attributes["first_channel"] is not None:
        attributes["first_channel"] = layer.attributes["first_channel"]
    d_rows = tensor(f"{name}_gradient", rows.shape, "bfp32")
    producer = Operation(OPS["CONV_2D_BACKWARD_FILTER"], f"{name}_g", operands, {"gradient": d_rows}, attributes)
    rate = Tensor("rate", (), "float32", Purpose.ARGUMENT)
    master = tensor("master", rows.shape, "float32", Purpose.MASTER)
    taken = {"learning_rate": rate, "master": master}
    settings = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    update = Operation(OPS["SGD"], f"{name}_u", {"gradient": d_rows, **taken}, {"master": master}, settings)
    inputs, held = operands | taken, {"gradient": producer, "update": update}
    given = {"d_output": gradient(rng, window.output_shape), "source": values["input"]}
    given |= {"learning_rate": np.float32(0.5), "master": masters(rng, rows.shape, "normal")}
    return Operation(OPS["UPDATE_ROWS"], name, inputs, {"master": master}, held), given


def stretched_bias(rng: np.random.Generator, count: int) -> np.ndarray:
    """Biases up to the largest that rows take."""
    return rng.choice([-1, 1], count) * (BIAS_LIMIT - rng.integers(0, 3, count) ** 9)


SPARSE_CASES: dict[str, Callable[[np.random.Generator, str], Case]] = {
    kind: _sparse(kind)
    for kind in ("SPARSE_ROWS", "REPLACE_CHANNELS", "SPARSE_QUANTIZE", "SPARSE_RESTORE", "INITIALIZE_FROM_CHANNELS")
}
SPARSE_CASES |= {kind: _channels(kind) for kind in ("SELECT_CHANNELS", "CLEAR_CHANNELS")}

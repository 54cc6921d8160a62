"""The gradients of a whole model for one sample: those of the integer training graph, and those in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from bottleneck_reference import FUNCTIONS
from float_reference import Reference

from tinypeft.compiler import CompiledModel
from tinypeft.interpreter import run_graph
from tinypeft.ir import Operation
from tinypeft.ops.loss import LossOp
from tinypeft.ops.parameter_gradient import row_factors


def trained_state(model: CompiledModel, seed: int) -> dict[str, np.ndarray]:
    """A fresh adapter whose masters have moved: what starts at zero no longer is, channels of different size."""
    rng = np.random.default_rng(seed)
    state = model.fresh_state(seed)
    steps = {
        id(op.inputs["bias"]): op.output.scale[0]
        for op in model.inference.operations
        if "trained_bias" in op.attributes and op.output.scale is not None
    }
    for parameter in model.parameters:
        master = state[parameter.master.name]
        if not master.any():
            spread = np.exp(rng.uniform(-2, 1, (len(master), *[1] * (master.ndim - 1))))
            state[parameter.master.name] = (rng.normal(0, 0.05, master.shape) * spread).astype(np.float32)
        elif id(parameter.quantized) in steps:
            change = rng.normal(0, 10, master.shape) * steps[id(parameter.quantized)]
            state[parameter.master.name] = change.astype(np.float32)
        else:
            state[parameter.master.name] = (master * rng.uniform(0.8, 1.3, master.shape)).astype(np.float32)
    assert model.requantize is not None
    run_graph(model.requantize, {}, state)
    return state


def integer_gradients(
    model: CompiledModel, x: np.ndarray, label: int, state: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Of one step of training: (gradient by adapter weight, every value of the forward pass by tensor name)."""
    training = model.training
    assert training is not None
    values: dict[str, Any] = dict(state) | {training.inputs[0].name: x}
    computed: dict[str, np.ndarray] = {}
    masters = {p.master.name: p.quantized.name for p in model.parameters}

    def trace(op: Any, operand: str, tensor: Any, value: Any) -> None:
        if not tensor.persistent:
            values[tensor.name] = value
        if op.kind == "UPDATE_ROWS" and operand == "master":
            producer = op.attributes["gradient"]
            operands = {name: values[t.name] for name, t in producer.inputs.items()}
            sums = producer.op.evaluate(producer, operands)["gradient"]
            factors = row_factors(producer, operands, sums.exponent)
            rows = sums.mantissa.reshape(len(factors), -1)
            computed[masters[tensor.name]] = (rows * factors[:, None]).reshape(tensor.shape)
        if op.kind == "DENSE_RETRAIN" and operand == "master_filter":
            source = op.inputs["source"]
            given = values[source.name].reshape(-1).astype(np.float64) - source.zero_point
            d_output = values[op.inputs["d_output"].name].to_float().reshape(-1) * op.attributes["scale"]
            computed[masters[tensor.name]] = np.outer(d_output, given)

    arguments = {training.inputs[0].name: x, "label": np.int32(label), "learning_rate": np.float32(0.0)}
    run_graph(training, arguments, dict(state), trace)
    return computed, values


def loss_operation(model: CompiledModel) -> Operation:
    """The loss of a classifier's training graph."""
    assert model.training is not None
    return next(op for op in model.training.operations if op.kind == "SOFTMAX_CROSS_ENTROPY")


def reference_gradients(model: CompiledModel, values: dict[str, Any], label: int) -> dict[str, np.ndarray]:
    """The gradients in float64 by tensor name, given what the forward pass gave."""
    assert model.training is not None
    operations = model.training.operations
    loss = next(i for i, op in enumerate(operations) if isinstance(op.op, LossOp))
    inside = "CLAMP_MASK", "INPUT_OFFSET_MASK", "LORA_DOWN", "HIDDEN_ACTIVATION", "UNPACK_INT4"
    forward = [op for op in operations[:loss] if op.kind not in inside]
    downs = {op.output.name: op.inputs["lora_A"] for op in operations[:loss] if op.kind == "LORA_DOWN"}
    activations = [op for op in operations[:loss] if op.kind == "HIDDEN_ACTIVATION"]
    downs |= {op.output.name: downs[op.inputs["hidden"].name] for op in activations}
    functions = {
        op.output.name: (FUNCTIONS["hard_swish" if "gate" in op.inputs else "relu"], op.inputs["hidden"])
        for op in activations
    }
    reference = Reference(values | {"lora_A of hidden": downs, "functions of hidden": functions})
    reference.loss(operations[loss].inputs["logits"], label)
    for op in reversed(forward):
        reference.backward(op)
    return reference.gradients

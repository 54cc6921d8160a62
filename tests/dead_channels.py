"""Graphs with channels that are constant or unread, and how a graph without them is compared to the bit."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from tinypeft.interpreter import run_graph
from tinypeft.ir import Graph, Operation, Tensor, verify
from tinypeft.ops.base import Value
from tinypeft.stages.constant_channels import channel_bounds

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def inputs_of(graph: Graph, count: int, seed: int) -> list[np.ndarray]:
    """Random samples, and the extremes everywhere."""
    rng, tensor = np.random.default_rng(seed), graph.inputs[0]
    if tensor.dtype == "float32":
        return [rng.normal(0, spread, tensor.shape).astype(np.float32) for spread in (1, 10, 1e6)]
    drawn = [rng.integers(-128, 128, tensor.shape).astype(np.int8) for _ in range(count)]
    extremes = [rng.choice(np.array([-128, 127], np.int8), tensor.shape) for _ in range(count)]
    return [*drawn, *extremes, *(np.full(tensor.shape, value, np.int8) for value in (-128, 127))]


def values_of(graph: Graph, sample: np.ndarray, state: dict[str, np.ndarray] | None = None) -> dict[str, Value]:
    """Every output of every operation by its tensor's name."""
    found: dict[str, Value] = {}

    def keep(op: Operation, name: str, tensor: Tensor, value: Value) -> None:
        found[tensor.name] = value

    run_graph(graph, {graph.inputs[0].name: sample}, dict(state or {}), keep)
    return found


def assert_same(given: Graph, narrowed: Graph, samples: list[np.ndarray]) -> None:
    """All values that are left are the same, those left out are what they were said to be, within their bounds."""
    verify(narrowed, "test")
    bounds = channel_bounds(given)
    tensors = {t.name: t for op in narrowed.operations for t in op.outputs.values()}
    for sample in samples:
        expected, actual = values_of(given, sample), values_of(narrowed, sample)
        for op in given.operations:
            for whole in op.outputs.values():
                value, tensor = actual[whole.name], tensors[whole.name]
                if tensor.narrowed is not None:
                    assert tensor.narrowed.whole is whole
                    value = tensor.narrowed.widened(value, expected[whole.name])
                np.testing.assert_array_equal(value, expected[whole.name], f"{op}")
                if id(whole) in bounds:
                    found = np.asarray(expected[whole.name]).reshape(-1, whole.shape[-1])
                    known = bounds[id(whole)]
                    assert (known.low <= found).all() and (found <= known.high).all(), op


def deadened(graph: Graph, rng: random.Random) -> Graph:
    """`graph` with weights and biases that make some channels of its layers constant, and some unread."""
    changed: dict[int, Tensor] = {}
    operations = []
    for op in graph.operations:
        inputs = dict(op.inputs)
        if op.kind in WEIGHTED:
            filters, axis = inputs["filter"], 3 if op.kind == "DEPTHWISE_CONV_2D" else 0
            assert filters.data is not None
            values = np.moveaxis(filters.data.copy(), axis, 0)
            bias = inputs["bias"].data.copy() if "bias" in inputs and inputs["bias"].data is not None else None
            for channel in range(len(values)):
                fate = rng.choice(("live", "live", "zero", "clamped"))
                if fate == "zero":
                    values[channel] = 0
                elif fate == "clamped" and bias is not None:
                    bias[channel] = rng.choice((-5_000_000, 5_000_000))
            if axis == 0:
                for column in range(values.shape[-1]):
                    if rng.random() < 0.25:
                        values[..., column] = 0
            inputs["filter"] = replace(filters, data=np.moveaxis(values, 0, axis).copy())
            if bias is not None:
                inputs["bias"] = replace(inputs["bias"], data=bias)
        operations.append(replace(op, inputs={n: changed.get(id(t), t) for n, t in inputs.items()}))
    return Graph(graph.name, graph.inputs, graph.outputs, operations)

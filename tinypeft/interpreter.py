"""The NumPy interpreter: executes any stage's graph; the definition that generated C must equal to the bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tinypeft.errors import DataError
from tinypeft.ir import DTYPES, Graph, Operation, Tensor
from tinypeft.ops.base import BlockFloat, Value

#: called with (operation, operand name, tensor, value) for every output of every operation, in order
Trace = Callable[[Operation, str, Tensor, Value], None]


def run_graph(
    graph: Graph, arguments: dict[str, Value], state: dict[str, np.ndarray], trace: Trace | None = None
) -> list[Value]:
    """The values of `graph.outputs` for `arguments` (graph inputs by name).

    `state` holds the persistent tensors by name and is updated in place. Raises DataError for an argument that is
    missing or of the wrong shape or dtype.
    """
    values: dict[str, Value] = dict(state)
    for tensor in graph.inputs:
        values[tensor.name] = _argument(tensor, arguments)
    for op in graph.operations:
        operands = {name: t.data if t.data is not None else values[t.name] for name, t in op.inputs.items()}
        results = op.op.evaluate(op, operands)
        for name, tensor in op.outputs.items():
            value = _checked(op, tensor, results[name])
            values[tensor.name] = value
            if tensor.persistent:
                state[tensor.name] = value
            if trace is not None:
                trace(op, name, tensor, value)
    return [values[t.name] for t in graph.outputs]


def _argument(tensor: Tensor, arguments: dict[str, Value]) -> Value:
    if tensor.name not in arguments:
        raise DataError(f"the argument {tensor.name} of shape {tensor.shape} is missing")
    value = np.asarray(arguments[tensor.name])
    if tensor.shape and value.dtype != DTYPES[tensor.dtype]:
        raise DataError(f"{tensor.name} is {value.dtype}, expected {tensor.dtype}")
    if value.size != tensor.size:
        raise DataError(f"{tensor.name} has shape {value.shape}, expected {tensor.shape}")
    return value.reshape(tensor.shape)


def _checked(op: Operation, tensor: Tensor, value: Value) -> Value:
    """`value` in the tensor's shape; an operator that gives another dtype is a defect of it."""
    array = value.mantissa if isinstance(value, BlockFloat) else value
    assert array.dtype == DTYPES[tensor.dtype], f"{op}: {tensor.name} came as {array.dtype}"
    if tensor.packed:
        return array
    shaped = array.reshape(tensor.shape)
    return BlockFloat(shaped, value.exponent) if isinstance(value, BlockFloat) else shaped


def value_bytes(value: Value) -> tuple[bytes, int]:
    """(little-endian bytes, exponent) of a value, as the generated C traces it."""
    if isinstance(value, BlockFloat):
        return value.mantissa.astype(value.mantissa.dtype.newbyteorder("<")).tobytes(), value.exponent
    return np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<")).tobytes(), 0

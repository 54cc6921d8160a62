"""Runs a planned graph in NumPy with every arena tensor in one array of bytes, at its planned offset.

A value is written where the plan puts it and read back from there, so that a wrong live range, a wrong in-place
decision or an overlap changes a value. Scratch areas hold noise before and after each operation, and a result's area
before it, but for the bytes of operands that the operator may overwrite or that are pieces of the result. That a kernel
may overwrite them is for the tests of kernels.
"""

from __future__ import annotations

import numpy as np

from tinypeft.interpreter import value_bytes
from tinypeft.ir import DTYPES, Graph, Operation, Tensor
from tinypeft.ops.base import BlockFloat, Value
from tinypeft.planner import Plan, runs


class Arena:
    """The bytes, and beside them the exponents, which generated code keeps in local variables."""

    def __init__(self, plan: Plan, size: int, seed: int = 0):
        self.plan = plan
        self.noise = np.random.default_rng(seed)
        self.bytes = self.noise.integers(0, 256, size, np.uint8)
        self.exponents: dict[int, int] = {}

    def area(self, name: str, size: int) -> np.ndarray:
        offset = self.plan.offset_of(name)
        assert 0 <= offset <= len(self.bytes) - size, f"{name} leaves the arena"
        return self.bytes[offset : offset + size]

    def spoil(self, name: str, size: int) -> None:
        self.area(name, size)[:] = self.noise.integers(0, 256, size, np.uint8)

    def write(self, tensor: Tensor, value: Value) -> None:
        data, self.exponents[id(tensor)] = value_bytes(value)
        self.area(tensor.name, tensor.nbytes)[:] = np.frombuffer(data, np.uint8)

    def read(self, tensor: Tensor) -> Value:
        raw = self.area(tensor.name, tensor.nbytes).tobytes()
        array = np.frombuffer(raw, DTYPES[tensor.dtype])
        if tensor.packed:
            return array
        array = array.reshape(tensor.shape)
        return BlockFloat(array, self.exponents[id(tensor)]) if tensor.block_float else array


def simulate(
    graph: Graph, plan: Plan, arena_bytes: int, arguments: dict[str, Value], state: dict[str, np.ndarray], seed: int = 0
) -> tuple[list[Value], dict[str, Value]]:
    """(the graph's outputs, read at the end; every output of every operation, read right behind it by its name)."""
    arena = Arena(plan, arena_bytes, seed)
    scalars = {}
    for tensor in graph.inputs:
        if tensor.in_arena:
            arena.write(tensor, np.asarray(arguments[tensor.name]).reshape(tensor.shape))
        else:
            scalars[tensor.name] = np.asarray(arguments[tensor.name])
    seen: dict[str, Value] = {}
    for op in graph.operations:
        scratch = op.op.scratch_bytes(op)
        if scratch:
            arena.spoil(f"{op.name} scratch", scratch)
        for name, tensor in op.outputs.items():
            if tensor.in_arena and runs(op):
                _spoil(op, name, arena)
        operands = {name: _operand(t, arena, scalars, state) for name, t in op.inputs.items()}
        _compute(op, operands, arena, state)
        if scratch:
            arena.spoil(f"{op.name} scratch", scratch)
        for name, tensor in op.outputs.items():
            seen[f"{op.name}.{name}"] = arena.read(tensor) if tensor.in_arena else state[tensor.name]
    return [arena.read(t) for t in graph.outputs], seen


def _operand(tensor: Tensor, arena: Arena, scalars: dict[str, Value], state: dict[str, np.ndarray]) -> Value:
    if tensor.data is not None:
        return tensor.data
    if tensor.in_arena:
        return arena.read(tensor)
    return scalars[tensor.name] if tensor.name in scalars else state[tensor.name]


def _spoil(op: Operation, output: str, arena: Arena) -> None:
    """Noise where the output will lie, except for bytes of operands that it may overwrite or is made of."""
    kept = []
    place = arena.plan.offset_of(op.outputs[output].name)
    for name, tensor in op.inputs.items():
        if not tensor.in_arena or tensor.data is not None:
            continue
        distance = arena.plan.offset_of(tensor.name) - place
        over = distance == 0 and name in op.in_place.get(output, ())
        behind = name in op.behind and distance >= op.behind[name]
        if over or behind or op.op.inside(op).get(name) == distance:
            area = arena.area(tensor.name, tensor.nbytes)
            kept.append((area, area.copy()))
    arena.spoil(op.outputs[output].name, op.outputs[output].nbytes)
    for area, content in kept:
        area[:] = content


def _compute(op: Operation, operands: dict[str, Value], arena: Arena, state: dict[str, np.ndarray]) -> None:
    if not runs(op):  # a view: the bytes are there already
        name, start = op.op.view(op) or (next(iter(op.inputs)), 0)
        source, result = op.inputs[name], op.output
        assert arena.plan.offset_of(source.name) + start == arena.plan.offset_of(result.name)
        if source.block_float:
            arena.exponents[id(result)] = arena.exponents[id(source)]
        return
    results = op.op.evaluate(op, operands)
    for name, tensor in op.outputs.items():
        if tensor.in_arena:
            arena.write(tensor, results[name])
        else:
            state[tensor.name] = results[name].reshape(tensor.shape)

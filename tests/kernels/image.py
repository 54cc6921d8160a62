"""Where tensors and scratch of a case lie in its memory, which goes to the target and back; guard bytes between.

A gradient is its exponent and peak, int32, in front of its mantissas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tinypeft.ir import DTYPES, Operation, Tensor
from tinypeft.ops.base import BlockFloat, Value

GUARD, GUARD_BYTE = 32, 0xA5
#: No tensor lies at a multiple of 8: the arena promises 4.
ALIGNMENT = 8


@dataclass
class Image:
    """Offsets of tensors by id, of the scratch, and the ranges that may be written."""

    operation: Operation
    scratch_bytes: int
    overlap: tuple[str, int] | None
    offsets: dict[int, int] = field(default_factory=dict)
    scratch: int = 0
    nbytes: int = 0
    _ranges: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        host = None if self.overlap is None else self.operation.inputs[self.overlap[0]]
        for tensor in [*self.operation.inputs.values(), *self.operation.outputs.values()]:
            if id(tensor) in self.offsets or tensor.data is not None or tensor is host:
                continue
            self.offsets[id(tensor)] = self._place(tensor.nbytes, 8 if tensor.block_float else 0)
            if host is not None and tensor is self.operation.output:
                assert self.overlap is not None
                self.offsets[id(host)] = self.offsets[id(tensor)] + self.overlap[1]
                start = self.offsets[id(tensor)]
                end = max(start + tensor.nbytes, self.offsets[id(host)] + host.nbytes)
                self._ranges[-1] = (start - 8 if tensor.block_float else start, end)
                self.nbytes = end
        self.scratch = self._place(self.scratch_bytes, 0)
        self.nbytes += GUARD

    def _place(self, nbytes: int, header: int) -> int:
        start = -(-(self.nbytes + GUARD) // ALIGNMENT) * ALIGNMENT + 4
        self._ranges.append((start, start + header + nbytes))
        self.nbytes = start + header + nbytes
        return start + header

    def fill(self, values: Mapping[str, Value]) -> np.ndarray:
        """The memory before the call, uint8: operands in their places, all else guard bytes."""
        memory = np.full(self.nbytes, GUARD_BYTE, np.uint8)
        for name, tensor in self.operation.inputs.items():
            if tensor.data is not None:
                continue
            value, at = values[name], self.offsets[id(tensor)]
            if isinstance(value, BlockFloat):
                memory[at - 8 : at] = np.array([value.exponent, value.peak], np.int32).view(np.uint8)
                value = value.mantissa
            raw = np.ascontiguousarray(value, DTYPES[tensor.dtype]).reshape(-1).view(np.uint8)
            memory[at : at + tensor.nbytes] = raw
        return memory

    def outputs(self, memory: np.ndarray) -> dict[str, Value]:
        """What the call computed, as `evaluate` gives it; asserts that it wrote nowhere else."""
        outside = np.ones(self.nbytes, bool)
        for start, end in self._ranges:
            outside[start:end] = False
        written = np.flatnonzero(outside & (memory != GUARD_BYTE))
        assert not len(written), f"{self.operation} wrote to {written[:8]}, outside of {self._ranges}"
        return {name: self._value(tensor, memory) for name, tensor in self.operation.outputs.items()}

    def _value(self, tensor: Tensor, memory: np.ndarray) -> Value:
        at = self.offsets[id(tensor)]
        array = memory[at : at + tensor.nbytes].copy().view(DTYPES[tensor.dtype])
        array = array if tensor.packed else array.reshape(tensor.shape)
        if not tensor.block_float:
            return array
        exponent, peak = memory[at - 8 : at].copy().view(np.int32)
        result = BlockFloat(array, int(exponent))
        assert peak == result.peak, f"{tensor.name}: peak {peak}, mantissas {result.peak}"
        return result

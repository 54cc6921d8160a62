"""Graph, Operation and Tensor: what every stage takes and returns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tinypeft.kernels.base import Kernel
    from tinypeft.ops.base import Op

#: dtype -> NumPy dtype of one element. `bits` packs eight elements a byte, `int4` two, the first in the low nibble; a
#: value of these is its bytes, without a shape. `bfp16` is block floating point: int16
#: mantissas that share one exponent, value = mantissa * 2**exponent; so are `bfp8` and `bfp32`, which no memory ever
#: holds.
DTYPES: dict[str, type] = {
    "int8": np.int8,
    "uint8": np.uint8,
    "int16": np.int16,
    "int32": np.int32,
    "float32": np.float32,
    "bits": np.uint8,
    "int4": np.uint8,
    "bfp8": np.int8,
    "bfp16": np.int16,
    "bfp32": np.int32,
}
#: dtype -> elements a byte, of those that are packed
PACKED = {"bits": 8, "int4": 2}


class Purpose(StrEnum):
    """Why a tensor exists, which decides where it lives."""

    FROZEN_WEIGHT = "frozen_weight"  # const, in flash
    ADAPTER_WEIGHT = "adapter_weight"  # integers that the forward pass reads; travels in the adapter package
    MASTER = "master"  # float32 originals of the adapter weights; in the training state
    OPTIMIZER_STATE = "optimizer_state"  # velocities, gradient sums, observers; in the training state
    MERGED_WEIGHT = "merged_weight"  # a layer's weights with an adapter in them; in RAM of their own
    ACTIVATION = "activation"  # arena
    GRADIENT = "gradient"  # arena
    ARGUMENT = "argument"  # scalar that the caller passes: label, learning rate


PERSISTENT = (Purpose.ADAPTER_WEIGHT, Purpose.MASTER, Purpose.OPTIMIZER_STATE, Purpose.MERGED_WEIGHT)


@dataclass(eq=False)
class Tensor:
    """A value of fixed shape.

    `scale` and `zero_point` are the affine quantisation, real = scale * (q - zero_point); `scale` is
    float32 of shape (1,) or, per channel, (channels,). `data` holds a frozen weight's values. `source` is the
    index of the tensor in the .tflite file that it was read from, -1 for one that no file holds. `rank_axis` is the
    axis of an adapter weight that counts an adapter's ranks, which may be fewer in a package; None where none does.
    `narrowed` says of what it holds some channels only; None for a tensor that has them all.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    purpose: Purpose
    scale: np.ndarray | None = None
    zero_point: int = 0
    data: np.ndarray | None = None
    source: int = -1
    rank_axis: int | None = None
    narrowed: Narrowed | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of storage."""
        if self.packed:
            return -(-self.size // PACKED[self.dtype])
        return self.size * np.dtype(DTYPES[self.dtype]).itemsize

    @property
    def packed(self) -> bool:
        """Whether several elements share a byte."""
        return self.dtype in PACKED

    @property
    def block_float(self) -> bool:
        """Whether its elements are mantissas that share one exponent."""
        return self.dtype.startswith("bfp")

    @property
    def in_arena(self) -> bool:
        """Whether the memory planner places it."""
        return self.purpose in (Purpose.ACTIVATION, Purpose.GRADIENT)

    @property
    def persistent(self) -> bool:
        """Whether it outlives a call: adapter weights, masters, optimiser state, merged weights."""
        return self.purpose in PERSISTENT

    def __repr__(self) -> str:
        return f"{self.name} {self.shape} {self.dtype}"


@dataclass(frozen=True, eq=False)
class Narrowed:
    """The channels, along the last axis, that a tensor holds of the tensor `whole`.

    kept: which those are, ascending; constant: the value, everywhere, of those that are left out. Nothing reads the
    rest.
    """

    whole: Tensor
    kept: np.ndarray
    constant: dict[int, int]

    def widened(self, value: np.ndarray, unread: np.ndarray) -> np.ndarray:
        """The value of the whole tensor, given that of the narrowed one; what nothing reads is as in `unread`."""
        result = unread.reshape(self.whole.shape).copy()
        result[..., self.kept] = value
        for channel, of_it in self.constant.items():
            result[..., channel] = of_it
        return result


@dataclass(eq=False)
class Operation:
    """One operator applied to named operands.

    `op` is the operator's definition from the registry; `layer` the Keras layer it came from.
    `inputs` and `outputs` map operand names to tensors; an output that is persistent is updated in place.
    `kernel` computes it on the target; where it is None, as on the host always, the portable kernel does.
    """

    op: Op
    name: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    attributes: dict[str, Any] = field(default_factory=dict)
    layer: str = ""
    kernel: Kernel | None = None

    def on(self, name: str, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> Operation:
        """The same on other tensors, computed as this one is."""
        kernel = self.kernel
        if kernel is not None:
            old, new = (*self.inputs.values(), *self.outputs.values()), (*inputs.values(), *outputs.values())
            kernel = kernel.on({id(a): b for a, b in zip(old, new, strict=True)})
        return Operation(self.op, name, inputs, outputs, self.attributes, self.layer, kernel)

    @property
    def scratch_bytes(self) -> int:
        """Bytes of scratch that whichever kernel computes it needs."""
        return max(self.op.scratch_bytes(self), self.kernel.scratch_bytes if self.kernel is not None else 0)

    @property
    def in_place(self) -> dict[str, tuple[str, ...]]:
        """Output name -> operands whose buffer it may take over by whichever kernel computes it, see Op.in_place."""
        portable = self.op.in_place(self)
        if self.kernel is None or self.kernel.in_order:
            return portable
        allowed = self.kernel.in_place
        return {output: tuple(name for name in operands if name in allowed) for output, operands in portable.items()}

    @property
    def behind(self) -> dict[str, int]:
        """Operand -> by how many bytes it must lie behind the output that overwrites it, see Op.behind."""
        return self.op.behind(self) if self.kernel is None or self.kernel.in_order else {}

    @property
    def kind(self) -> str:
        """The operator's name, such as CONV_2D."""
        return self.op.name

    @property
    def output(self) -> Tensor:
        """The first output."""
        return next(iter(self.outputs.values()))

    def __repr__(self) -> str:
        return f"{self.name}: {self.kind}({', '.join(t.name for t in self.inputs.values())}) -> {self.output}"


@dataclass(eq=False)
class Graph:
    """Operations in the order in which they run."""

    name: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    operations: list[Operation]

    def tensors(self) -> Iterator[Tensor]:
        """Every tensor once, in order of first appearance."""
        seen: set[int] = set()
        groups = [self.inputs, *(g for op in self.operations for g in (op.inputs.values(), op.outputs.values()))]
        for group in groups:
            for tensor in group:
                if id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield tensor

    def pruned(self) -> Graph:
        """A copy without the operations whose results nothing reads and that update nothing."""
        wanted = {id(t) for t in self.outputs}
        kept: list[Operation] = []
        for op in reversed(self.operations):
            if any(id(t) in wanted or t.persistent for t in op.outputs.values()):
                kept.append(op)
                wanted.update(id(t) for t in op.inputs.values())
        return Graph(self.name, self.inputs, self.outputs, kept[::-1])

    def producer(self, tensor: Tensor) -> Operation | None:
        """The operation whose output `tensor` is, or None for inputs and weights."""
        return next((op for op in self.operations if any(t is tensor for t in op.outputs.values())), None)

    def consumers(self, tensor: Tensor) -> list[Operation]:
        """The operations that read `tensor`."""
        return [op for op in self.operations if any(t is tensor for t in op.inputs.values())]

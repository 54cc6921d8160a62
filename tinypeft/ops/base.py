"""What an operator declares: operands, shapes, integer semantics, gradient, and the C kernel that computes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tinypeft.ir import Operation, Tensor

#: name -> the operator's only instance
OPS: dict[str, Op] = {}


def register(cls: type[Op]) -> type[Op]:
    """Class decorator: put the operator into the registry; a second of the same name is a KeyError."""
    if cls.name in OPS:
        raise KeyError(f"operator {cls.name} is registered twice")
    OPS[cls.name] = cls()
    return cls


@dataclass(frozen=True)
class BlockFloat:
    """A bfp16, bfp8 or bfp32 value: mantissas that share one exponent, value = mantissa * 2**exponent."""

    mantissa: np.ndarray
    exponent: int

    @property
    def peak(self) -> int:
        """The largest |mantissa|."""
        return int(np.abs(self.mantissa.astype(np.int64)).max(initial=0))

    def to_float(self) -> np.ndarray:
        """The real values, float64."""
        return self.mantissa * 2.0**self.exponent


@dataclass(frozen=True)
class Bounds:
    """The least and the largest value of each channel of a tensor, over all positions: int64 (C,)."""

    low: np.ndarray
    high: np.ndarray

    @property
    def constant(self) -> np.ndarray:
        """bool (C,): the channels that have one value."""
        return self.low == self.high


#: A tensor's value in the interpreter: an array of its NumPy dtype, or BlockFloat for bfp16 and its like.
Value = Any


@dataclass(frozen=True)
class CArray:
    """A constant table of a call, placed in flash; `name` completes the operation's name to that of the table."""

    ctype: str
    values: np.ndarray
    name: str = "table"


@dataclass(frozen=True)
class RowFunction:
    """A C function that takes a row of a parameter at a time, and the `static const` struct that it is given.

    states      what it updates beside the master, in the order in which it expects them
    whole_rows  whether an optimiser's function cannot be called for a part of a row
    """

    name: str
    params: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    states: tuple[Tensor, ...] = ()
    whole_rows: bool = False


@dataclass(frozen=True)
class CFunction:
    """The name of a C function, as a pointer to it."""

    name: str


@dataclass(frozen=True)
class CStruct:
    """A `static const` struct of its own, as a pointer to it; `name` completes the operation's name to its own."""

    ctype: str
    fields: dict[str, Any]
    name: str

    @staticmethod
    def of(function: RowFunction, name: str) -> CStruct | None:
        """What a function is given; None where that is nothing."""
        return CStruct(function.params, function.fields, name) if function.params else None


@dataclass(frozen=True)
class CPointers:
    """An array of pointers to tensors of any type, which the call may write."""

    tensors: tuple[Tensor, ...]


@dataclass(frozen=True)
class KernelCall:
    """The C call that computes an operation: `function(&params, arguments..., scratch)`.

    `fields` fill a `static const` struct of type `params`: numbers, CArray for pointers to tables, CStruct and
    CFunction for pointers to those, a dict for a nested struct; empty params, no struct. An argument is a Tensor
    (passed as a pointer; a gradient as a pointer to its tp_bfp; purpose ARGUMENT by value), a tuple of arrays of one
    dtype (passed as an array of pointers), a CArray (a pointer to the table), CPointers, None (a null pointer) or a
    literal number. The scratch pointer is passed last where the operator asks for scratch bytes.
    """

    function: str
    params: str
    fields: dict[str, Any]
    arguments: list[Any] = field(default_factory=list)


class Builder(Protocol):
    """What `vjp` builds backward operations with."""

    def emit(
        self,
        kind: str,
        forward: Operation,
        inputs: dict[str, Tensor],
        outputs: dict[str, Tensor],
        attributes: dict[str, Any] | None = None,
    ) -> Operation:
        """Append an operation named after `forward`; its outputs are the tensors given."""
        ...

    def gradient(self, of: Tensor) -> Tensor:
        """A fresh gradient tensor for `of`, bfp16 or bfp8."""
        ...

    def parameter_gradient(self, of: Tensor) -> Tensor:
        """A fresh bfp32 gradient tensor for the master behind the adapter weight `of`; see ParameterGradient."""
        ...

    def needs(self, tensor: Tensor | None) -> bool:
        """Whether any trained parameter lies at or below `tensor`, so that its gradient is wanted."""
        ...

    def through_output(self, op: Operation, d_output: Tensor, clamp: bool = True, **channel_scale: Any) -> Tensor:
        """The gradient in front of `op`'s requantisation and, unless told not to, its clamp (see REQUANTIZE_BACKWARD).

        `channel_scale`: constant float32 scales per channel; or `multiplier` and `exponent`: tensors that hold them.
        """
        ...


class Op:
    """An operator. Subclasses are stateless; one instance lives in OPS.

    name        TFLite's name where TFLite has the operator
    operands    required operand names, in order; `optional` those that may be absent
    variadic    for any number of further operands: the stem of their names, "input" for input0, input1, ...
    results     output names, in order; `dispensable` those that an operation lacks where nothing reads them
    in_place    output name -> operands whose buffer it may take over when that is their last use
    source      C file under firmware/kernels/ that holds its kernels
    limits      which forms of the TFLite operator are refused, as a sentence for the table of operators
    """

    name: str = ""
    operands: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    variadic: str = ""
    results: tuple[str, ...] = ("output",)
    dispensable: tuple[str, ...] = ()
    source: str = ""
    limits: str = ""

    def takes(self, operand: str) -> bool:
        """Whether `operand` is the name of one of its operands."""
        stem = bool(self.variadic) and operand.startswith(self.variadic) and operand[len(self.variadic) :].isdecimal()
        return stem or operand in self.operands or operand in self.optional

    def gives(self, result: str) -> bool:
        """Whether `result` is the name of one of its outputs."""
        return result in self.results

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(operands, attributes) of a TFLite operator: `options` is its schema options object (or None).

        Raises ModelError, as one sentence, for a form that is not supported. Operators that TFLite does not have
        leave this out.
        """
        raise NotImplementedError

    @property
    def importable(self) -> bool:
        """Whether a .tflite file may contain the operator."""
        return type(self).from_tflite is not Op.from_tflite

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        """Output name -> the shape that follows from the operands and attributes."""
        raise NotImplementedError

    def check(self, op: Operation) -> str | None:
        """None, or the constraint that `op` breaks, as one sentence for the user."""
        return None

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        """The outputs, bit for bit what the C kernel computes; `values` maps operand names to values."""
        raise NotImplementedError

    def channel_sources(self, op: Operation) -> dict[str, np.ndarray] | None:
        """Operand -> the channel of it that each channel of the output reads, -1 for none of it; int (C,).

        Channels lie along the last axis. Operands without any are left out. None where a channel of the output may
        read several of an operand, or where dropping the same channels everywhere would change others.
        """
        return None

    def channel_bounds(self, op: Operation, bounds: dict[str, Bounds]) -> Bounds | None:
        """How far the channels of the int8 output reach where the operands keep within `bounds`; None: not known.

        `bounds` has the operands that are int8 and have channels.
        """
        return None

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        """Emit the backward operations for the gradient `d_output` of the first output; operand name -> its gradient.

        Only operands that `builder.needs` are given one. An operator without a gradient leaves this out.
        """
        raise NotImplementedError

    @property
    def differentiable(self) -> bool:
        """Whether the operator has a backward."""
        return type(self).vjp is not Op.vjp

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        """Output name -> operands whose buffer it may take over."""
        return {}

    def view(self, op: Operation) -> tuple[str, int] | None:
        """(operand, byte offset) where the output is just these bytes of that operand, which stays: nothing runs."""
        return None

    def inside(self, op: Operation) -> dict[str, int]:
        """Operand -> byte offset in the first output where it may be computed; the kernel then copies nothing."""
        return {}

    def behind(self, op: Operation) -> dict[str, int]:
        """Operand -> the fewest bytes by which it must start behind the first output to be overwritten by it.

        At that distance the kernel, which writes its output from front to back, has read what it overwrites.
        """
        return {}

    def scratch_bytes(self, op: Operation) -> int:
        """Bytes of scratch the kernel needs."""
        return 0

    def sources(self, op: Operation) -> tuple[str, ...]:
        """The C files under firmware/kernels/ that `op` needs."""
        return (self.source,)

    def row_function(self, op: Operation) -> RowFunction:
        """The C function of a gradient or an optimiser, which UPDATE_ROWS calls: a tp_gradient_function or
        tp_optimizer_function. An optimiser's `evaluate` equals calls of it for rows after each other, to the bit.
        """
        raise NotImplementedError

    def skips_zero(self, op: Operation) -> bool:
        """Of an optimiser: whether a gradient of zero changes neither the master nor a state."""
        return False

    def call(self, op: Operation) -> KernelCall | None:
        """The C call; None where there is none, as the output is always a `view`."""
        raise NotImplementedError

    def macs(self, op: Operation) -> int:
        """Multiply-accumulates of one run."""
        return 0

"""What a fresh adapter starts from: random numbers, a constant, a table, or the weights of the base; MARK_ROWS."""

from __future__ import annotations

import numpy as np

from tinypeft import arithmetic
from tinypeft.ir import DTYPES, Operation
from tinypeft.ops.base import CArray, KernelCall, Op, Value, register


def stream_state(seed: int, stream: int) -> int:
    """The xorshift32 state of one parameter's stream, never 0: (seed + 1) * 2654435761 + (stream + 1) * 2246822519."""
    state = ((seed + 1) * 2654435761 + (stream + 1) * 2246822519) & 0xFFFFFFFF
    return state or 1


class _InitializeRandom(Op):
    """float32 values from xorshift32, one stream a parameter; `width` names the attribute that scales them."""

    operands = ("seed",)
    results = ("master",)
    source = "tp_initialize.c"
    width, kernel = "", ""

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"master": op.output.shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        state = stream_state(int(values["seed"]), op.attributes["stream"])
        drawn = self.draw(state, op.output.size, np.float32(op.attributes[self.width]))
        return {"master": drawn.reshape(op.output.shape)}

    def draw(self, state: int, size: int, width: np.float32) -> np.ndarray:
        """The values, (size,)."""
        raise NotImplementedError

    def call(self, op: Operation) -> KernelCall:
        width = np.float32(op.attributes[self.width])
        fields = {"size": op.output.size, "stream": op.attributes["stream"], self.width: width}
        return KernelCall(f"{self.kernel}_f32", f"{self.kernel}_params", fields, [op.inputs["seed"], op.output])


@register
class InitializeUniform(_InitializeRandom):
    """float32 values in [-bound, bound) from xorshift32, one stream a parameter."""

    name = "INITIALIZE_UNIFORM"
    width, kernel = "bound", "tp_initialize_uniform"

    def draw(self, state: int, size: int, width: np.float32) -> np.ndarray:
        return arithmetic.uniform_f32(state, size, width)[1]


@register
class InitializeNormal(_InitializeRandom):
    """float32 values, normal around 0 with the attribute `deviation`, one stream a parameter: sums of 12 uniforms."""

    name = "INITIALIZE_NORMAL"
    width, kernel = "deviation", "tp_initialize_normal"

    def draw(self, state: int, size: int, width: np.float32) -> np.ndarray:
        return arithmetic.normal_f32(state, size, width)[1]


@register
class InitializeFromTable(Op):
    """The values of the attribute `table`, float32."""

    name = "INITIALIZE_FROM_TABLE"
    results = ("master",)
    source = "tp_initialize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"master": op.attributes["table"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        return {"master": op.attributes["table"].copy()}

    def call(self, op: Operation) -> KernelCall:
        arguments = [CArray("float", op.attributes["table"]), op.output]
        fields = {"size": op.output.size}
        return KernelCall("tp_initialize_from_table_f32", "tp_initialize_from_table_params", fields, arguments)


@register
class InitializeConstant(Op):
    """Every element, float32 or int32, = the attribute `value`."""

    name = "INITIALIZE_CONSTANT"
    results = ("state",)
    source = "tp_initialize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"state": op.output.shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        return {"state": np.full(op.output.shape, op.attributes["value"], DTYPES[op.output.dtype])}

    def call(self, op: Operation) -> KernelCall:
        integer, value = op.output.dtype == "int32", op.attributes["value"]
        fields = {"size": op.output.size, "value": int(value) if integer else np.float32(value)}
        form = "s32" if integer else "f32"
        function, params = f"tp_initialize_constant_{form}", f"tp_initialize_constant_{form}_params"
        return KernelCall(function, params, fields, [op.output])


@register
class MarkRows(Op):
    """Every element of row_changed, int8 (rows,), = the attribute `value`; see UPDATE_ROWS."""

    name = "MARK_ROWS"
    results = ("row_changed",)
    source = "tp_initialize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"row_changed": op.output.shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        return {"row_changed": np.full(op.output.shape, op.attributes["value"], np.int8)}

    def call(self, op: Operation) -> KernelCall:
        return KernelCall("tp_mark_rows_s8", "", {}, [op.output.size, op.attributes["value"], op.output])


@register
class InitializeZero(Op):
    """Every element 0, of any dtype whose zero is all bits 0."""

    name = "INITIALIZE_ZERO"
    results = ("state",)
    source = "tp_initialize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"state": op.output.shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        return {"state": np.zeros(op.output.shape, DTYPES[op.output.dtype])}

    def call(self, op: Operation) -> KernelCall:
        return KernelCall("tp_initialize_zero", "tp_initialize_zero_params", {"size": op.output.nbytes}, [op.output])


@register
class InitializeFromBase(Op):
    """master[c,...] = q[c,...] * unit[c]: a frozen int8 filter or int32 bias in real units."""

    name = "INITIALIZE_FROM_BASE"
    operands = ("weights",)
    results = ("master",)
    source = "tp_initialize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"master": op.inputs["weights"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        weights, unit = values["weights"], op.attributes["unit"]
        return {"master": weights.astype(np.float32) * unit.reshape(-1, *[1] * (weights.ndim - 1))}

    def call(self, op: Operation) -> KernelCall:
        weights, unit = op.inputs["weights"], op.attributes["unit"]
        fields = {"channels": len(unit), "per_channel": weights.size // len(unit), "unit": CArray("float", unit)}
        suffix = "s8" if weights.dtype == "int8" else "s32"
        function = f"tp_initialize_from_base_{suffix}"
        return KernelCall(function, "tp_initialize_from_base_params", fields, [weights, op.output])

"""UPDATE_ROWS and UPDATE_FROM_SUMS: gradients of a parameter to its optimiser, a row at a time, never as a whole."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from tinypeft.arithmetic import F32, limit_float
from tinypeft.ir import Operation
from tinypeft.ops.base import CArray, CFunction, CPointers, CStruct, KernelCall, Op, RowFunction, Value, register
from tinypeft.ops.parameter_gradient import ParameterGradient, row_factors, uniform_scale

#: row_changed: nothing happened since the row was quantised; it was updated; it was written from outside
CLEAN, CHANGED, WRITTEN = 0, 1, 2


class _Update(Op):
    """An operation that holds another, the attribute `update`: that of an optimiser on a whole float32 gradient.

    `row_changed` int8 (rows,), where given, tells the quantiser what happened to each row, which it then makes CLEAN.
    A vector is updated as one row, but marks its elements.
    """

    source = "tp_update.c"

    def takes(self, operand: str) -> bool:
        return True

    def gives(self, result: str) -> bool:
        return True

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {name: op.inputs[name].shape for name in op.outputs}

    def sources(self, op: Operation) -> tuple[str, ...]:
        held = [op.attributes[name] for name in ("gradient", "update") if name in op.attributes]
        return tuple(dict.fromkeys([self.source, *(operation.op.source for operation in held)]))

    def scratch_bytes(self, op: Operation) -> int:
        return 4 * _row_size(op)

    @staticmethod
    def _updated(
        op: Operation, values: dict[str, Value], gradient: np.ndarray, changed: np.ndarray
    ) -> dict[str, Value]:
        """The optimiser's results for a gradient (rows, row size); rows that are not `changed` stay as they are."""
        update: Operation = op.attributes["update"]
        master = values["master"].reshape(gradient.shape)
        operands = {name: values[name] for name in update.inputs if name != "gradient"}
        results = update.op.evaluate(update, operands | {"gradient": gradient.reshape(values["master"].shape)})
        updated = results["master"].reshape(gradient.shape)
        results["master"] = np.where(changed[:, None], updated, master).reshape(values["master"].shape)
        return results | _marks(op, values, changed)

    @staticmethod
    def _fields(op: Operation) -> tuple[RowFunction, dict[str, Any]]:
        """The optimiser's C function, and the fields of tp_update_params that say how to call it."""
        update: Operation = op.attributes["update"]
        function = update.op.row_function(update)
        fields = {
            "rows": op.inputs["master"].size // _row_size(op),
            "row_size": _row_size(op),
            "is_vector": int(len(op.inputs["master"].shape) == 1),
            "update": CFunction(function.name),
            "update_params": CStruct.of(function, "update"),
        }
        return function, fields


@register
class UpdateRows(_Update):
    """The optimiser's operation `update` on the gradient that the operation `gradient` gives, both attributes.

    Operands: d_output and perhaps source of the gradient, its units, and what the optimiser takes. Where a gradient of
    zero changes nothing (`Op.skips_zero` of the optimiser), rows of such are left out.
    """

    name = "UPDATE_ROWS"
    operands = ("d_output", "master")

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        producer, update = op.attributes["gradient"], op.attributes["update"]
        sums = producer.op.evaluate(producer, {name: values[name] for name in producer.inputs})["gradient"]
        factors = row_factors(producer, values, sums.exponent)
        rows = sums.mantissa.reshape(len(factors), -1)
        changed = rows.any(1) if update.op.skips_zero(update) else np.ones(len(rows), bool)
        with np.errstate(over="ignore", invalid="ignore"):
            gradient = np.where(changed[:, None], rows.astype(np.float32) * factors[:, None], F32(0.0))
            if len(op.inputs["master"].shape) > 1:
                return self._updated(op, values, gradient, changed)
            results = self._updated(op, values, gradient, np.ones(len(rows), bool))
            return results | _marks(op, values, changed)

    def call(self, op: Operation) -> KernelCall:
        producer, update = op.attributes["gradient"], op.attributes["update"]
        row_scale = producer.attributes.get("row_scale")
        producing = cast(ParameterGradient, producer.op)
        gradient = producing.row_function(producer)
        function, fields = self._fields(op)
        fields |= {
            "reach": producing.reach(producer),
            "skips_zero": int(update.op.skips_zero(update)),
            "block": 1,
            "width": _row_size(op),
            "gradient": CFunction(gradient.name),
            "gradient_params": CStruct.of(gradient, "gradient"),
            "row_scale": None if row_scale is None else CArray("float", row_scale, "row_scale"),
            "scale": uniform_scale(producer),
            "unit_index": producer.attributes.get("unit_index", 0),
        }
        names = ("d_output", "source", "unit", "channel_unit", "learning_rate", "master", "row_changed")
        arguments = [0 if name == "learning_rate" and name not in op.inputs else op.inputs.get(name) for name in names]
        kernel = "tp_update_rows" if len(op.inputs["master"].shape) > 1 else "tp_update_vector"
        return KernelCall(kernel, "tp_update_params", fields, [*arguments, CPointers(function.states)])

    def macs(self, op: Operation) -> int:
        producer: Operation = op.attributes["gradient"]
        return producer.op.macs(producer)


@register
class UpdateFromSums(_Update):
    """The optimiser's operation `update` on sums / count * factor, then sums = 0; where count is 0 the gradient is 0.

    `factor` float32 (1,), where given, is what clipping leaves of the gradient; the product is limited as masters are.
    """

    name = "UPDATE_FROM_SUMS"
    operands = ("count", "sums", "learning_rate", "master")

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        sums = values["sums"].reshape(op.inputs["master"].shape[0], -1)
        with np.errstate(over="ignore", invalid="ignore"):
            gradient = mean_gradient(sums, int(values["count"]))
            if "factor" in op.inputs:
                gradient = limit_float(gradient * values["factor"][0])
            results = self._updated(op, values, gradient, np.ones(len(sums), bool))
        return results | {"sums": np.zeros_like(values["sums"])}

    def call(self, op: Operation) -> KernelCall:
        function, fields = self._fields(op)
        names = ("count", "factor", "learning_rate", "sums", "master", "row_changed")
        arguments = [*(op.inputs.get(name) for name in names), CPointers(function.states)]
        return KernelCall("tp_update_from_sums", "tp_update_params", fields, arguments)


def _row_size(op: Operation) -> int:
    """Elements of a row; a vector is one."""
    master = op.inputs["master"]
    return master.size // master.shape[0] if len(master.shape) > 1 else master.size


def _marks(op: Operation, values: dict[str, Value], changed: np.ndarray) -> dict[str, Value]:
    """row_changed of the rows, or of a vector's elements, where it is kept."""
    if "row_changed" not in op.inputs:
        return {}
    before = values["row_changed"]
    return {"row_changed": np.where(changed, np.maximum(before, np.int8(CHANGED)), before)}


def mean_gradient(sums: np.ndarray, count: int) -> np.ndarray:
    """float32 sums over a number of samples, divided by it; 0 where there are none."""
    return sums / F32(count) if count > 0 else np.zeros_like(sums)

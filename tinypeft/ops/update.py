"""What operators share that update a master by its gradient. No operator."""

from __future__ import annotations

from tinypeft.ir import Operation
from tinypeft.ops.base import CPointers, KernelCall, Op


class Update(Op):
    """Updates `master` and the optimiser's states in place; gradients are float32, the learning rate an argument.

    Rows of the gradient are its slices along the first axis. What one element or, where the operator says so, one row
    becomes depends on nothing else.
    """

    operands: tuple[str, ...] = ("gradient", "learning_rate", "master")

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"master": op.inputs["gradient"].shape}

    def call(self, op: Operation) -> KernelCall:
        rows, inputs = self.row_function(op), op.inputs
        arguments = [0, op.output.size, inputs["gradient"], inputs["learning_rate"], inputs["master"]]
        arguments.append(CPointers(rows.states))
        return KernelCall(rows.name, rows.params, rows.fields, arguments)

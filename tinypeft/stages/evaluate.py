"""Evaluate: forward graph with logits in; a graph that gives a sample's loss and right decisions out."""

from __future__ import annotations

from dataclasses import asdict

from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.losses import LOSSES
from tinypeft.ops import OPS
from tinypeft.training import TrainingConfig


def evaluation(forward: Graph, logits: Tensor, config: TrainingConfig) -> Graph:
    """The graph `evaluate`: (input, label or target vector if any) to the loss that training sees, int32 in Q16.16.

    Where the loss decides, a second output is how many decisions are right, int32. No state is written: the range of
    logits that training keeps is of samples it learned from.
    """
    entry = LOSSES[config.loss]
    operand = entry.target(forward, logits, config.target)
    d_logits = Tensor(f"d_{logits.name}", logits.shape, f"bfp{config.grad_bits}", Purpose.GRADIENT)
    operations = [entry.operation(f"{config.loss}_alone", logits, operand, d_logits, {}, asdict(config))]
    if entry.classifies:
        right = Tensor("right", (1,), "int32", Purpose.ACTIVATION)
        operands = {"logits": logits, "target": operand}
        operations.append(Operation(OPS["COUNT_RIGHT"], "count_right", operands, {"right": right}))
    arguments = [operand] if operand.purpose is Purpose.ARGUMENT else []
    outputs = [op.output for op in operations]
    return Graph("evaluate", [*forward.inputs, *arguments], outputs, [*forward.operations, *operations]).pruned()

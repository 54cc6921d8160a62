"""Attach float32 logits to a classifier: what the loss reads, at the precision of the accumulators."""

from __future__ import annotations

from tinypeft.errors import ModelError
from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.weighted import LORA_OPERANDS

_PASSED_OVER = ("SOFTMAX", "RESHAPE", "DEQUANTIZE")


def attach_logits(graph: Graph) -> tuple[Graph, Tensor]:
    """A copy of `graph` whose last output is the logits, float32 (1,classes), and that tensor.

    The logits are the accumulators of the final linear dense layer, in front of a SOFTMAX where there is one; for a
    model that ends otherwise, and where factors of its classes are trained, its dequantised int8 output. Raises
    ModelError where the output is no vector of classes.
    """
    final = _final_operation(graph)
    linear = final.kind == "FULLY_CONNECTED" and final.attributes["activation"] == "NONE"
    if linear and "factors" not in final.attributes:
        operation = _dense_logits(final)
    else:
        source = final.output
        logits = Tensor("logits", source.shape, "float32", Purpose.ACTIVATION)
        operation = Operation(OPS["DEQUANTIZE"], "logits", {"input": source}, {"output": logits}, {}, final.layer)
    problem = operation.op.check(operation)
    if problem is None and operation.output.shape[-1:] != (operation.output.size,):
        problem = f"its output has shape {operation.output.shape}, a classifier's is (1, classes)"
    if problem is not None:
        raise ModelError(f"{final.layer or final.name} cannot be trained against labels: {problem}")
    position = graph.operations.index(final) + 1
    operations = [*graph.operations[:position], operation, *graph.operations[position:]]
    return Graph(graph.name, graph.inputs, [*graph.outputs, operation.output], operations), operation.output


def _final_operation(graph: Graph) -> Operation:
    final = graph.producer(graph.outputs[0])
    while final is not None and final.kind in _PASSED_OVER:
        final = graph.producer(final.inputs["input"])
    if final is None:
        raise ModelError("the model has no operation that computes its output")
    return final


def _dense_logits(final: Operation) -> Operation:
    classes = final.inputs["filter"].shape[0]
    inputs = {name: final.inputs[name] for name in ("input", "filter", "bias", *LORA_OPERANDS) if name in final.inputs}
    if "logit_scale" in final.attributes:
        inputs["scale"] = final.attributes["logit_scale"]
    logits = Tensor("logits", (1, classes), "float32", Purpose.ACTIVATION)
    name = f"{final.name}_logits"
    return Operation(OPS["DENSE_LOGITS"], name, inputs, {"logits": logits}, dict(final.attributes), final.layer)

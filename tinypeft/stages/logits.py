"""Attach int32 logits to a model: what the loss reads, a classifier's at the precision of its accumulators."""

from __future__ import annotations

from collections.abc import Sequence

from tinypeft.errors import AdapterError, ModelError
from tinypeft.ir import Graph, Operation, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.output_logits import exponent_for, logits_tensor
from tinypeft.ops.weighted import LORA_OPERANDS

_PASSED_OVER = ("RESHAPE", "DEQUANTIZE")


def attach_logits(
    graph: Graph, passed_over: Sequence[str] = ("SOFTMAX",), *, classes: bool = True
) -> tuple[Graph, Tensor]:
    """A copy of `graph` whose last output is the logits, int32 with a power of two as scale, and that tensor.

    The logits are the accumulators of the final linear dense layer, in front of operators that are `passed_over` since
    the loss contains them; for a model that ends otherwise, and where factors of its classes are trained, its int8
    output. Raises ModelError where `classes` are wanted and the output is no vector (1,classes), AdapterError where a
    retrained layer lies in front of its end.
    """
    final = _final_operation(graph, (*_PASSED_OVER, *passed_over))
    for retrained in graph.operations:
        if "output_shift" in retrained.attributes and "filter" in retrained.inputs and retrained is not final:
            raise AdapterError(
                f"layer {retrained.layer} cannot be retrained: the loss reads what {final.name}, a {final.kind}, gives",
                "leave it as it is with --modules-to-save none",
            )
    operation = _dense_logits(final) if _linear(final) and "factors" not in final.attributes else _output_logits(final)
    problem = operation.op.check(operation)
    if problem is not None and not classes:
        operation, problem = _output_logits(final), None
    if problem is None and classes and operation.output.shape[-1:] != (operation.output.size,):
        problem = f"its output has shape {operation.output.shape}, a classifier's is (1, classes)"
    if problem is not None:
        raise ModelError(f"{final.layer or final.name} cannot be trained against labels: {problem}")
    position = graph.operations.index(final) + 1
    operations = [*graph.operations[:position], operation, *graph.operations[position:]]
    return Graph(graph.name, graph.inputs, [*graph.outputs, operation.output], operations), operation.output


def _final_operation(graph: Graph, passed_over: Sequence[str]) -> Operation:
    final = graph.producer(graph.outputs[0])
    while final is not None and final.kind in passed_over:
        final = graph.producer(final.inputs["input"])
    if final is None:
        raise ModelError("the model has no operation that computes its output")
    return final


def _linear(final: Operation) -> bool:
    return final.kind == "FULLY_CONNECTED" and final.attributes["activation"] == "NONE"


def _dense_logits(final: Operation) -> Operation:
    inputs = {name: final.inputs[name] for name in ("input", "filter", "bias", *LORA_OPERANDS) if name in final.inputs}
    if "logit_scale" in final.attributes:
        inputs["scale"] = final.attributes["logit_scale"]
    logits = logits_tensor((1, final.inputs["filter"].shape[0]), exponent_for(final.output))
    name = f"{final.name}_logits"
    return Operation(OPS["DENSE_LOGITS"], name, inputs, {"logits": logits}, dict(final.attributes), final.layer)


def _output_logits(final: Operation) -> Operation:
    logits = logits_tensor(final.output.shape, exponent_for(final.output))
    return Operation(OPS["OUTPUT_LOGITS"], "logits", {"input": final.output}, {"logits": logits}, {}, final.layer)

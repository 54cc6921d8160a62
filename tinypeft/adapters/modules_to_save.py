"""A dense layer retrained whole (PEFT's modules_to_save): int8 per channel from its masters, with scales of its own."""

from __future__ import annotations

import numpy as np

from tinypeft.adapters.base import AdapterConfig, AdapterKind, Insertion, Parameter, register
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops.dense_quantize import BIAS_LIMIT
from tinypeft.ops.output_logits import exponent_for
from tinypeft.ops.weighted import (
    ACCUMULATOR_LIMIT,
    RetrainedState,
    filter_scales,
    input_range,
    input_scale,
    multipliers,
)


@register
class ModulesToSave(AdapterKind):
    """It starts as an exact copy of the base layer."""

    name = "modules_to_save"

    def refuses(self, operation: Operation) -> str | None:
        if operation.kind != "FULLY_CONNECTED":
            return f"is a {operation.kind}; only dense layers can be retrained"
        if operation.attributes["activation"] != "NONE":
            return "has a fused activation; only a linear classifier can be retrained"
        if operation.output.size != operation.inputs["filter"].shape[0]:
            return "gives more than one row of outputs"
        fan_in = operation.inputs["filter"].shape[1]
        if 127 * fan_in * input_range(operation.inputs["input"]) + BIAS_LIMIT > ACCUMULATOR_LIMIT:
            return f"reads {fan_in} inputs, more than the int32 accumulators of a retrained layer hold"
        return None

    def insert(self, operation: Operation, config: AdapterConfig, insertion: Insertion) -> list[Operation]:
        name, filters, bias = operation.name, operation.inputs["filter"], operation.inputs.get("bias")
        channels = (filters.shape[0],)
        master_filter = insertion.state(f"{name}_kernel_master", filters.shape, "float32", Purpose.MASTER)
        master_bias = insertion.state(f"{name}_bias_master", channels, "float32", Purpose.MASTER)
        logit_range = insertion.state(f"{name}_logit_range", (2,), "int32", Purpose.OPTIMIZER_STATE)
        scales, base = filter_scales(operation), multipliers(operation)
        insertion.initialize("INITIALIZE_FROM_BASE", master_filter, {"weights": filters}, unit=scales)
        if bias is None:  # the converter leaves out a bias of zeros
            insertion.constant(master_bias)
        else:
            unit = input_scale(operation) * scales
            insertion.initialize("INITIALIZE_FROM_BASE", master_bias, {"weights": bias}, unit=unit)
        insertion.constant(logit_range)

        outputs = {
            "filter": insertion.weight(f"{name}_trained_kernel", filters.shape, "int8"),
            "bias": insertion.weight(f"{name}_trained_bias", channels, "int32"),
            "multiplier": insertion.weight(f"{name}_multiplier", channels, "int32"),
            "shift": insertion.weight(f"{name}_shift", channels, "int32"),
            "output_shift": insertion.weight(f"{name}_output_shift", (1,), "int8"),
            "logit_scale": insertion.weight(f"{name}_logit_scale", channels, "float32"),
            "fold_multiplier": insertion.state(f"{name}_fold_multiplier", channels, "int16", Purpose.OPTIMIZER_STATE),
            "fold_exponent": insertion.state(f"{name}_fold_exponent", (1,), "int32", Purpose.OPTIMIZER_STATE),
            "l1": insertion.state(f"{name}_l1", (1,), "int32", Purpose.OPTIMIZER_STATE),
        }
        assert operation.output.scale is not None
        attributes = {
            "input_scale": input_scale(operation),
            "output_scale": np.float32(operation.output.scale[0]),
            "output_zero_point": operation.output.zero_point,
            "logit_exponent": exponent_for(operation.output),
            "filter_scale": scales,
            "base_multiplier": base[0],
            "base_shift": base[1],
        }
        inputs = {"master_filter": master_filter, "master_bias": master_bias, "logit_range": logit_range}
        insertion.quantize(operation, ("DENSE_QUANTIZE", "DENSE_RESTORE"), inputs, outputs, attributes)
        insertion.adapted.observers["logit_range"] = logit_range
        self._replace_operands(operation, outputs, scales)
        same = (lambda a: a), (lambda a: a)
        layer = operation.layer
        insertion.adapted.parameters += [
            Parameter(f"{name}_kernel", layer, master_filter, outputs["filter"], f"{layer}.weight", *same),
            Parameter(f"{name}_bias", layer, master_bias, outputs["bias"], f"{layer}.bias", *same),
        ]
        return []

    @staticmethod
    def _replace_operands(operation: Operation, outputs: dict[str, Tensor], scales: np.ndarray) -> None:
        operation.inputs |= {name: outputs[name] for name in ("filter", "bias", "multiplier", "shift")}
        outputs["filter"].scale = scales
        operation.attributes["retrained"] = RetrainedState(
            outputs["fold_multiplier"], outputs["fold_exponent"], outputs["l1"]
        )
        operation.attributes["logit_scale"] = outputs["logit_scale"]
        operation.attributes["output_shift"] = outputs["output_shift"]

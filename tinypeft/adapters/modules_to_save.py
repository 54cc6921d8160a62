"""Layers retrained whole (PEFT's modules_to_save): int8 per channel from their masters, with scales of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinypeft.adapters.base import AdapterConfig, AdapterKind, Insertion, MergedLayer, Option, Parameter, register
from tinypeft.adapters.classes import parse_classes, resize_output, weights_of_classes
from tinypeft.errors import AdapterError
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops.dense_quantize import BIAS_LIMIT
from tinypeft.ops.output_logits import exponent_for
from tinypeft.ops.weighted import (
    ACCUMULATOR_LIMIT,
    FoldState,
    filter_scales,
    input_range,
    input_scale,
    multipliers,
)


@register
class ModulesToSave(AdapterKind):
    """A layer starts as an exact copy of the base layer; a classifier may get other classes."""

    name = "modules_to_save"
    summary = "convolutions and dense layers whole; a classifier for more, fewer or other classes too"
    peft_type = "LORA"
    method = 0x0080
    options = (
        Option("num_labels", 0, "Classes of the retrained classifier; those beyond the base's are new. 0: as many.",
               limits=(0, 4096)),
        Option("head_classes", "", "The same class by class: the base's class that each starts from, or new: 0,3,new."),
    )  # fmt: skip

    def refuses(self, operation: Operation) -> str | None:
        if operation.kind not in ("FULLY_CONNECTED", "CONV_2D"):
            return f"is a {operation.kind}; only dense layers and convolutions can be retrained"
        filters = operation.inputs["filter"]
        if operation.kind == "CONV_2D" and filters.shape[-1] != operation.inputs["input"].shape[-1]:
            return "is a convolution in groups"
        fan_in = filters.size // filters.shape[0]
        if 128 * fan_in * input_range(operation.inputs["input"]) + BIAS_LIMIT > ACCUMULATOR_LIMIT:
            return f"reads {fan_in} inputs, more than the int32 accumulators of a retrained layer hold"
        return None

    def insert(self, operation: Operation, config: AdapterConfig, insertion: Insertion) -> None:
        base = self._start(operation, config, insertion)
        name, filters, bias = operation.name, base["filter"], base.get("bias")
        channels, scales = (filters.shape[0],), np.asarray(base["filter"].scale)
        classifier = insertion.classifier is operation
        master_filter = insertion.state(f"{name}_kernel_master", filters.shape, "float32", Purpose.MASTER)
        master_bias = insertion.state(f"{name}_bias_master", channels, "float32", Purpose.MASTER)
        row_changed = insertion.state(f"{name}_row_changed", channels, "int8", Purpose.OPTIMIZER_STATE)
        insertion.initialize("INITIALIZE_FROM_BASE", master_filter, {"weights": filters}, unit=scales)
        if bias is None:  # the converter leaves out a bias of zeros
            insertion.constant(master_bias)
        else:
            unit = input_scale(operation) * scales
            insertion.initialize("INITIALIZE_FROM_BASE", master_bias, {"weights": bias}, unit=unit)
        insertion.mark_rows(row_changed)

        growth = insertion.weight(f"{name}_growth", channels, "int8")
        insertion.initialize("MARK_ROWS", growth, {}, value=0)
        inputs = {"master_filter": master_filter, "master_bias": master_bias}
        inputs |= {"row_changed": row_changed, "growth": growth}
        outputs = {
            "filter": insertion.weight(f"{name}_trained_kernel", filters.shape, "int8"),
            "bias": insertion.weight(f"{name}_trained_bias", channels, "int32"),
            "multiplier": insertion.weight(f"{name}_multiplier", channels, "int32"),
            "shift": insertion.weight(f"{name}_shift", channels, "int8"),
            "logit_scale": insertion.weight(f"{name}_logit_scale", channels, "float32"),
            "fold_multiplier": insertion.state(f"{name}_fold_multiplier", channels, "int16", Purpose.OPTIMIZER_STATE),
            "fold_exponent": insertion.state(f"{name}_fold_exponent", (1,), "int32", Purpose.OPTIMIZER_STATE),
            "row_changed": row_changed,
            "growth": growth,
        }
        if classifier:
            logit_range = insertion.state(f"{name}_logit_range", (2,), "int32", Purpose.OPTIMIZER_STATE)
            insertion.constant(logit_range)
            insertion.adapted.observers["logit_range"] = inputs["logit_range"] = logit_range
            outputs["output_shift"] = insertion.weight(f"{name}_output_shift", (1,), "int8")
        assert operation.output.scale is not None
        multiplier, shift = multipliers(operation)
        attributes = {
            "input_scale": input_scale(operation),
            "output_scale": np.float32(operation.output.scale[0]),
            "output_zero_point": operation.output.zero_point,
            "logit_exponent": exponent_for(operation.output),
            "filter_scale": scales,
            "base_multiplier": multiplier,
            "base_shift": shift,
        }
        insertion.quantize(operation, ("DENSE_QUANTIZE", "DENSE_RESTORE"), inputs, outputs, attributes)
        operation.inputs |= {operand: outputs[operand] for operand in ("filter", "bias", "multiplier", "shift")}
        outputs["filter"].scale = scales
        operation.attributes["fold"] = FoldState(outputs["fold_multiplier"], outputs["fold_exponent"])
        operation.attributes |= {"growth": growth, "logit_scale": outputs["logit_scale"]}
        if classifier:
            operation.attributes["output_shift"] = outputs["output_shift"]
        self._declare(operation, (master_filter, outputs["filter"]), (master_bias, outputs["bias"]), insertion)

    @staticmethod
    def _declare(
        operation: Operation, kernel: tuple[Tensor, Tensor], bias: tuple[Tensor, Tensor], insertion: Insertion
    ) -> None:
        layer, row_changed = operation.layer, insertion.adapted.quantizers[-1].inputs["row_changed"]
        layouts = (lambda a: a, lambda a: a)
        if operation.kind == "CONV_2D":  # PEFT: (out,in,kh,kw)
            layouts = (lambda a: a.transpose(0, 3, 1, 2)), (lambda a: a.transpose(0, 2, 3, 1))
        insertion.adapted.parameters += [
            Parameter(f"{operation.name}_kernel", layer, *kernel, f"{layer}.weight", *layouts, row_changed),
            Parameter(f"{operation.name}_bias", layer, *bias, f"{layer}.bias", row_changed=row_changed),
        ]

    def _start(self, operation: Operation, config: AdapterConfig, insertion: Insertion) -> dict[str, Tensor]:
        """filter and bias that the layer starts from, one scale a channel; a classifier's may be of other classes."""
        base = {name: tensor for name, tensor in operation.inputs.items() if name in ("filter", "bias")}
        base["filter"] = replace(base["filter"], scale=filter_scales(operation))
        labels, listed = (config.option(option) for option in self.options)
        if not labels and not listed:
            return base
        if insertion.classifier is None:
            raise AdapterError("num_labels and head_classes need a retrained classifier", "try --modules-to-save NAME")
        if insertion.classifier is not operation:
            return base
        classes = parse_classes(labels, listed, operation.inputs["filter"].shape[0])
        if classes is None:
            return base
        chosen = weights_of_classes(operation, classes)
        operation.inputs |= chosen
        resize_output(insertion.adapted.graph, operation, len(classes))
        return chosen

    def merge(
        self, operation: Operation, config: AdapterConfig, state: dict[str, np.ndarray], layer: MergedLayer
    ) -> None:
        layer.filter[:] = state[f"{operation.name}_kernel_master"]
        layer.bias[:] = state[f"{operation.name}_bias_master"]

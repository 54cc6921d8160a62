"""IA3: each output channel of a layer, its bias included, is multiplied by a trained factor, in its requantisation."""

from __future__ import annotations

import numpy as np

from tinypeft.adapters.base import AdapterConfig, AdapterKind, Insertion, MergedLayer, Parameter, register
from tinypeft.adapters.bitfit import LAYERS
from tinypeft.ir import Operation, Purpose
from tinypeft.ops.ia3 import limited_factors
from tinypeft.ops.weighted import FactorState, FoldState, filter_scales, multipliers


@register
class Ia3(AdapterKind):
    """PEFT's IA3 of modules that are no feedforward modules: ia3_l scales the output, in front of its activation.

    Factors start at 1 and stay positive, within [2**-6, 2**6]. Inference costs what it did.
    """

    name = "ia3"
    summary = "a factor for each output channel, depthwise layers included; inference costs what it did"
    order = 2
    peft_type = "IA3"
    method = 0x0010

    def refuses(self, operation: Operation) -> str | None:
        return None if operation.kind in LAYERS else f"is a {operation.kind}, which has no weights to scale"

    def insert(self, operation: Operation, config: AdapterConfig, insertion: Insertion) -> None:
        name, channels = operation.name, (operation.output.shape[-1],)
        master = insertion.state(f"{name}_ia3_l_master", channels, "float32", Purpose.MASTER)
        insertion.constant(master, 1.0)
        base_multiplier, base_shift = multipliers(operation)
        outputs = {
            "multiplier": insertion.weight(f"{name}_ia3_multiplier", channels, "int32"),
            "shift": insertion.weight(f"{name}_ia3_shift", channels, "int8"),
            "factor": insertion.state(f"{name}_ia3_factor", channels, "float32", Purpose.OPTIMIZER_STATE),
            "inverse": insertion.state(f"{name}_ia3_inverse", channels, "float32", Purpose.OPTIMIZER_STATE),
            "fold_multiplier": insertion.state(f"{name}_fold_multiplier", channels, "int16", Purpose.OPTIMIZER_STATE),
            "fold_exponent": insertion.state(f"{name}_fold_exponent", (1,), "int32", Purpose.OPTIMIZER_STATE),
        }
        attributes = {
            "base_multiplier": base_multiplier,
            "base_shift": base_shift,
            "filter_scale": filter_scales(operation),
        }
        insertion.quantize(operation, ("IA3_QUANTIZE", "IA3_RESTORE"), {"master": master}, outputs, attributes)
        operation.inputs |= {"multiplier": outputs["multiplier"], "shift": outputs["shift"]}
        operation.attributes["factors"] = FactorState(outputs["factor"], outputs["inverse"])
        operation.attributes["fold"] = FoldState(outputs["fold_multiplier"], outputs["fold_exponent"])
        shape = (*channels, 1) if operation.kind == "FULLY_CONNECTED" else (1, *channels, 1, 1)  # PEFT's
        parameter = Parameter(
            f"{name}_ia3_l",
            operation.layer,
            master,
            outputs["multiplier"],
            f"{operation.layer}.ia3_l",
            lambda factors: factors.reshape(shape),
            lambda factors: factors.reshape(channels),
        )
        insertion.adapted.parameters.append(parameter)

    def merge(
        self, operation: Operation, config: AdapterConfig, state: dict[str, np.ndarray], layer: MergedLayer
    ) -> None:
        factors = limited_factors(state[f"{operation.name}_ia3_l_master"], multipliers(operation)[1]).astype(np.float64)
        axis = layer.filter.ndim - 1 if operation.kind == "DEPTHWISE_CONV_2D" else 0
        layer.filter *= factors.reshape([-1 if i == axis else 1 for i in range(layer.filter.ndim)])
        layer.bias *= factors

"""LoRA on convolutions and dense layers: hidden = A x, and B hidden is added in the layer's accumulator."""

from __future__ import annotations

import numpy as np

from tinypeft.adapters.base import (
    AdapterConfig,
    AdapterKind,
    Insertion,
    MergedLayer,
    Parameter,
    add_in_accumulator,
    register,
)
from tinypeft.arithmetic import ACCUMULATOR_MAX
from tinypeft.errors import AdapterError
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.fully_connected import dense_window
from tinypeft.ops.weighted import LoraState, accumulator_bound, filter_scales, input_range
from tinypeft.ops.window import Window


@register
class Lora(AdapterKind):
    """A starts uniform with variance 1/fan_in, B at zero, so that a fresh adapter leaves the base as it is."""

    name = "lora"
    peft_type = "LORA"

    def refuses(self, operation: Operation) -> str | None:
        if operation.kind in ("CONV_2D", "FULLY_CONNECTED"):
            fan_in = int(np.prod(_a_shape(operation, 1)))
            if operation.inputs["filter"].shape[-1] == 1 < _window(operation).input_c:
                return "has as many groups as channels: a LoRA there costs more than the layer itself"
            if 127 * fan_in * input_range(operation.inputs["input"]) > ACCUMULATOR_MAX:
                return f"reads {fan_in} inputs an output, more than the int32 accumulators of a LoRA hold"
            return None
        if operation.kind == "DEPTHWISE_CONV_2D":
            return "is a depthwise layer: a LoRA there costs more than the layer itself"
        if operation.kind == "TRANSPOSE_CONV":
            return "is a transposed convolution, to whose accumulators no LoRA can add"
        return f"is a {operation.kind}, which has no matrix to adapt"

    def insert(self, operation: Operation, config: AdapterConfig, insertion: Insertion) -> None:
        name, x, window = operation.name, operation.inputs["input"], _window(operation)
        down = Window(**{**window.fields(), "output_c": config.r})
        a_shape = _a_shape(operation, config.r)
        fan_in = int(np.prod(a_shape[1:]))
        master_a = insertion.state(f"{name}_lora_A_master", a_shape, "float32", Purpose.MASTER)
        master_b = insertion.state(f"{name}_lora_B_master", (window.output_c, config.r), "float32", Purpose.MASTER)
        lora_a = insertion.weight(f"{name}_lora_A", a_shape, "int8")
        lora_b = insertion.weight(f"{name}_lora_B", master_b.shape, "int8")
        hidden_shift = insertion.weight(f"{name}_hidden_shift", (1,), "int8")
        lora_shift = insertion.weight(f"{name}_lora_shift", (window.output_c,), "int8")
        a_scale = insertion.weight(f"{name}_lora_A_scale", (1,), "float32")
        l1 = insertion.state(f"{name}_lora_l1", (2,), "int32", Purpose.OPTIMIZER_STATE)
        b_unit = (np.float32(config.lora_alpha / config.r) / filter_scales(operation)).astype(np.float32)

        insertion.uniform(master_a, float(np.float32(np.sqrt(3.0 / fan_in))))
        insertion.constant(master_b)
        gradient_unit = insertion.state(f"{name}_gradient_unit", (2,), "float32", Purpose.OPTIMIZER_STATE)
        results = lora_a, hidden_shift, lora_b, lora_shift, a_scale, l1, gradient_unit
        outputs = dict(zip(OPS["LORA_QUANTIZE"].results, results, strict=True))
        attributes = {
            "input_range": input_range(x),
            "acc_bound": accumulator_bound(operation),
            "b_unit": b_unit,
        }
        masters = {"master_A": master_a, "master_B": master_b}
        insertion.quantize(operation, ("LORA_QUANTIZE", "LORA_RESTORE"), masters, outputs, attributes)

        hidden = Tensor(f"{name}_hidden", down.output_shape, "int16", Purpose.ACTIVATION)
        add_in_accumulator(operation, self.name, {"hidden": hidden, "lora_B": lora_b, "lora_shift": lora_shift})
        operation.attributes["lora"] = LoraState(hidden_shift, l1, gradient_unit, b_unit)
        insertion.adapted.parameters += self._parameters(operation, master_a, lora_a, master_b, lora_b)
        operands = {"input": x, "lora_A": lora_a, "hidden_shift": hidden_shift}
        attributes = {"window": down, "gradient_unit": gradient_unit, "l1": l1}
        insertion.before.append(
            Operation(OPS["LORA_DOWN"], f"{name}_lora_down", operands, {"hidden": hidden}, attributes, operation.layer)
        )

    def merge(
        self, operation: Operation, config: AdapterConfig, state: dict[str, np.ndarray], layer: MergedLayer
    ) -> None:
        a = state[f"{operation.name}_lora_A_master"].astype(np.float64)
        b = state[f"{operation.name}_lora_B_master"].astype(np.float64)
        delta = (b @ a.reshape(len(a), -1)).reshape(len(b), *a.shape[1:]) * (config.lora_alpha / config.r)
        if delta.shape != layer.filter.shape:
            raise AdapterError(f"{operation.layer} has groups: its LoRA reads all channels, the layer those of one")
        layer.filter += delta

    @staticmethod
    def _parameters(
        operation: Operation, master_a: Tensor, lora_a: Tensor, master_b: Tensor, lora_b: Tensor
    ) -> list[Parameter]:
        if operation.kind == "CONV_2D":  # PEFT: (r,in,kh,kw) and (out,r,1,1)
            a_layout = (lambda a: a.transpose(0, 3, 1, 2)), (lambda a: a.transpose(0, 2, 3, 1))
            b_layout = (lambda b: b[:, :, None, None]), (lambda b: b[:, :, 0, 0])
        else:
            a_layout = b_layout = (lambda a: a), (lambda a: a)
        layer = operation.layer
        return [
            Parameter(f"{operation.name}_lora_A", layer, master_a, lora_a, f"{layer}.lora_A.weight", *a_layout),
            Parameter(f"{operation.name}_lora_B", layer, master_b, lora_b, f"{layer}.lora_B.weight", *b_layout),
        ]


def _window(operation: Operation) -> Window:
    return operation.attributes.get("window") or dense_window(operation)


def _a_shape(operation: Operation, rank: int) -> tuple[int, ...]:
    """(r,KH,KW,Cin) or (r,Cin): A reads every input channel, those of all groups too."""
    return rank, *operation.inputs["filter"].shape[1:-1], _window(operation).input_c

"""LoRA on convolutions and dense layers: hidden = A x, and B hidden is added in the layer's accumulator."""

from __future__ import annotations

from collections.abc import Sequence

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
from tinypeft.adapters.loftq import starting_masters
from tinypeft.adapters.lora_options import (
    INIT_LORA_WEIGHTS,
    LORA_BITS,
    OPTIONS,
    check_options,
    layer_rank,
    layer_scaling,
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
    """B starts at zero, so that a fresh adapter leaves the base as it is; but for loftq, whose module says why."""

    name = "lora"
    summary = "low-rank factors A and B beside the weights of convolutions and dense layers"
    peft_type = "LORA"
    method = 0x0001
    options = OPTIONS

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

    def check(self, targets: Sequence[Operation], config: AdapterConfig) -> None:
        check_options(config, [operation.layer for operation in targets])

    def insert(self, operation: Operation, config: AdapterConfig, insertion: Insertion) -> None:
        name, x, window = operation.name, operation.inputs["input"], _window(operation)
        rank, bits = layer_rank(config, operation.layer), config.option(LORA_BITS)
        down = Window(**{**window.fields(), "output_c": rank})
        a_shape, b_shape = _a_shape(operation, rank), (window.output_c, rank)
        packed = "int8" if bits == 8 else "int4"
        master_a = insertion.state(f"{name}_lora_A_master", a_shape, "float32", Purpose.MASTER)
        master_b = insertion.state(f"{name}_lora_B_master", b_shape, "float32", Purpose.MASTER)
        lora_a = insertion.weight(f"{name}_lora_A", a_shape, packed, rank_axis=0)
        lora_b = insertion.weight(f"{name}_lora_B", b_shape, packed, rank_axis=1)
        hidden_shift = insertion.weight(f"{name}_hidden_shift", (1,), "int8")
        lora_shift = insertion.weight(f"{name}_lora_shift", b_shape[:1], "int8")
        a_scale = insertion.weight(f"{name}_lora_A_scale", (1,), "float32")
        l1 = insertion.state(f"{name}_lora_l1", (2,), "int32", Purpose.OPTIMIZER_STATE)
        scaling = layer_scaling(config, operation.layer)
        b_unit = (np.float32(scaling) / filter_scales(operation)).astype(np.float32)

        self._initialize(operation, config, insertion, master_a, master_b)
        gradient_unit = insertion.state(f"{name}_gradient_unit", (2,), "float32", Purpose.OPTIMIZER_STATE)
        results = [lora_a, hidden_shift, lora_b, lora_shift, a_scale, l1, gradient_unit]
        kinds = "LORA_QUANTIZE", "LORA_RESTORE"
        if bits == 4:
            multipliers = [
                insertion.weight(f"{lora_a.name}_multiplier", a_shape[:1], "int8", rank_axis=0),
                insertion.weight(f"{lora_b.name}_multiplier", b_shape[:1], "int8"),
            ]
            results += multipliers
            kinds = "LORA_QUANTIZE_INT4", "LORA_RESTORE_INT4"
        outputs = dict(zip(OPS[kinds[0]].results, results, strict=True))
        attributes = {
            "input_range": input_range(x),
            "acc_bound": accumulator_bound(operation),
            "b_unit": b_unit,
        }
        masters = {"master_A": master_a, "master_B": master_b}
        insertion.quantize(operation, kinds, masters, outputs, attributes)
        if bits == 4:
            lora_a, lora_b = (
                self._unpacked(operation, insertion, t, m) for t, m in zip((lora_a, lora_b), multipliers, strict=True)
            )

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
        product = (b @ a.reshape(len(a), -1)).reshape(len(b), *a.shape[1:])
        if product.shape != layer.filter.shape:
            raise AdapterError(f"{operation.layer} has groups: its LoRA reads all channels, the layer those of one")
        layer.filter += product * layer_scaling(config, operation.layer)

    @staticmethod
    def _initialize(
        operation: Operation, config: AdapterConfig, insertion: Insertion, master_a: Tensor, master_b: Tensor
    ) -> None:
        fan_in, start = int(np.prod(master_a.shape[1:])), config.option(INIT_LORA_WEIGHTS)
        if start == "loftq":
            a, b = starting_masters(operation, master_a.shape[0])
            insertion.table(master_a, a.reshape(master_a.shape))
            insertion.table(master_b, b / np.float32(layer_scaling(config, operation.layer)))
            return
        if start == "gaussian":
            insertion.normal(master_a, 1.0 / master_a.shape[0])
        else:
            insertion.uniform(master_a, float(np.float32(np.sqrt((3.0 if start == "uniform" else 1.0) / fan_in))))
        insertion.constant(master_b)

    @staticmethod
    def _unpacked(operation: Operation, insertion: Insertion, packed: Tensor, multiplier: Tensor) -> Tensor:
        """What the layer reads of a matrix in 4 bits: made right in front of it."""
        unpacked = Tensor(f"{packed.name}_unpacked", packed.shape, "int8", Purpose.ACTIVATION)
        operands = {"packed": packed, "multiplier": multiplier}
        insertion.before.append(
            Operation(
                OPS["UNPACK_INT4"], f"{packed.name}_unpack", operands, {"output": unpacked}, layer=operation.layer
            )
        )
        return unpacked

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

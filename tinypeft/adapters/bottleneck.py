"""Bottleneck adapters: down, a non-linearity, up; behind a layer (bottleneck) or in its accumulator (parallel)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinypeft.adapters.base import (
    AdapterConfig,
    AdapterKind,
    Insertion,
    Option,
    Parameter,
    add_in_accumulator,
    register,
)
from tinypeft.adapters.lora import Lora
from tinypeft.arithmetic import ACCUMULATOR_MAX
from tinypeft.errors import AdapterError
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.constraints import per_tensor
from tinypeft.ops.fully_connected import dense_window
from tinypeft.ops.weighted import LoraState, accumulator_bound, filter_scales, input_range, pointwise
from tinypeft.ops.window import Window

REDUCTION_FACTOR = Option("reduction_factor", 8, "channels of a layer over those of its bottleneck.", limits=(1, 65536))
NON_LINEARITY = Option("non_linearity", "relu", "the function between down and up.", choices=("relu", "hard_swish"))
SCALING = Option("bottleneck_scaling", 1.0, "factor of what is added.", limits=(1e-6, 1e6))
_OPTIONS = (REDUCTION_FACTOR, NON_LINEARITY, SCALING)
#: Channels of a bottleneck whose products with B the int32 accumulators hold whatever their values.
MAX_WIDTH = 256
#: Largest |int8 output|, with room for its zero point, in steps of the output.
_OUTPUT_BOUND = 256
_UNCOMBINED = "has an activation between down and up, which no sum of two passes through"


@dataclass(frozen=True)
class _Site:
    """Where a bottleneck sits: it reads `x` through `window`, whose output_c channels it adds to.

    filter_shape (KH,KW,Cin) or (Cin,) of the down-projection; b_unit (C,): scaling over the unit of what is added to;
    bound: the largest magnitude of that.
    """

    name: str
    layer: str
    x: Tensor
    window: Window
    filter_shape: tuple[int, ...]
    b_unit: np.ndarray
    bound: int


def _project(
    site: _Site, config: AdapterConfig, insertion: Insertion
) -> tuple[list[Operation], dict[str, Tensor], LoraState, dict[str, tuple[Tensor, Tensor]]]:
    """Masters, quantisers and the operations down to the bottleneck and through its non-linearity.

    Returns those operations, the operands of the up-projection, its LoraState, and (master, adapter weight) of both
    projections as "down" and "up".
    """
    name, channels = site.name, site.window.output_c
    width = max(1, channels // config.option(REDUCTION_FACTOR))
    if width > MAX_WIDTH:
        raise AdapterError(
            f"{site.layer} has {channels} channels, its bottleneck would have {width}; the limit is {MAX_WIDTH}",
            f"try {REDUCTION_FACTOR.flag} {-(-channels // MAX_WIDTH)}",
        )
    a_shape, b_shape = (width, *site.filter_shape), (channels, width)
    masters = {
        "master_A": insertion.state(f"{name}_down_master", a_shape, "float32", Purpose.MASTER),
        "master_B": insertion.state(f"{name}_up_master", b_shape, "float32", Purpose.MASTER),
    }
    insertion.uniform(masters["master_A"], float(np.float32(np.sqrt(3.0 / np.prod(site.filter_shape)))))
    insertion.constant(masters["master_B"])
    weights = {
        "lora_A": insertion.weight(f"{name}_down", a_shape, "int8"),
        "hidden_shift": insertion.weight(f"{name}_hidden_shift", (1,), "int8"),
        "lora_B": insertion.weight(f"{name}_up", b_shape, "int8"),
        "lora_shift": insertion.weight(f"{name}_up_shift", (channels,), "int8"),
        "a_scale": insertion.weight(f"{name}_down_scale", (1,), "float32"),
        "l1": insertion.state(f"{name}_l1", (2,), "int32", Purpose.OPTIMIZER_STATE),
        "gradient_unit": insertion.state(f"{name}_gradient_unit", (2,), "float32", Purpose.OPTIMIZER_STATE),
    }
    window = Window(**{**site.window.fields(), "output_c": width})
    hidden = Tensor(f"{name}_hidden", window.output_shape, "int16", Purpose.ACTIVATION)
    operands = {"input": site.x, "lora_A": weights["lora_A"], "hidden_shift": weights["hidden_shift"]}
    attributes = {"window": window, "gradient_unit": weights["gradient_unit"], "l1": weights["l1"]}
    down = Operation(OPS["LORA_DOWN"], f"{name}_down", operands, {"hidden": hidden}, attributes, site.layer)
    attributes = {"input_range": input_range(site.x), "acc_bound": site.bound, "b_unit": site.b_unit}
    insertion.quantize(down, ("LORA_QUANTIZE", "LORA_RESTORE"), masters, weights, attributes)

    operands = {"hidden": hidden}
    if config.option(NON_LINEARITY) == "hard_swish":
        operands["gate"] = insertion.weight(f"{name}_gate", (2,), "int16")
        inputs = {"a_scale": weights["a_scale"], "hidden_shift": weights["hidden_shift"]}
        attributes = {"input_scale": np.float32(per_tensor(site.x)[0])}
        gate = Operation(OPS["HIDDEN_GATE"], f"{name}_gate", inputs, {"gate": operands["gate"]}, attributes, site.layer)
        insertion.adapted.quantizers.append(gate)
    activated = Tensor(f"{name}_activated", hidden.shape, "int16", Purpose.ACTIVATION)
    activation = Operation(
        OPS["HIDDEN_ACTIVATION"], f"{name}_activation", operands, {"output": activated}, {}, site.layer
    )
    up = {"hidden": activated, "lora_B": weights["lora_B"], "lora_shift": weights["lora_shift"]}
    state = LoraState(weights["hidden_shift"], weights["l1"], weights["gradient_unit"], site.b_unit)
    trained = {"down": (masters["master_A"], weights["lora_A"]), "up": (masters["master_B"], weights["lora_B"])}
    return [down, activation], up, state, trained


@register
class Bottleneck(AdapterKind):
    """output + up(f(down(output))) at each position, behind the layer's activation; up starts at zero."""

    name = "bottleneck"
    summary = "down, an activation, up and the residual behind convolutions, depthwise ones too, and dense layers"
    options = _OPTIONS
    peft_type = "BOTTLENECK"
    method = 0x0002
    unmerged = "adds an activation of its own"
    uncombined = _UNCOMBINED

    def refuses(self, operation: Operation) -> str | None:
        if "filter" not in operation.inputs:
            return f"is a {operation.kind}; a bottleneck stands behind a convolution or a dense layer"
        channels = operation.output.shape[-1]
        if 127 * channels * input_range(operation.output) > ACCUMULATOR_MAX:
            return f"has {channels} channels, more than the int32 accumulators of a bottleneck hold"
        return None

    def insert(self, operation: Operation, config: AdapterConfig, insertion: Insertion) -> None:
        y, output = insertion.follow(operation)
        channels = y.shape[-1]
        window = pointwise(y.size // channels, channels, channels)
        b_unit = np.full(channels, config.option(SCALING), np.float32)
        name = f"{operation.name}_{self.name}"
        site = _Site(name, operation.layer, y, window, (channels,), b_unit, _OUTPUT_BOUND)
        operations, up, state, trained = _project(site, config, insertion)
        attributes = {"lora": state, "addend": self.name}
        operands = {"input": y, **up}
        operations.append(
            Operation(OPS["RESIDUAL_UP"], f"{name}_up", operands, {"output": output}, attributes, operation.layer)
        )
        insertion.after += operations
        insertion.adapted.parameters += [
            Parameter(f"{name}_{part}", operation.layer, master, weight, f"{operation.layer}.adapter_{part}.weight")
            for part, (master, weight) in trained.items()
        ]


@register
class ParallelBottleneck(AdapterKind):
    """activation(layer(x) + up(f(down(x)))): down through the layer's own window, added before its requantisation."""

    name = "parallel_bottleneck"
    summary = "down, an activation and up beside convolutions and dense layers, added in front of their activation"
    options = _OPTIONS
    peft_type = "PARALLEL_BOTTLENECK"
    method = 0x0004
    unmerged = "adds an activation of its own"
    uncombined = _UNCOMBINED

    def refuses(self, operation: Operation) -> str | None:
        reason = Lora().refuses(operation)
        return reason.replace("LoRA", "parallel bottleneck") if reason is not None else None

    def insert(self, operation: Operation, config: AdapterConfig, insertion: Insertion) -> None:
        window = operation.attributes.get("window") or dense_window(operation)
        filter_shape = (*operation.inputs["filter"].shape[1:-1], window.input_c)
        b_unit = (np.float32(config.option(SCALING)) / filter_scales(operation)).astype(np.float32)
        name, x = f"{operation.name}_{self.name}", operation.inputs["input"]
        site = _Site(name, operation.layer, x, window, filter_shape, b_unit, accumulator_bound(operation))
        operations, up, state, trained = _project(site, config, insertion)
        add_in_accumulator(operation, self.name, up)
        operation.attributes["lora"] = state
        insertion.before += operations
        layouts = _CONVOLUTION if operation.kind == "CONV_2D" else dict.fromkeys(trained, ((lambda a: a),) * 2)
        insertion.adapted.parameters += [
            Parameter(
                f"{name}_{part}",
                operation.layer,
                master,
                weight,
                f"{operation.layer}.parallel_adapter_{part}.weight",
                *layouts[part],
            )
            for part, (master, weight) in trained.items()
        ]


#: PyTorch's layouts of convolutions: (width,in,kh,kw) and (out,width,1,1)
_CONVOLUTION = {
    "down": ((lambda a: a.transpose(0, 3, 1, 2)), (lambda a: a.transpose(0, 2, 3, 1))),
    "up": ((lambda b: b[:, :, None, None]), (lambda b: b[:, :, 0, 0])),
}

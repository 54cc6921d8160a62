"""QUANTIZE (float32 to int8, or int8 to int8 of another scale) and DEQUANTIZE (int8 to float32)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.arithmetic import exp2i, quantize_multiplier, requantize_double
from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.activation import saturate
from tinypeft.ops.base import Bounds, Builder, KernelCall, Op, Value, register
from tinypeft.ops.channels import monotone_bounds, own_channels
from tinypeft.ops.constraints import per_tensor, require_int8

#: Beyond this every zero point saturates, so that the conversion to an integer is always defined.
FAR_OUTSIDE = np.float32(512.0)


@register
class Quantize(Op):
    """output = round(input / scale) + zero_point, half away from zero; from int8 by a fixed-point multiplier."""

    name = "QUANTIZE"
    operands = ("input",)
    source = "tp_quantize.c"

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        x = inputs[0]
        if x is None or x.dtype not in ("float32", "int8") or outputs[0].dtype != "int8":
            raise ModelError(
                f"a quantisation of {'nothing' if x is None else x.dtype} to {outputs[0].dtype} is not supported",
                "convert the model to full int8 with float32 or int8 inputs",
            )
        require_int8(*([x] if x.dtype == "int8" else []), *outputs)
        return {"input": x}, {}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": op.inputs["input"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        if op.inputs["input"].dtype == "int8":
            p = _requantize_parameters(op)
            centred = values["input"].astype(np.int64) + p["input_offset"]
            return {"output": saturate(requantize_double(centred, p["multiplier"], p["shift"]) + p["output_offset"])}
        scale, zero_point = per_tensor(op.output)
        with np.errstate(over="ignore", invalid="ignore"):
            x = values["input"].astype(np.float32) / np.float32(scale)
        x = np.where(x > -FAR_OUTSIDE, x, -FAR_OUTSIDE)
        x = np.where(x < FAR_OUTSIDE, x, FAR_OUTSIDE)
        truncated = x.astype(np.int32)
        rest = x - truncated.astype(np.float32)
        return {"output": saturate(truncated + (rest >= 0.5) - (rest <= -0.5) + zero_point)}

    def channel_sources(self, op: Operation) -> dict[str, np.ndarray] | None:
        return own_channels(op) if op.inputs["input"].dtype == "int8" else None

    def channel_bounds(self, op: Operation, bounds: dict[str, Bounds]) -> Bounds | None:
        return monotone_bounds(op, bounds)

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        if not builder.needs(op.inputs["input"]):
            return {}
        return {"input": builder.through_output(op, d_output)}

    def in_place(self, op: Operation) -> dict[str, tuple[str, ...]]:
        return {"output": ("input",)} if op.inputs["input"].dtype == "int8" else {}

    def call(self, op: Operation) -> KernelCall:
        arguments: list[Any] = [op.inputs["input"], op.outputs["output"]]
        if op.inputs["input"].dtype == "int8":
            fields = {"size": op.output.size, **_requantize_parameters(op)}
            return KernelCall("tp_requantize_s8", "tp_requantize_params", {**fields}, arguments)
        return KernelCall("tp_quantize_f32_s8", "tp_quantize_params", _affine_fields(op.output), arguments)


@register
class Dequantize(Op):
    """output = scale * (input - zero_point); `input_shift` (1,) makes the scale larger by 2**input_shift."""

    name = "DEQUANTIZE"
    operands = ("input",)
    optional = ("input_shift",)
    source = "tp_quantize.c"

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        require_int8(inputs[0])
        assert inputs[0] is not None
        if outputs[0].dtype != "float32":
            raise ModelError(f"a dequantisation to {outputs[0].dtype} is not supported", "use float32 or int8 outputs")
        return {"input": inputs[0]}, {}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        return {"output": op.inputs["input"].shape}

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        scale, zero_point = per_tensor(op.inputs["input"])
        centred = (values["input"].astype(np.int32) - zero_point).astype(np.float32)
        shift = int(values["input_shift"][0]) if "input_shift" in op.inputs else 0
        return {"output": (np.float32(scale) * exp2i(shift)) * centred}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        # Gradients are in real units, so that of the int8 input is the same.
        return {"input": d_output} if builder.needs(op.inputs["input"]) else {}

    def call(self, op: Operation) -> KernelCall:
        arguments: list[Any] = [op.inputs["input"], op.inputs.get("input_shift"), op.outputs["output"]]
        return KernelCall("tp_dequantize_s8_f32", "tp_quantize_params", _affine_fields(op.inputs["input"]), arguments)


def _affine_fields(quantized: Tensor) -> dict[str, Any]:
    scale, zero_point = per_tensor(quantized)
    return {"size": quantized.size, "scale": scale, "zero_point": zero_point}


def _requantize_parameters(op: Operation) -> dict[str, int]:
    (scale_in, zero_in), (scale_out, zero_out) = per_tensor(op.inputs["input"]), per_tensor(op.output)
    multiplier, shift = quantize_multiplier(scale_in / scale_out)
    return {"input_offset": -zero_in, "output_offset": zero_out, "multiplier": multiplier, "shift": shift}

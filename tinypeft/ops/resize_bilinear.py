"""RESIZE_BILINEAR: an image of another size, each pixel a weighted mean of four; its gradient spreads likewise."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinypeft.arithmetic import accumulator_shift, round_half_up_shift
from tinypeft.errors import ModelError
from tinypeft.ir import Operation, Tensor
from tinypeft.ops.base import BlockFloat, Builder, KernelCall, Op, Value, register
from tinypeft.ops.constraints import constant, require_int8, same_quantization
from tinypeft.ops.mantissas import narrowed

#: Positions and weights are in steps of 1/ONE of a pixel.
ONE = 1024
#: Largest sum of weights of one input along an axis that can be trained through, in pixels.
MAX_FACTOR = 64


@dataclass(frozen=True)
class ResizeAxis:
    """Output i lies at input (i * step + start) / ONE; the struct tp_resize_axis in C."""

    input: int
    output: int
    step: int
    start: int

    @property
    def inside(self) -> bool:
        """Whether no output lies a whole input or more behind the last."""
        return (self.output - 1) * self.step + self.start < self.input * ONE

    def weights(self) -> np.ndarray:
        """(output, input): what each input weighs in each output, in 1/ONE."""
        position = np.arange(self.output) * self.step + self.start
        lower = np.maximum(position, 0) // ONE
        upper = np.minimum(-(-np.maximum(position, 0) // ONE), self.input - 1)
        fraction = np.where(upper > lower, position - lower * ONE, 0)
        weights = np.zeros((self.output, self.input), np.int64)
        np.add.at(weights, (np.arange(self.output), lower), ONE - fraction)
        np.add.at(weights, (np.arange(self.output), upper), fraction)
        return weights

    def l1(self) -> int:
        """The largest sum of an input's weights over the outputs."""
        return int(self.weights().sum(axis=0).max())


def resize_axis(extent: int, new: int, align_corners: bool, half_pixel_centers: bool) -> ResizeAxis:
    """The axis of `extent` pixels that becomes `new`, with LiteRT's rounding of the step."""
    step = (ONE * extent + new // 2) // new
    if align_corners and new > 1:
        step = (ONE * (extent - 1) + (new - 1) // 2) // (new - 1)
    return ResizeAxis(extent, new, step, step // 2 - ONE // 2 if half_pixel_centers else 0)


@register
class ResizeBilinear(Op):
    """output = bilinear interpolation along the attributes `rows` and `columns`, rounded half away from zero."""

    name = "RESIZE_BILINEAR"
    operands = ("input",)
    source = "tp_resize.c"
    limits = "The size must be constant, and such that LiteRT's rounded steps do not leave the image."

    def from_tflite(
        self, options: Any, inputs: list[Tensor | None], outputs: list[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        require_int8(inputs[0], *outputs)
        assert inputs[0] is not None
        height, width = read_size(options, inputs[0], inputs[1])
        flags = bool(options.alignCorners), bool(options.halfPixelCenters)
        _, h, w, _ = inputs[0].shape
        return {"input": inputs[0]}, {"rows": resize_axis(h, height, *flags), "columns": resize_axis(w, width, *flags)}

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        n, _, _, c = op.inputs["input"].shape
        return {"output": (n, op.attributes["rows"].output, op.attributes["columns"].output, c)}

    def check(self, op: Operation) -> str | None:
        for axis in (op.attributes["rows"], op.attributes["columns"]):
            if not axis.inside:
                return (
                    f"a resize of {axis.input} to {axis.output} pixels reads beyond the image in LiteRT's rounded steps"
                )
        return same_quantization(op.inputs["input"], op.output)

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        rows, columns = op.attributes["rows"].weights(), op.attributes["columns"].weights()
        total = np.einsum("yh,xw,nhwc->nyxc", rows, columns, values["input"].astype(np.int64), optimize=True)
        magnitude = (np.abs(total) + ONE * ONE // 2) // (ONE * ONE)
        return {"output": (np.sign(total) * magnitude).astype(np.int8)}

    def vjp(self, op: Operation, d_output: Tensor, builder: Builder) -> dict[str, Tensor]:
        x = op.inputs["input"]
        if not builder.needs(x):
            return {}
        d_input = builder.gradient(x)
        attributes = {"rows": op.attributes["rows"], "columns": op.attributes["columns"]}
        builder.emit("RESIZE_BILINEAR_BACKWARD", op, {"d_output": d_output}, {"d_input": d_input}, attributes)
        return {"input": d_input}

    def call(self, op: Operation) -> KernelCall:
        arguments: list[Any] = [op.inputs["input"], op.output]
        return KernelCall("tp_resize_bilinear_s8", "tp_resize_bilinear_params", _fields(op), arguments)

    def macs(self, op: Operation) -> int:
        return 4 * op.output.size


@register
class ResizeBilinearBackward(Op):
    """d_input = d_output weighted as in the forward pass: along the rows, narrowed, then along the columns."""

    name = "RESIZE_BILINEAR_BACKWARD"
    operands = ("d_output",)
    results = ("d_input",)
    source = "tp_resize.c"

    def shapes(self, op: Operation) -> dict[str, tuple[int, ...]]:
        n, _, _, c = op.inputs["d_output"].shape
        return {"d_input": (n, op.attributes["rows"].input, op.attributes["columns"].input, c)}

    def check(self, op: Operation) -> str | None:
        for axis in (op.attributes["rows"], op.attributes["columns"]):
            if axis.l1() > MAX_FACTOR * ONE:
                return (
                    f"a resize of {axis.input} to {axis.output} pixels cannot be trained through, "
                    f"the most is a factor of {MAX_FACTOR}"
                )
        return None

    def evaluate(self, op: Operation, values: dict[str, Value]) -> dict[str, Value]:
        d_output: BlockFloat = values["d_output"]
        rows, columns = op.attributes["rows"], op.attributes["columns"]
        narrow = accumulator_shift(d_output.peak, columns.l1())
        bound = int(round_half_up_shift(d_output.peak, narrow)) * columns.l1()
        middle = accumulator_shift(bound, rows.l1())
        mantissa = round_half_up_shift(d_output.mantissa, narrow)
        along = round_half_up_shift(np.einsum("xw,nyxc->nywc", columns.weights(), mantissa), middle)
        acc = np.einsum("yh,nywc->nhwc", rows.weights(), along)
        bound = int(round_half_up_shift(bound, middle)) * rows.l1()
        return {"d_input": narrowed(op.output, acc, d_output.exponent + narrow + middle - 20, bound)}

    def call(self, op: Operation) -> KernelCall:
        norms = {"rows_l1": op.attributes["rows"].l1(), "columns_l1": op.attributes["columns"].l1()}
        arguments: list[Any] = [op.inputs["d_output"], op.output]
        function, params = "tp_resize_bilinear_backward_s16", "tp_resize_bilinear_backward_params"
        return KernelCall(function, params, _fields(op) | norms, arguments)

    def macs(self, op: Operation) -> int:
        return 4 * op.inputs["d_output"].size


def read_size(options: Any, x: Tensor, size: Tensor | None) -> tuple[int, int]:
    """(height, width) of a resized image `x`; ModelError for what LiteRT refuses too."""
    new = constant(size, "size of a resize")
    if len(x.shape) != 4 or len(new) != 2 or min(new) < 1:
        raise ModelError(f"a resize of {x.shape} to {tuple(new)} is not supported", "resize images (N, H, W, C)")
    if options.alignCorners and options.halfPixelCenters:
        raise ModelError("a resize has both align_corners and half_pixel_centers", "choose one of them")
    return new[0], new[1]


def _fields(op: Operation) -> dict[str, Any]:
    n, *_, c = op.output.shape
    axes = {name: asdict(op.attributes[name]) for name in ("rows", "columns")}
    return {"batch": n, "channels": c, **axes}

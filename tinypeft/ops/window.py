"""Windows of convolutions and pools that slide over an image: sizes, padding, patches. Defines no operator."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinypeft.errors import ModelError

#: ((top, bottom), (left, right)), each perhaps negative
Padding = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Window:
    """A window over (input_h, input_w) that gives (output_h, output_w); the struct tp_window in C.

    Tap (ky, kx) of output (y, x) lies at row y*stride_h - pad_top + ky*dilation_h and the column likewise; taps outside
    the image are padding. pad_top and pad_left may be negative: then the first tap lies inside the image.
    """

    input_h: int
    input_w: int
    input_c: int
    output_h: int
    output_w: int
    output_c: int
    kernel_h: int
    kernel_w: int
    stride_h: int = 1
    stride_w: int = 1
    dilation_h: int = 1
    dilation_w: int = 1
    pad_top: int = 0
    pad_left: int = 0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(1, H, W, C) of the input."""
        return 1, self.input_h, self.input_w, self.input_c

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(1, H, W, C) of the output."""
        return 1, self.output_h, self.output_w, self.output_c

    def fields(self) -> dict[str, int]:
        """The fields of the C struct tp_window."""
        return asdict(self)

    def rows(self) -> np.ndarray:
        """(OH, KH): the input row of every tap, which may lie outside the image."""
        return _taps(self.output_h, self.stride_h, self.pad_top, self.kernel_h, self.dilation_h)

    def columns(self) -> np.ndarray:
        """(OW, KW): the input column of every tap."""
        return _taps(self.output_w, self.stride_w, self.pad_left, self.kernel_w, self.dilation_w)

    def inside(self) -> np.ndarray:
        """(OH, OW, KH, KW): whether a tap lies in the image."""
        rows, columns = self.rows(), self.columns()
        row_inside, column_inside = (rows >= 0) & (rows < self.input_h), (columns >= 0) & (columns < self.input_w)
        return row_inside[:, None, :, None] & column_inside[None, :, None, :]

    def patches(self, x: np.ndarray, fill: int = 0) -> np.ndarray:
        """(OH, OW, KH, KW, C) of an image (..., H, W, C): the taps of every output, `fill` outside the image."""
        image = x.reshape(self.input_h, self.input_w, -1)
        rows = np.clip(self.rows(), 0, self.input_h - 1)[:, None, :, None]
        columns = np.clip(self.columns(), 0, self.input_w - 1)[None, :, None, :]
        return np.where(self.inside()[..., None], image[rows, columns], np.asarray(fill, image.dtype))

    def scatter(self, patches: np.ndarray) -> np.ndarray:
        """(1, H, W, C): every tap of (OH, OW, KH, KW, C) added to the input it read, the adjoint of `patches`."""
        channels = patches.shape[-1]
        image = np.zeros((self.input_h, self.input_w, channels), patches.dtype)
        rows, columns = self.rows()[:, None, :, None], self.columns()[None, :, None, :]
        inside = self.inside()
        rows, columns = np.broadcast_to(rows, inside.shape)[inside], np.broadcast_to(columns, inside.shape)[inside]
        np.add.at(image, (rows, columns), patches[inside])
        return image[None]


def make_window(options: Any, input_shape: tuple[int, ...], output_channels: int, kernel: tuple[int, int]) -> Window:
    """The window of a TFLite operator, for an input (1, H, W, C) and a kernel (height, width).

    `options` holds padding (0 SAME, 1 VALID), strideH, strideW and perhaps dilationHFactor, dilationWFactor. The
    output's size and the padding offsets follow as in LiteRT's ComputePaddingHeightWidth: what is odd goes to the
    bottom and the right. Options of ours may have explicit_padding instead, a Padding.
    """
    if len(input_shape) != 4 or input_shape[0] != 1:
        raise ModelError(
            f"the input has shape {input_shape}, supported is (1, H, W, C)",
            "export the model with batch size 1, and dilation as a convolution's own",
        )
    explicit: Padding | None = getattr(options, "explicit_padding", None)
    if explicit is None and options.padding not in (0, 1):
        raise ModelError(f"the padding mode {options.padding} is not supported", "use 'same' or 'valid'")
    stride = int(options.strideH), int(options.strideW)
    dilation = int(getattr(options, "dilationHFactor", 1)), int(getattr(options, "dilationWFactor", 1))
    _, height, width, channels = input_shape
    output_h, pad_top = _axis(height, kernel[0], stride[0], dilation[0], explicit[0] if explicit else options.padding)
    output_w, pad_left = _axis(width, kernel[1], stride[1], dilation[1], explicit[1] if explicit else options.padding)
    if output_h < 1 or output_w < 1:
        raise ModelError(f"a window of {kernel[0]}x{kernel[1]} does not fit into an input of {height}x{width}")
    return Window(
        height, width, channels, output_h, output_w, output_channels, *kernel, *stride, *dilation, pad_top, pad_left
    )


def _taps(outputs: int, stride: int, pad: int, kernel: int, dilation: int) -> np.ndarray:
    return np.arange(outputs)[:, None] * stride - pad + np.arange(kernel) * dilation


def _axis(size: int, kernel: int, stride: int, dilation: int, padding: int | tuple[int, int]) -> tuple[int, int]:
    """(output size, padding in front) along one axis; `padding` is 0 SAME, 1 VALID, or what is in front and behind."""
    extent = (kernel - 1) * dilation + 1
    if isinstance(padding, tuple):
        return (size + sum(padding) - extent) // stride + 1, padding[0]
    output = (size + stride - 1) // stride if padding == 0 else (size + stride - extent) // stride
    return output, max((output - 1) * stride + extent - size, 0) // 2

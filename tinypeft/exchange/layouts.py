"""Weights between the layouts of TFLite's filters, which are ours, of Keras' kernels, and of PyTorch's weights.

Filters are (Cout,Cin) of a dense layer, (Cout,KH,KW,Cin) of a convolution, (1,KH,KW,C*m) of a depthwise one.
"""

from __future__ import annotations

import math

import numpy as np

from tinypeft.errors import AdapterError

_DEPTHWISE = ("DepthwiseConv1D", "DepthwiseConv2D")
_CONVOLUTIONS = ("Conv1D", "Conv2D", "SeparableConv1D", "SeparableConv2D")
_TRANSPOSED = ("Conv1DTranspose", "Conv2DTranspose")
#: the Keras classes that have one kernel in a layout that is known here; a separable layer's is its pointwise one
KERAS_CLASSES = ("Dense", *_DEPTHWISE, *_CONVOLUTIONS, *_TRANSPOSED)


def filters_from_torch(weight: np.ndarray) -> np.ndarray:
    """(out,in), (out,in,k) or (out,in,kh,kw) as (out,in), (out,1,k,in) or (out,kh,kw,in)."""
    if weight.ndim == 3:
        weight = weight[:, :, None, :]
    return np.ascontiguousarray(weight if weight.ndim == 2 else weight.transpose(0, 2, 3, 1))


def filters_to_torch(filters: np.ndarray) -> np.ndarray:
    """(out,in) or (out,kh,kw,in) as (out,in) or (out,in,kh,kw)."""
    return np.ascontiguousarray(filters if filters.ndim == 2 else filters.transpose(0, 3, 1, 2))


def kernel_from_filters(filters: np.ndarray, keras_class: str, kernel_shape: tuple[int, ...]) -> np.ndarray:
    """`filters` in the layout and shape of the kernel of a layer of `keras_class`.

    A layer over time has a height or width of 1 in TFLite; a depthwise layer over one channel is a CONV_2D there.
    AdapterError: an unknown class, or filters that do not make such a kernel.
    """
    channels = _channels(keras_class, kernel_shape)
    if filters.ndim not in (2, 4):
        raise _mismatch(filters.shape, keras_class, kernel_shape)
    wanted = kernel_shape
    if keras_class == "Dense":
        kernel = filters.reshape(filters.shape[0], -1).T
    elif keras_class in _DEPTHWISE:
        kernel = filters if filters.shape[0] == 1 else np.moveaxis(filters, 0, -1)
        wanted = (*kernel_shape[:-2], channels)
    elif keras_class in _TRANSPOSED:
        kernel = np.moveaxis(filters, 0, -2)
    else:
        kernel = np.moveaxis(filters, 0, -1)
    if _without_ones(kernel.shape) != _without_ones(wanted):
        raise _mismatch(filters.shape, keras_class, kernel_shape)
    return np.ascontiguousarray(kernel.reshape(kernel_shape))


def filters_from_kernel(kernel: np.ndarray, keras_class: str) -> np.ndarray:
    """The kernel of a layer of `keras_class` as filters; a layer over time gets the height 1.

    AdapterError: an unknown class.
    """
    _channels(keras_class, kernel.shape)
    if keras_class == "Dense":
        return np.ascontiguousarray(kernel.T)
    if "1D" in keras_class:
        kernel = kernel[None]
    if keras_class in _DEPTHWISE:
        return np.ascontiguousarray(kernel.reshape(1, *kernel.shape[:2], -1))
    order = (2, 0, 1, 3) if keras_class in _TRANSPOSED else (3, 0, 1, 2)
    return np.ascontiguousarray(kernel.transpose(order))


def output_channels(keras_class: str, kernel: np.ndarray) -> tuple[int, ...]:
    """The shape in which a value an output channel multiplies such a kernel."""
    count = _channels(keras_class, kernel.shape)
    if keras_class in _DEPTHWISE:
        return kernel.shape[-2:]
    return (count, 1) if keras_class in _TRANSPOSED else (count,)


def _channels(keras_class: str, kernel_shape: tuple[int, ...]) -> int:
    if keras_class not in KERAS_CLASSES:
        raise AdapterError(f"a {keras_class} has no kernel that can be merged; {', '.join(KERAS_CLASSES)} have")
    if keras_class in _DEPTHWISE:
        return math.prod(kernel_shape[-2:])
    return kernel_shape[-2 if keras_class in _TRANSPOSED else -1]


def _without_ones(shape: tuple[int, ...]) -> list[int]:
    return [extent for extent in shape if extent != 1]


def _mismatch(shape: tuple[int, ...], keras_class: str, kernel_shape: tuple[int, ...]) -> AdapterError:
    return AdapterError(f"filters {shape} do not make the kernel {kernel_shape} of a {keras_class}")

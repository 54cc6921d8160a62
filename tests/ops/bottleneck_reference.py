"""Bottlenecks and the input's offset on real numbers, float64, and their gradients by formulas of their own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray
#: (positions of the input, of the output, of the filter) that one tap of a window joins
Tap = tuple

#: function -> (its value, its slope)
FUNCTIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "relu": (lambda h: np.maximum(h, 0.0), lambda h: (h > 0).astype(np.float64)),
    "hard_swish": (
        lambda h: h * np.clip(h + 3, 0, 6) / 6,
        lambda h: np.where(h <= -3, 0.0, np.where(h >= 3, 1.0, h / 3 + 0.5)),
    ),
}


def hidden_of(x: Array, a: Array, taps: list[Tap], shape: tuple[int, ...]) -> Array:
    """(positions..., width): what `a` (width, taps..., Cin) gives of x; `shape`: the positions of the output."""
    hidden = np.zeros((*shape, len(a)))
    for of_x, of_y, of_a in taps:
        hidden[of_y] += x[of_x] @ a[of_a].T
    return hidden


def added(x: Array, a: Array, b: Array, scaling: float, function: str, taps: list[Tap], shape: tuple) -> Array:
    """What a bottleneck adds: scaling * f(x a) b, (positions..., channels)."""
    return scaling * FUNCTIONS[function][0](hidden_of(x, a, taps, shape)) @ b.T


def gradients(
    d: Array, x: Array, a: Array, b: Array, scaling: Array | float, value: Array, slope: Array | float, taps: list[Tap]
) -> tuple[Array, Array, Array]:
    """(of x, of a, of b), given that of what is added; `scaling` may be one a channel.

    `value` and `slope`: those of the function at the hidden values, (positions..., width).
    """
    d_scaled = d * scaling
    d_hidden = d_scaled @ b * slope
    d_x, d_a = np.zeros(x.shape), np.zeros(a.shape)
    for of_x, of_y, of_a in taps:
        d_x[of_x] += d_hidden[of_y] @ a[of_a]
        axes = range(x[of_x].ndim - 1)
        d_a[of_a] += np.tensordot(d_hidden[of_y], x[of_x], (axes, axes))
    d_b = d_scaled.reshape(-1, d.shape[-1]).T @ value.reshape(-1, len(a))
    return d_x, d_a, d_b


def offset_inside(x: Array, offset: Array) -> Array:
    """Where int8 x + offset is an int8; the offset of every element, or one a channel."""
    moved = x.astype(int) + (offset.reshape(x.shape) if offset.size == x.size else offset).astype(int)
    return (moved >= -128) & (moved <= 127)

"""Random scales, zero points, shapes and values: the extremes more often than others."""

from __future__ import annotations

import numpy as np

ACTIVATIONS = (0, 1, 2, 3)


def random_scale(rng: np.random.Generator) -> float:
    """Between 0.001 and 1, a power of two now and then."""
    return float(2.0 ** -rng.integers(0, 10)) if rng.random() < 0.15 else float(np.exp(rng.uniform(-6.9, 0)))


def random_zero_point(rng: np.random.Generator) -> int:
    """An int8, the extremes more often than others."""
    return int(rng.choice([-128, 127, 0])) if rng.random() < 0.3 else int(rng.integers(-128, 128))


def random_int8(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform int8, or only few levels, so that maxima tie and results saturate."""
    style = rng.integers(3)
    if style == 0:
        return rng.choice(np.array([-128, 127], np.int8), shape)
    low, high = (-128, 128) if style == 1 else sorted(rng.choice(np.arange(-128, 129), 2, replace=False))
    return rng.integers(low, high, shape).astype(np.int8)


def random_shape(rng: np.random.Generator, largest: int = 9) -> tuple[int, ...]:
    """(1, H, W, C)."""
    return 1, *(int(n) for n in rng.integers(1, largest + 1, 3))

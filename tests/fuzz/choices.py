"""What random models are drawn from: Hypothesis, so that a failure shrinks; or a NumPy generator, which is quicker.

All draws shrink towards the first, the lowest, and no.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st

T = TypeVar("T")


class Choices:
    """The draws of one model; `integer` is all that an origin of them defines."""

    def integer(self, low: int, high: int) -> int:
        """A number of low..high."""
        raise NotImplementedError

    def choose(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.integer(0, len(options) - 1)]

    def chance(self, percent: int) -> bool:
        """Yes in so many of a hundred draws."""
        return self.integer(0, 99) >= 100 - percent

    def real(self, low: float, high: float) -> float:
        """One of a thousand numbers between low and high."""
        return low + (high - low) * self.integer(0, 999) / 999

    def generator(self) -> np.random.Generator:
        """A generator for what need not shrink: weights."""
        return np.random.default_rng(self.integer(0, (1 << 31) - 1))


class HypothesisChoices(Choices):
    """Draws of Hypothesis' `data()`."""

    def __init__(self, data: Any):
        self.data = data

    def integer(self, low: int, high: int) -> int:
        return int(self.data.draw(st.integers(low, high)))


class RandomChoices(Choices):
    """Draws of a NumPy generator."""

    def __init__(self, rng: np.random.Generator):
        self.rng = rng

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

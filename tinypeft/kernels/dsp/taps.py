"""How taps of adjoining outputs become dual multiplications: which pairs of halfwords meet which pairs of weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Product:
    """`instruction output, data word, weight word`: smlad of two taps, or smla<half><half> of one."""

    instruction: str
    output: int
    word: int
    weight: int


@dataclass(frozen=True)
class TapPlan:
    """The products of one row of `taps` taps for `outputs` outputs, `stride` halfwords apart.

    weights   (low, high) tap of each packed word of weights; None is a zero
    products  by data word, which holds halfwords 2*word and 2*word + 1 from the first tap of the first output on; of a
              word, those of later outputs come first
    """

    taps: int
    stride: int
    outputs: int
    weights: tuple[tuple[int, int | None], ...]
    products: tuple[Product, ...]

    @property
    def words(self) -> list[int]:
        """The data words that are read, ascending."""
        return sorted({product.word for product in self.products})


def plan_taps(taps: int, stride: int, outputs: int, weights: tuple[tuple[int, int | None], ...] = ()) -> TapPlan:
    """The plan with the fewest products; `weights` are words that exist already."""
    pairs: list[tuple[int, int, int]] = []  # output, word, first tap
    singles: list[tuple[int, int, int]] = []  # output, halfword, tap
    for output in range(outputs):
        at, tap = output * stride, 0
        while tap < taps:
            if (at + tap) % 2 == 0 and tap + 1 < taps:
                pairs.append((output, (at + tap) // 2, tap))
                tap += 2
            else:
                singles.append((output, at + tap, tap))
                tap += 1
    packed = list(weights)
    packed += [pair for pair in sorted({(tap, tap + 1) for _, _, tap in pairs}) if pair not in packed]
    for _, _, tap in singles:
        if not any(tap in word for word in packed):
            packed.append((tap, None))
    products = [Product("smlad", o, word, packed.index((tap, tap + 1))) for o, word, tap in pairs]
    for output, halfword, tap in singles:
        weight = next(i for i, word in enumerate(packed) if tap in word)
        instruction = f"smla{'bt'[halfword % 2]}{'bt'[packed[weight].index(tap)]}"
        products.append(Product(instruction, output, halfword // 2, weight))
    products.sort(key=lambda p: (p.word, -p.output))
    return TapPlan(taps, stride, outputs, tuple(packed), tuple(products))


def pack_weights(words: tuple[tuple[int, int | None], ...], weights: np.ndarray) -> np.ndarray:
    """int32 (..., words) of int weights (..., taps) that fit int16; taps beyond are zeros."""
    missing = max([tap for word in words for tap in word if tap is not None], default=-1) + 1 - weights.shape[-1]
    padded = np.concatenate([weights, np.zeros((*weights.shape[:-1], max(missing, 0)), np.int64)], axis=-1)
    low = [padded[..., a] for a, _ in words]
    high = [padded[..., b] if b is not None else np.zeros_like(padded[..., 0]) for _, b in words]
    both = (np.stack(low, -1) & 0xFFFF) | (np.stack(high, -1) & 0xFFFF) << 16
    return both.astype(np.uint32).view(np.int32)

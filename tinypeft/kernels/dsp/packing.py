"""Weights of two output channels in each halfword, and all that a generated routine reads of a layer in one stream.

h = 256 * w_high + w_low. SMLAD of two inputs with two h gives S = 256 * high + low modulo 2**32, one with their low
bytes (SXTB16) gives low; high = (S - low) >> 8 is exact where |high| < 2**23.

A block of four channels c..c+3 has the pairs (high c, low c+2) and (high c+1, low c+3). Its words: what S and low of
each pair start from; per two inputs a word of each pair; then the constants of the requantisation of each pair.

Plain weights, for what does not fit that, are int16: S is high itself, and of each two inputs there are four words, of
the channels c, c+1, c+2 and c+3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinypeft.ir import Operation
from tinypeft.kernels.dsp.requantize import (
    AccumulatorRange,
    Rounded,
    Stepped,
    accumulator_range,
    constant_channels,
    is_high,
    requantization,
)
from tinypeft.ops.weighted import layer_bias

#: Output channels of a block
BLOCK = 4
_HIGH_LIMIT = 1 << 23


@dataclass(frozen=True)
class Layer:
    """What packing needs of a layer: filters int64 (Cout, ...) and biases int64 (Cout,), the zero point folded in."""

    filters: np.ndarray
    bias: np.ndarray
    requantize: Stepped | Rounded


def packed_or_plain(op: Operation) -> Layer | str:
    """The layer in front of packing, with plain weights where it cannot be packed; or why there is neither."""
    layer = pack_layer(op)
    return pack_layer(op, plain=True) if isinstance(layer, str) else layer


def pack_layer(op: Operation, ranges: AccumulatorRange | None = None, plain: bool = False) -> Layer | str:
    """The layer in front of packing, or why it cannot be packed. Filters of constant channels are 0.

    `ranges`: of accumulators where more adds to them than the layer itself.
    """
    ranges = ranges or accumulator_range(op)
    constants = requantization(op, ranges, plain)
    if isinstance(constants, str):
        return constants
    data = op.inputs["filter"].data
    assert data is not None
    filters = data.astype(np.int64)
    rows = filters.reshape(len(filters), -1)
    bias = layer_bias(op) - op.inputs["input"].zero_point * rows.sum(1)
    magnitude = ranges.magnitude
    if isinstance(constants, Stepped):
        constant = constant_channels(op, ranges)
        filters = np.where(constant.reshape(-1, *[1] * (filters.ndim - 1)), 0, filters)
        bias, magnitude = np.where(constant, 0, bias), np.where(constant, 0, magnitude)
    if plain:
        return Layer(filters, bias, constants)
    high = is_high(len(filters))
    if magnitude[high].max(initial=0) >= _HIGH_LIMIT - 2:
        return f"accumulators can reach {magnitude[high].max()}, packed weights hold 2**23"
    if any((packed < -(1 << 15)).any() for packed in _halfwords(_padded(filters.reshape(len(filters), -1)))):
        return "a weight of -128 stands above a negative one, which a halfword does not hold"
    return Layer(filters, bias, constants)


def widened_order(rows: np.ndarray) -> np.ndarray:
    """(n, K) as SXTB16 widens: four in the order 0, 2, 1, 3, what is left as it is, with 0 up to an even number."""
    count, whole = rows.shape[1], rows.shape[1] // 4 * 4
    fours = rows[:, :whole].reshape(len(rows), -1, 4)[:, :, [0, 2, 1, 3]].reshape(len(rows), whole)
    return np.pad(np.concatenate([fours, rows[:, whole:]], 1), ((0, 0), (0, count % 2)))


def stream(layer: Layer, columns: np.ndarray) -> np.ndarray:
    """int32 words of all blocks. `columns` int64 (Cout, K), K even: filters in the order of the inputs.

    The first four words of a block are what its sums start from. An addend a of each channel makes them
    S + 256 * a_high + a_low and low + a_low; of plain weights S + a_high.
    """
    if layer.requantize.plain:
        blocks = _padded(columns).reshape(-1, BLOCK, columns.shape[1])
        halves = tuple(blocks[:, channel] for channel in range(BLOCK))
    else:
        halves = _halfwords(_padded(columns))
    words = np.stack([half[:, 0::2] & 0xFFFF | half[:, 1::2] << 16 for half in halves], 2)
    parts = [_starts(layer), words.reshape(len(words), -1), _constants(layer.requantize, len(columns))]
    return (np.concatenate(parts, 1).reshape(-1) & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def split_starts(words: np.ndarray, output_c: int) -> tuple[np.ndarray, np.ndarray]:
    """What sums of each block start from, (blocks, 4), and the words without that."""
    blocks = words.reshape(-(-output_c // BLOCK), -1)
    return blocks[:, :4].reshape(-1), blocks[:, 4:].reshape(-1)


def _starts(layer: Layer) -> np.ndarray:
    """int64 (blocks, 4): S and low of both pairs of a block, in front of its first product."""
    bias = _padded(layer.bias[:, None])[:, 0]
    if layer.requantize.plain:
        return bias.reshape(-1, BLOCK)[:, [0, 2, 1, 3]]
    offset = np.zeros_like(bias)
    if isinstance(layer.requantize, Stepped):
        offset[: len(layer.bias)] = layer.requantize.offset
    pairs = [(bias[pair::BLOCK], bias[pair + 2 :: BLOCK], offset[pair::BLOCK]) for pair in range(2)]
    return np.stack([word for high, low, extra in pairs for word in (256 * high + extra + low, low)], 1)


def _constants(requantize: Stepped | Rounded, channels: int) -> np.ndarray:
    """int64 (blocks, words): of each pair what its low and its high channel are requantised with."""
    extra = -channels % BLOCK

    def of(values: np.ndarray, fill: int) -> np.ndarray:
        return np.concatenate([values, np.full(extra, fill, np.int64)]).reshape(-1, BLOCK)

    multiplier = of(requantize.multiplier, 1)
    columns = []
    for pair in range(2):
        high, low = multiplier[:, pair], multiplier[:, pair + 2]
        if isinstance(requantize, Stepped):
            offset = of(requantize.offset, 0)
            columns += [low, high, offset[:, pair + 2], *([offset[:, pair]] if requantize.plain else [])]
        else:
            shift = of(requantize.shift, 1)
            columns += [low, shift[:, pair + 2], high, shift[:, pair]]
    return np.stack(columns, 1)


def _padded(values: np.ndarray) -> np.ndarray:
    """(Cout, n) with rows of 0 up to a whole number of blocks."""
    return np.concatenate([values, np.zeros((-len(values) % BLOCK, values.shape[1]), values.dtype)])


def _halfwords(filters: np.ndarray) -> tuple[np.ndarray, ...]:
    """int64 (blocks, K) of both pairs: 256 * high + low."""
    blocks = filters.reshape(-1, BLOCK, filters.shape[1])
    return 256 * blocks[:, 0] + blocks[:, 2], 256 * blocks[:, 1] + blocks[:, 3]

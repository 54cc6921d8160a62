"""What operators say of channels: results keep within their bounds, and read no channel but the one that is named."""

from __future__ import annotations

import numpy as np
import pytest
from cases import CASES
from weighted_cases import WEIGHTED_CASES

from tinypeft.ir import Operation, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.base import Bounds, Op, Value

COUNT = 150
KINDS = [kind for kind in (CASES | WEIGHTED_CASES) if type(OPS[kind]).channel_bounds is not Op.channel_bounds]


def test_which_operators_know_their_channels() -> None:
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "CONCATENATION", "RESHAPE", "TANH"} <= set(KINDS)


def random_bounds(rng: np.random.Generator, tensor: Tensor) -> Bounds:
    """Of each channel: one value, the zero point more often than others, a few, or all."""
    low = rng.integers(-128, 128, tensor.shape[-1:] or 1)
    low = np.where(rng.random(low.shape) < 0.2, tensor.zero_point, low)
    high = np.minimum(low + rng.choice([0, 0, 1, 5, 60, 255], low.shape), 127)
    return Bounds(low.astype(np.int64), high.astype(np.int64))


def drawn(rng: np.random.Generator, bounds: Bounds, shape: tuple[int, ...]) -> np.ndarray:
    """Values within bounds, the ends of them more often than others."""
    if not shape:
        return drawn(rng, bounds, (1,)).reshape(())
    values = rng.integers(bounds.low, bounds.high + 1, shape)
    ends = np.where(rng.random(shape) < 0.5, bounds.low, bounds.high)
    return np.where(rng.random(shape) < rng.choice([0.0, 0.5, 1.0]), ends, values).astype(np.int8)


def random_operation(rng: np.random.Generator, kind: str) -> tuple[Operation, dict[str, Bounds]]:
    """An operation and the bounds of its int8 operands."""
    while True:
        node = CASES[kind](rng, kind=kind) if kind in CASES else WEIGHTED_CASES[kind](rng)
        op = node.operation()
        if op.op.check(op) is None:
            break
    bounds = {}
    for name, tensor in op.inputs.items():
        if tensor.dtype == "int8":
            channels = (tensor.shape or (1,))[-1]
            rows = None if tensor.data is None else tensor.data.reshape(-1, channels).astype(np.int64)
            bounds[name] = random_bounds(rng, tensor) if rows is None else Bounds(rows.min(0), rows.max(0))
    return op, bounds


def random_values(rng: np.random.Generator, op: Operation, bounds: dict[str, Bounds]) -> dict[str, Value]:
    return {n: t.data if t.data is not None else drawn(rng, bounds[n], t.shape) for n, t in op.inputs.items()}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "SQUARED_DIFFERENCE"])  # which falls and grows
def test_results_keep_within_their_bounds(kind: str) -> None:
    rng = np.random.default_rng(1)
    known = constant = reached = total = 0
    for _ in range(COUNT):
        op, bounds = random_operation(rng, kind)
        found = op.op.channel_bounds(op, bounds)
        if found is None:
            continue
        assert found.low.shape == found.high.shape == op.output.shape[-1:]
        assert (found.low >= -128).all() and (found.high <= 127).all()
        results = [op.op.evaluate(op, random_values(rng, op, bounds))["output"] for _ in range(4)]
        rows = np.concatenate([r.reshape(-1, op.output.shape[-1]) for r in results])
        assert (found.low <= rows).all() and (rows <= found.high).all(), op
        known, constant = known + 1, constant + int(found.constant.sum())
        reached, total = reached + int((rows == found.low).any(0).sum()), total + len(found.low)
    assert known > COUNT / 10 and constant and reached > total / 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_channel_reads_only_its_source(kind: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(COUNT):
        op, bounds = random_operation(rng, kind)
        sources = op.op.channel_sources(op)
        if sources is None:
            continue
        assert set(sources) <= set(op.inputs)
        assert all(len(read) == op.output.shape[-1] for read in sources.values())
        before, other = random_values(rng, op, bounds), random_values(rng, op, bounds)
        channel = int(rng.integers(op.output.shape[-1]))
        after = dict(before)
        for name, tensor in op.inputs.items():
            if tensor.data is None:
                after[name] = other[name].copy()
                kept = [int(c) for c in sources.get(name, [0] * (channel + 1))[channel : channel + 1] if c >= 0]
                if tensor.shape:
                    after[name][..., kept] = before[name][..., kept]
                else:
                    after[name] = before[name]
        results = [op.op.evaluate(op, values)["output"][..., channel] for values in (before, after)]
        np.testing.assert_array_equal(*results, f"{op}")

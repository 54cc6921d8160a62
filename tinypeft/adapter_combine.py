"""Several adapters of one model and a weight for each in, one adapter out, as tp_adapters_combine() makes it.

linear  LoRA: A' = sum sign(w) sqrt|w| A, B' = sum sqrt|w| B, PEFT's definition: B' A' has cross terms
cat     LoRA: the rows of A one behind the other, beside them the columns of w B: B' A' is the weighted sum
both    all else that is trained: fresh + sum w (M - fresh), `fresh` what a fresh adapter starts from
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

import numpy as np

from tinypeft.adapter_state import Adapter, AdapterLike, adapter_from_masters, quantizer_states, require_adapters
from tinypeft.adapters.sums import Role, Summand, summands, unsummed
from tinypeft.compiler import CompiledModel
from tinypeft.errors import AdapterError
from tinypeft.ir import DTYPES

Method = Literal["linear", "cat"]
METHODS: tuple[Method, ...] = ("linear", "cat")
#: TP_WEIGHT_LIMIT
WEIGHT_LIMIT = float(1 << 20)
_F32 = np.float32


def combine_adapters(
    model: CompiledModel, adapters: Sequence[AdapterLike], weights: Sequence[float], method: Method = "linear"
) -> Adapter:
    """The weighted sum of `adapters`, in float32 and quantised anew; scales and optimiser are those of a fresh adapter.

    Masters are those of the states: of an adapter from a package those that its integers stand for, which gives the
    device's bits. A retrained classifier keeps the widest range of logits that any of them has seen. AdapterError:
    kinds that have no sum, weights that are too large or not one an adapter, with `cat` more ranks than the model's.
    """
    require_adapters(model)
    if reason := unsummed(model.adapter, {kind for kinds in model.adapted_by.values() for kind in kinds}):
        raise AdapterError(f"adapters of {model.name} cannot be combined: {reason}", "let them serve one by one")
    factors = _checked(weights, len(adapters))
    rest = _F32(1.0)  # of the fresh adapter
    for factor in factors:
        rest = rest - factor
    fresh = model.fresh_state(0)
    masters: dict[str, np.ndarray] = {}
    places: list[tuple[int, int]] = []
    for summand in summands(model.parameters):
        name = summand.master.name
        given = [adapter.state[name].reshape(summand.shape) for adapter in adapters]
        if summand.role is not Role.LORA_B:  # whose columns go where the rows of A went
            places = _places(summand, given, method)
        total = np.zeros(summand.shape, np.float32)
        for weight, master, (at, count) in zip(factors, given, places, strict=True):
            total[:, at : at + count] += _factor(weight, summand.role, method) * master[:, :count]
        masters[name] = total.reshape(summand.master.shape)
        if summand.role is Role.OTHER:
            masters[name] += rest * fresh[name]
    states = _quantizer_states(model, adapters)
    made = adapter_from_masters(model, masters, states)
    assert model.requantize is not None
    quantized = {t.name for op in model.requantize.operations for t in op.outputs.values()}
    kept = {name: made.state[name] for name in quantized | masters.keys() | states.keys()}
    return Adapter(made.package, fresh | kept)


def _checked(weights: Sequence[float], count: int) -> list[np.float32]:
    if count == 0 or len(weights) != count:
        raise AdapterError(f"there are {count} adapters and {len(weights)} weights", "give one weight an adapter")
    for weight in weights:
        if not (math.isfinite(weight) and abs(weight) <= WEIGHT_LIMIT):
            raise AdapterError(f"the weight {weight:g} is not within {WEIGHT_LIMIT:,.0f}", "try weights around 1")
    return [_F32(weight) for weight in weights]


def _factor(weight: np.float32, role: Role, method: Method) -> np.float32:
    """What a master is multiplied by."""
    if role is Role.OTHER or (role is Role.LORA_B and method == "cat"):
        return weight
    if method == "cat":
        return _F32(1.0)
    root = np.sqrt(np.abs(weight))
    return -root if role is Role.LORA_A and weight < 0 else root


def _places(summand: Summand, given: Sequence[np.ndarray], method: Method) -> list[tuple[int, int]]:
    """(the first row, how many) in the sum of what each adapter gives; a row behind the last that is not 0 is none."""
    if method == "linear" or summand.role is Role.OTHER:
        return [(0, summand.rank)] * len(given)
    counts = [int(np.flatnonzero(a.any((0, 2))).max(initial=-1)) + 1 for a in given]
    if sum(counts) > summand.rank:
        raise AdapterError(
            f"the adapters' ranks of {summand.layer}, {' + '.join(map(str, counts))}, are {sum(counts)} together, the "
            f"project's is {summand.rank}",
            f"generate the project with --r {sum(counts)}, or combine with the method linear",
        )
    return list(zip(accumulate(counts, initial=0), counts, strict=False))


def _quantizer_states(model: CompiledModel, adapters: Sequence[AdapterLike]) -> dict[str, np.ndarray]:
    """Those of a fresh adapter, but for the range of logits: the smallest and the largest that any of them has seen."""
    assert model.requantize is not None
    states: dict[str, np.ndarray] = {t.name: np.zeros(t.shape, DTYPES[t.dtype]) for t in quantizer_states(model)}
    for op in model.requantize.operations:
        if (logit_range := op.inputs.get("logit_range")) is not None:
            seen = np.stack([adapter.state[logit_range.name] for adapter in adapters])
            limits = np.minimum(seen.min(0), 0), np.maximum(seen.max(0), 0)
            states[logit_range.name] = np.array([limits[0][0], limits[1][1]], np.int32)
    return states

"""Lowering: a TFLite operator that is no operator of ours in, the operators of ours that do the same out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tinypeft.errors import ModelError
from tinypeft.ir import Tensor


@dataclass(frozen=True)
class Lowered:
    """One operation of ours: its kind, operands, results and attributes. A tensor without a name gets one."""

    kind: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lowering:
    """`summary` and `limits` are for the table of operators; `lower(options, inputs, outputs)` gives the operations.

    `lower` raises ModelError, as one sentence, for a form that is not supported; `kinds` are what it may give.
    """

    summary: str
    kinds: tuple[str, ...]
    lower: Callable[[Any, list[Tensor | None], list[Tensor]], list[Lowered]]
    limits: str = ""


def _reshape(options: Any, inputs: list[Tensor | None], outputs: list[Tensor]) -> list[Lowered]:
    x, y = inputs[0], outputs[0]
    assert x is not None
    if x.dtype != y.dtype or x.size != y.size:
        raise ModelError(f"a change of {x} to {y} is not supported")
    return [Lowered("RESHAPE", {"input": x}, {"output": y}, {"shape": y.shape})]


#: TFLite operator -> what becomes of it
LOWERINGS: dict[str, Lowering] = {
    "EXPAND_DIMS": Lowering("A view: the same elements with an axis of 1 more.", ("RESHAPE",), _reshape),
    "SQUEEZE": Lowering("A view: the same elements without axes of 1.", ("RESHAPE",), _reshape),
}

"""Whose weights an operator has, where the converter's names no longer tell."""

from __future__ import annotations

import pytest

from tinypeft.frontend.naming import find_folded_layer

CLASSES = {
    "first": "Dense", "first_bn": "BatchNormalization", "head": "Dense", "norm": "BatchNormalization", "act": "ReLU"
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "layer", "taken", "expected"),
    [
        ("FULLY_CONNECTED", "norm", ["first", "norm"], "head"),
        ("FULLY_CONNECTED", "first_bn", ["first_bn", "norm"], "first"),
        ("FULLY_CONNECTED", "norm", ["first", "head", "norm"], "norm"),  # a normalisation that stands by itself
        ("FULLY_CONNECTED", "act", ["first", "act"], "act"),
        ("MUL", "norm", ["first", "norm"], "norm"),
    ],
)
def test_a_folded_normalisation_gives_way_to_its_dense_layer(
    kind: str, layer: str, taken: list[str], expected: str
) -> None:
    assert find_folded_layer(kind, layer, taken, CLASSES) == expected
    assert find_folded_layer(kind, layer, taken, {}) == layer

"""Whose weights an operator has, where the converter's names no longer tell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tinypeft.frontend.naming import find_folded_layer, model_identifier

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


def test_no_model_is_called_as_something_of_the_firmware() -> None:
    """The command server's view of a model is one file: its own names and the model's bare name share a scope."""
    template = (Path(__file__).parents[2] / "templates" / "model" / "model_device.c.j2").read_text()
    of_device = set(re.findall(r"^static .*?\b(?!_Alignas)(\w+)(?:\(.*|(?:\[.*\])?;$)", template, re.M))
    assert {"instance", "training", "guards_intact", "fit_memory", "input"} <= of_device
    for name in sorted(of_device | {"arena", "staging", "status"}):
        assert model_identifier(name) == f"{name}_model", name
    assert "model" not in of_device and model_identifier("model") == "model"
    assert model_identifier("my-net") == "my_net" and model_identifier("tp_model") == "tp_model_model"
    assert model_identifier("float") == "float_"

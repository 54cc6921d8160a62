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
    """What a file of the sources calls its own, and the model's bare name, share a scope; so do its parameters."""
    device, model = (
        (Path(__file__).parents[2] / "templates" / "model" / name).read_text()
        for name in ("model_device.c.j2", "model.c.j2")
    )
    of_device = set(re.findall(r"^static .*?\b(?!_Alignas)(\w+)(?:\(.*|(?:\[.*\])?;$)", device, re.M))
    assert {"instance", "training", "guards_intact", "fit_memory", "input"} <= of_device
    of_model = set(re.findall(r"^(?:TP_COLD )?static [\w *]*?\b(\w+)(?:\(|\[|\s=)", model, re.M))
    signatures = re.findall(r"^(?:TP_COLD )?(?:static |tp_status )[^;(]*\(([^;]*?)\) \{$", model, re.M | re.S)
    of_model |= {name for each in signatures for name in re.findall(r"[\w}](?: \**|\*+)([a-z]\w*)(?=,|$)", each)}
    assert {"traced", "fingerprint", "m", "latents", "capacity"} <= of_model
    for name in sorted(of_device | of_model | {"arena", "label", "staging", "status"}):
        assert model_identifier(name) == f"{name}_model", name
    assert "model" not in of_device and model_identifier("model") == "model"
    assert model_identifier("my-net") == "my_net" and model_identifier("tp_model") == "tp_model_model"
    assert model_identifier("float") == "float_"

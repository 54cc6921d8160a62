"""Which layers get an adapter: PEFT's target_modules, modules_to_save, and every refusal."""

from __future__ import annotations

import pytest
from small_models import load

from tinypeft.adapters import AdaptedGraph, AdapterConfig
from tinypeft.errors import AdapterError
from tinypeft.stages.insert import insert_adapters, matches


def insert(name: str = "plain", **config: object) -> AdaptedGraph:
    return insert_adapters(load(name).graph, AdapterConfig(**config))  # type: ignore[arg-type]


def adapted(graph: AdaptedGraph) -> tuple[list[str], list[str]]:
    """(layers with a LoRA, layers retrained)."""
    lora = [p.layer for p in graph.parameters if ".lora_A." in p.peft_name]
    return lora, [p.layer for p in graph.parameters if p.peft_name.endswith(f"{p.layer}.weight")]


@pytest.mark.parametrize(
    ("layer", "wanted", "expected"),
    [
        ("conv", ["conv"], True),
        ("block.conv", ["conv"], True),
        ("blockconv", ["conv"], False),
        ("conv_2", ["conv"], False),
        ("conv", "conv", True),
        ("conv_2", "conv", False),
        ("conv_2", r"conv(_\d+)?", True),
        ("a_conv", "conv", False),
        ("conv", [], False),
    ],
)
def test_matching_follows_peft(layer: str, wanted: list[str] | str, expected: bool) -> None:
    assert matches(layer, wanted) is expected


@pytest.mark.parametrize(
    ("config", "lora", "saved"),
    [
        ({}, ["stem", "pointwise"], ["head"]),
        ({"modules_to_save": ()}, ["stem", "pointwise", "head"], []),
        ({"modules_to_save": ("head",)}, ["stem", "pointwise"], ["head"]),
        ({"target_modules": ("stem",)}, ["stem"], ["head"]),
        ({"target_modules": "st.*|point.*"}, ["stem", "pointwise"], ["head"]),
        ({"target_modules": ("head",), "modules_to_save": ()}, ["head"], []),
        ({"target_modules": ()}, [], ["head"]),
    ],
)
def test_what_is_adapted(config: dict, lora: list[str], saved: list[str]) -> None:
    assert adapted(insert(**config)) == (lora, saved)


def test_none_leaves_the_graph() -> None:
    base = load("plain").graph
    graph = insert_adapters(base, AdapterConfig(adapter="none"))
    assert graph.parameters == [] and graph.quantizers == []
    assert [op.inputs for op in graph.graph.operations] == [op.inputs for op in base.operations]


def test_the_base_graph_is_left_as_it_is() -> None:
    base = load("residual").graph
    before = [(op.name, dict(op.inputs), dict(op.attributes)) for op in base.operations]
    insert_adapters(base, AdapterConfig())
    assert [(op.name, op.inputs, op.attributes) for op in base.operations] == before


def test_the_down_projection_stands_in_front_of_its_layer() -> None:
    operations = insert(r=3).graph.operations
    names = [op.name for op in operations]
    assert names.index("stem_lora_down") == names.index("stem") - 1
    stem = operations[names.index("stem")]
    assert stem.inputs["lora_B"].shape == (6, 3) and stem.inputs["hidden"].shape == (1, 4, 4, 3)
    assert operations[names.index("stem_lora_down")].inputs["lora_A"].shape == (3, 3, 3, 2)
    assert "hidden" not in operations[names.index("dw")].inputs


def test_parameters_have_pefts_names_and_shapes() -> None:
    import numpy as np

    shapes = {p.peft_name: p.to_peft(np.zeros(p.master.shape)).shape for p in insert(r=3).parameters}
    assert shapes == {
        "stem.lora_A.weight": (3, 2, 3, 3),
        "stem.lora_B.weight": (6, 3, 1, 1),
        "pointwise.lora_A.weight": (3, 6, 1, 1),
        "pointwise.lora_B.weight": (8, 3, 1, 1),
        "head.weight": (5, 8),
        "head.bias": (5,),
    }
    for p in insert("mlp", r=2, modules_to_save=()).parameters:
        array = np.arange(p.master.size, dtype=np.float32).reshape(p.master.shape)
        assert p.to_peft(array).shape == p.master.shape
        assert (p.from_peft(p.to_peft(array)) == array).all()
    for p in insert(r=3).parameters:
        array = np.arange(p.master.size, dtype=np.float32).reshape(p.master.shape)
        assert (p.from_peft(p.to_peft(array)) == array).all()


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        (
            {"target_modules": ("dw",)},
            "'dw' names dw, which is a depthwise layer: a LoRA there costs more",
            "stem, pointwise",
        ),
        ({"target_modules": ".*"}, r"names dw, which is a depthwise layer", "candidates: stem, pointwise"),
        ({"target_modules": ("stm",)}, "'stm' matches no layer that lora can adapt", "did you mean stem"),
        ({"target_modules": "zzz"}, "'zzz' matches no layer", "candidates: stem, pointwise"),
        ({"target_modules": ("pool",)}, "pool is a MEAN, which has no matrix to adapt", "candidates: stem"),
        ({"target_modules": "(("}, "is no regular expression", "escape"),
        ({"target_modules": (), "modules_to_save": ()}, "nothing would be trained", "--target-modules"),
        ({"modules_to_save": ("hed",)}, "names hed, which is no layer of the model", "did you mean head"),
        (
            {"modules_to_save": ("dw",)},
            "names dw, which is a DEPTHWISE_CONV_2D; only dense layers and convolutions can be retrained",
            "candidates: stem, pointwise, head",
        ),
        ({"modules_to_save": ("pool",)}, "names pool, which is a MEAN; only dense layers", "candidates: stem"),
        ({"r": 0}, "r is 0, the limits are 1 and 256", "--r 4"),
        ({"r": 257}, "r is 257", "--r 4"),
        ({"lora_alpha": 0.0}, "lora_alpha is 0, it must be positive", "--lora-alpha 8"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan", "--lora-alpha 8"),
        ({"adapter": "dora"}, "there is no adapter kind dora", ", none"),
    ],
)
def test_refusals(config: dict, message: str, hint: str) -> None:
    with pytest.raises(AdapterError, match=message) as caught:
        insert(**config)
    assert caught.value.hint is not None and hint in caught.value.hint


def test_a_classifier_without_a_bias_starts_with_zeros() -> None:
    graph = insert("no_bias")
    assert adapted(graph) == (["stem"], ["head"])
    bias = next(p.master for p in graph.parameters if p.peft_name == "head.bias")
    initializer = next(op for op in graph.initializers if bias in op.outputs.values())
    assert initializer.kind == "INITIALIZE_CONSTANT" and initializer.attributes["value"] == 0.0


def test_any_dense_layer_and_convolution_can_be_saved() -> None:
    assert adapted(insert("mlp", modules_to_save=("head", "head"))) == (["first", "second"], ["head"])
    assert adapted(insert("mlp", modules_to_save=("first",))) == (["second", "head"], ["first"])
    assert adapted(insert(modules_to_save=("stem", "head"))) == (["pointwise"], ["stem", "head"])


def test_a_model_without_a_dense_layer_has_no_saved_module_by_default() -> None:
    assert adapted(insert("conv_mean")) == (["stem", "classes"], [])
    assert adapted(insert("conv_mean", modules_to_save=("classes",))) == (["stem"], ["classes"])

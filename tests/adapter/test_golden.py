"""Adapters that PEFT itself has written, imported into the network they are of, and merged as PEFT merges them."""

from __future__ import annotations

from pathlib import Path

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
from safetensors.numpy import load_file
from tflite_builder import Node, build_model, conv_2d, fully_connected, int8_tensor, int32_constant

from tinypeft.adapter_files import read_adapter, write_adapter
from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.errors import AdapterError
from tinypeft.exchange.layouts import filters_from_torch
from tinypeft.exchange.peft_files import read_peft
from tinypeft.frontend import LoadedModel, load_tflite
from tinypeft.merging import merge_adapter
from tinypeft.training import TrainingConfig

GOLDEN = Path(__file__).resolve().parents[1] / "exchange" / "golden"
LAYERS = {"features.conv": "conv", "features.point": "point", "fc": "fc", "head": "head"}


def network() -> LoadedModel:
    """The network of exchange/make_golden.py in int8."""
    weights = load_file(GOLDEN / "base.safetensors")
    nodes: list[Node] = []
    x = int8_tensor("x", (1, 5, 4, 2), 0.02, -5)
    shapes = {"conv": (1, 3, 3, 4), "point": (1, 3, 3, 3), "fc": (1, 5), "head": (1, 4)}
    for path, name in LAYERS.items():
        filters = filters_from_torch(weights[f"{path}.weight"])
        scale = (np.abs(filters).reshape(len(filters), -1).max(1) / 127).astype(np.float32)
        steps = np.rint(filters / scale.reshape(-1, *[1] * (filters.ndim - 1))).astype(np.int8)
        unit = x.scale[0] * scale
        bias = int32_constant(f"m/{name}/bias", np.rint(weights[f"{path}.bias"] / unit), unit)
        if name == "fc":
            pooled = int8_tensor("m/pool/Mean", (1, 3), 0.02, -128)
            axes = int32_constant("m/pool/axes", [1, 2])
            nodes.append(Node("MEAN", schema.ReducerOptionsT(keepDims=False), [x, axes], [pooled]))
            x = pooled
        kind = "Conv2D" if len(shapes[name]) == 4 else "MatMul"
        y = int8_tensor(f"m/{name}/{kind}", shapes[name], 0.02, 3)
        kernel = int8_tensor(f"{y.name}_k", filters.shape, scale, 0, steps)
        if kind == "Conv2D":
            nodes.append(conv_2d(x, kernel, bias, y, strideH=1, strideW=1, padding=1))
        else:
            nodes.append(fully_connected(x, kernel, bias, y))
        x = y
    return load_tflite("golden", build_model(*nodes), {})


def compiled(config: AdapterConfig) -> tuple[LoadedModel, CompiledModel]:
    source = network()
    return source, compile_model(source.name, source.fingerprint, source.graph, config, TrainingConfig())


CASES = {
    "lora": AdapterConfig(r=2, lora_alpha=8, target_modules=("conv", "point", "fc"), modules_to_save=()),
    "rslora_patterns": AdapterConfig(
        r=2,
        lora_alpha=6,
        target_modules=("conv", "point", "fc"),
        modules_to_save=(),
        options=(("use_rslora", True), ("rank_pattern", "fc=3,conv=1"), ("alpha_pattern", "point=5")),
    ),
    "saved_bias_all": AdapterConfig(
        "lora+bitfit",
        r=1,
        lora_alpha=4,
        targets=(("lora", ("conv",)), ("bitfit", ("conv", "point", "fc"))),
        modules_to_save=("head",),
    ),
    "bias_lora_only": AdapterConfig(
        "lora+bitfit", r=1, lora_alpha=1, target_modules=("fc",), modules_to_save=()
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_merged_as_peft_merges(name: str) -> None:
    """The weights before they are rounded: those of PEFT, but for what the base lost when it was quantised."""
    source, model = compiled(CASES[name])
    adapter = read_adapter(GOLDEN / name, model)
    merged = merge_adapter(model, source.tflite, adapter)
    base, expected = load_file(GOLDEN / "base.safetensors"), load_file(GOLDEN / name / "merged.safetensors")
    changed = 0
    for path, layer in LAYERS.items():
        for tensor in ("weight", "bias"):
            wanted, before = expected[f"{path}.{tensor}"], base[f"{path}.{tensor}"]
            if layer not in merged.weights:
                np.testing.assert_array_equal(wanted, before)
                continue
            weights = merged.weights[layer]
            if tensor == "weight":
                wanted, before, found = filters_from_torch(wanted), filters_from_torch(before), weights.filter
            else:
                found = weights.bias
            np.testing.assert_allclose(found, wanted, atol=np.abs(before).max() / 127 * 0.51 + 1e-4)
            changed += not np.allclose(wanted, before)
    assert changed >= 2


def test_patterns_and_rslora_are_written_as_pefts(tmp_path: Path) -> None:
    """Each module has the rank and the scaling that PEFT's own configuration gives it."""
    _, model = compiled(CASES["rslora_patterns"])
    adapter = read_adapter(GOLDEN / "rslora_patterns", model)
    write_adapter(tmp_path / "a", model, adapter.state, adapter.package, {})
    ours, golden = read_peft(tmp_path / "a"), read_peft(GOLDEN / "rslora_patterns")
    assert ours.config.use_rslora
    for path, layer in LAYERS.items():
        if path in golden.tensors:
            assert ours.config.rank(layer) == golden.config.rank(path)
            assert ours.config.scaling(layer) == golden.config.scaling(path)
            for name, tensor in golden.tensors[path].items():
                np.testing.assert_array_equal(ours.tensors[layer][name], tensor)
    assert read_adapter(tmp_path / "a", model).package == adapter.package


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("lora", AdapterConfig(r=1, modules_to_save=()), "rank 2, the project's rank 1"),
        ("lora", AdapterConfig(r=2, modules_to_save=()), "the project trains head, for which the adapter has nothing"),
        ("lora", AdapterConfig(r=2), "the project trains head, for which the adapter has nothing"),
        (
            "saved_bias_all",
            AdapterConfig(r=1, target_modules=("conv",)),
            "module fc has bias; the project trains nothing",
        ),
        (
            "ia3",
            AdapterConfig("ia3", target_modules=("conv", "point", "fc", "head"), modules_to_save=()),
            "the adapter's IA3 scales the inputs of fc, tinypeft scales outputs",
        ),
    ],
)
def test_other_projects_are_refused(name: str, config: AdapterConfig, message: str) -> None:
    with pytest.raises(AdapterError, match=message) as error:
        read_adapter(GOLDEN / name, compiled(config)[1])
    assert error.value.hint

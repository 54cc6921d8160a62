"""The limits of the MLP 64-32-10: the baseline keeps to them, its memory adds up to what the generated C declares."""

from __future__ import annotations

import json
import re
from types import ModuleType

import pytest
from benchmark_scripts import load_benchmark
from small_models import Net

from tinypeft.adapters import AdapterConfig
from tinypeft.codegen import generate_sources
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.frontend import load_tflite
from tinypeft.training import TrainingConfig


@pytest.fixture(scope="module")
def footprint() -> ModuleType:
    return load_benchmark("footprint")


@pytest.fixture(scope="module")
def mlp(footprint: ModuleType) -> CompiledModel:
    """The benchmark's MLP with random weights, trained whole."""
    net = Net((1, 64), 0)
    net.dense("hidden", 32, relu=True)
    net.dense("head", 10)
    source = load_tflite("mlp", net.build(), {})
    adapter: AdapterConfig = footprint.WHOLE.adapter
    return compile_model(source.name, source.fingerprint, source.graph, adapter, TrainingConfig())


def test_the_baseline_keeps_to_the_limits(footprint: ModuleType) -> None:
    baseline = json.loads(footprint.BASELINE.read_text())
    assert footprint.LIMITS["mlp"] == {"training_step": 40_000, "overhead_bytes": 1024}
    for model, limits in footprint.LIMITS.items():
        for figure, limit in limits.items():
            assert baseline[model][figure] <= limit, f"{model}: {figure}"
        figures = baseline[model]
        beside = ("training_tables_bytes", "training_state_bytes", "training_arena_bytes")
        assert figures["overhead_bytes"] == sum(figures[name] for name in beside)


def test_a_step_of_the_mlp_needs_less_than_1_kb_beyond_parameters_and_masters(
    footprint: ModuleType, mlp: CompiledModel
) -> None:
    memory = footprint.training_memory(mlp)
    weights, biases = 64 * 32 + 32 * 10, 32 + 10
    assert (memory.parameters, memory.masters) == (weights + 4 * biases, 4 * (weights + biases))
    assert memory.figures()["overhead_bytes"] <= footprint.LIMITS["mlp"]["overhead_bytes"]


def test_its_parts_add_up_to_what_the_c_declares(footprint: ModuleType, mlp: CompiledModel) -> None:
    """Every member of both structs is counted, and the last byte of the training step's arena."""
    memory, files = footprint.training_memory(mlp), generate_sources(mlp).files
    header, source = files["mlp.h"], files["mlp.c"]
    sizes = {"int8_t": 1, "int16_t": 2, "int32_t": 4, "float": 4}
    members = re.findall(r"^  (\w+) (\w+)\[(\d+)\]; /\*", header, re.MULTILINE)
    declared = sum(sizes[ctype] * int(count) for ctype, _, count in members)
    assert memory.parameters + memory.masters + memory.tables + memory.state == declared
    structs = (int(size) for size in re.findall(r"_(?:ADAPTER|TRAINING)_BYTES (\d+)u", header))
    assert sum(structs) == declared
    arena = source.split(" * training:\n")[1].split(" * evaluate:\n")[0]
    assert memory.arena == max(int(end) for end in re.findall(r"^ \* +\d+\.\.(\d+) ", arena, re.MULTILINE))


def test_nothing_is_kept_that_no_graph_reads(mlp: CompiledModel) -> None:
    """The first layer's gradient ends at its weights: it has no scales for the backward pass, nor any for logits."""
    names = {tensor.name for tensor in [*mlp.adapter_weights, *mlp.training_state]}
    assert {"head_logit_scale", "head_fold_multiplier", "hidden_growth"} <= names
    assert not names & {"hidden_logit_scale", "hidden_fold_multiplier", "hidden_fold_exponent"}

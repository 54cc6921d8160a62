"""What an analysis says is what was compiled: sums, kernels, phases, places and lifetimes of every buffer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from analysed import SCHEMAS, analysed, compiled, validate
from jsonschema import Draft202012Validator, ValidationError
from projects import CONFIGURATIONS, TRAINABLE

from tinypeft.analysis.operations import PHASES
from tinypeft.analysis.report import SCHEMA
from tinypeft.codegen import generate_sources


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_json_is_as_the_schema_says(name: str) -> None:
    content = analysed(name).as_json()
    validate(content, "analysis-1")
    assert content["schema"] == SCHEMA
    assert not _floats({k: v for k, v in content.items() if k != "configuration"}), "sizes and costs are integers"


def _floats(value: Any) -> list[float]:
    if isinstance(value, dict | list):
        return [f for item in (value.values() if isinstance(value, dict) else value) for f in _floats(item)]
    return [value] if isinstance(value, float) else []


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*.json")), ids=lambda path: path.name)
def test_schemas_are_closed(path: Any) -> None:
    """Every object lists its keys, all of them required, unless it says that further ones may join."""
    document = json.loads(path.read_text())
    Draft202012Validator.check_schema(document)

    def check(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object" and "may join" not in node.get("description", ""):
                assert node["additionalProperties"] is False and node["required"] == list(node["properties"])
            for child in node.values():
                check(child)
        elif isinstance(node, list):
            for child in node:
                check(child)

    check(document)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(schema="tinypeft.analysis/2"),
        lambda content: content["totals"].pop("macs"),
        lambda content: content["totals"].update(macs=1.5),
        lambda content: content["graphs"][0]["operations"][0].update(cycles=3),
        lambda content: content["graphs"][0]["buffers"][0].update(offset=-4),
    ],
)
def test_the_schema_refuses_what_is_no_analysis(change: Any) -> None:
    content = analysed("plain").as_json()
    change(content)
    with pytest.raises(ValidationError):
        validate(content, "analysis-1")


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_operations_are_those_of_the_graphs(name: str) -> None:
    model, analysis = compiled(name), analysed(name)
    assert [g.name for g in analysis.graphs] == [g.name for g in model.graphs]
    kernels = generate_sources(model).kernels
    for graph, facts in zip(model.graphs, analysis.graphs, strict=True):
        assert [op.name for op in facts.operations] == [op.name for op in graph.operations]
        assert [op.index for op in facts.operations] == list(range(len(graph.operations)))
        assert facts.macs == sum(op.op.macs(op) for op in graph.operations)
        for op, row in zip(graph.operations, facts.operations, strict=True):
            call = op.kernel.call if op.kernel is not None else op.op.call(op)
            assert row.kernel.function == (call.function if call else None) and row.kernel.reason
            assert row.kernel.source is None or row.kernel.source in kernels
            frozen = {id(t): t.nbytes for t in op.inputs.values() if t.data is not None}
            assert row.weight_bytes == sum(frozen.values())
            assert row.result.shape == op.output.shape and row.result.bytes == op.output.nbytes


@pytest.mark.parametrize("name", TRAINABLE)
def test_phases_follow_each_other(name: str) -> None:
    """One loss; before it forward operations, and what an optimiser does once; what changes state is an update."""
    training = analysed(name).graph("training")
    assert training is not None
    phases = [op.phase for op in training.operations]
    assert phases.count("loss") == 1 and set(phases) <= set(PHASES)
    before = training.operations[: phases.index("loss")]
    assert {op.phase for op in before if op.kind != "ADAM_STEP"} == {"forward"}
    assert "update" in phases and ("backward" in phases or name == "classifier_only")
    for op in training.operations:
        state = op.result.purpose in ("master", "optimizer_state", "adapter_weight")
        assert (op.phase == "update") == state, op


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_buffers_are_those_of_the_plan(name: str) -> None:
    """No two that are live at once overlap; at the peak exactly the lower bound is live, nowhere more."""
    model, analysis = compiled(name), analysed(name)
    for facts in analysis.graphs:
        plan = model.arena.plans[facts.name]
        assert len(facts.buffers) == len(plan.buffers)
        for buffer in facts.buffers:
            assert 0 <= buffer.offset and buffer.offset + buffer.bytes <= facts.arena_bytes
            assert all(buffer.offset <= t.offset <= buffer.offset + buffer.bytes - t.bytes for t in buffer.tensors)
            assert all(plan.offset_of(t.name) == t.offset for t in buffer.tensors)
            assert (buffer.purpose == "scratch") == (not buffer.tensors)
            for other in facts.buffers:
                together = buffer.first <= other.last and other.first <= buffer.last
                apart = buffer.offset + buffer.bytes <= other.offset or other.offset + other.bytes <= buffer.offset
                assert buffer is other or apart or not together
        if facts.peak is None:
            assert not facts.buffers
            continue
        times = range(len(facts.operations) + 1)
        live = [sum(b.bytes for b in facts.buffers if b.first <= time <= b.last) for time in times]
        assert facts.peak.bytes == facts.lower_bound == max(live)
        assert sum(b.bytes for b in facts.buffers if b.name in facts.peak.live) == facts.peak.bytes
        assert facts.peak.operation == facts.operations[facts.peak.index].name
        assert facts.optimal == (facts.gap <= 0) and facts.lower_bound <= facts.bound <= facts.arena_bytes
        assert facts.method and facts.proof


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_totals(name: str) -> None:
    model, analysis = compiled(name), analysed(name)
    totals, ram = analysis.totals, analysis.memory.ram
    assert totals.arena_bytes == model.arena.arena_bytes >= max(g.arena_bytes for g in analysis.graphs)
    assert totals.macs == analysis.graphs[0].macs
    assert totals.trainable_parameters == sum(p.master.size for p in model.parameters)
    assert (totals.training_macs > 0) == (name in TRAINABLE) == (totals.package_bytes > 0)
    assert ram.bytes == sum(part.bytes for part in ram.parts)
    assert {p.name: p.bytes for p in ram.parts if p.basis == "exact"} == {
        name: size
        for name, size in [
            ("arena", model.arena.arena_bytes),
            ("adapter", model.adapter_bytes),
            ("optimizer", model.training_bytes),
            ("target", model.target_bytes),
            ("replay", model.replay_bytes),
            ("stack", 4096),
        ]
        if size
    }
    assert sum(part.bytes for part in analysis.memory.arena) == totals.arena_bytes
    assert analysis.board is not None
    assert sum(use.used for use in analysis.board.memories if use.kind == "ram") == ram.bytes


def test_reasons_name_what_decides() -> None:
    """The operators' kinds, a LoRA, trained scales, a view, a buffer taken over."""
    inference = analysed("residual").graph("inference")
    assert inference is not None
    reasons = {op.name: op.kernel.reason for op in inference.operations}
    assert "adds LoRA r=3" in reasons["branch_a"] and "int8" in reasons["branch_a"]
    assert "scales change with training" in reasons["head"]
    assert reasons["flat"].startswith("nothing runs: a view of")
    assert any("over " in reason for reason in reasons.values())
    assert {op.kernel.backend for op in inference.operations} == {"dsp", "portable", None}
    assert "rows as they lie" in reasons["head"]
    assert any("dsp: no kernel for" in reason for reason in reasons.values())

"""verify() after every stage: planted faults are found, with stage and operation; compile runs it everywhere."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from small_models import load

import tinypeft.compiler
from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.errors import VerifyError
from tinypeft.ir import Graph, Tensor, verify
from tinypeft.stages.autodiff import TrainingConfig


def compiled() -> CompiledModel:
    source = load("plain")
    return compile_model("plain", source.fingerprint, source.graph, AdapterConfig(), TrainingConfig())


def _index(graph: Graph, kind: str) -> int:
    return next(i for i, op in enumerate(graph.operations) if op.kind == kind)


def _swap(graph: Graph) -> None:
    i = _index(graph, "SOFTMAX_CROSS_ENTROPY")
    graph.operations[i], graph.operations[i + 1] = graph.operations[i + 1], graph.operations[i]


def _drop(graph: Graph) -> None:
    del graph.operations[_index(graph, "LORA_DOWN")]


def _repeat(graph: Graph) -> None:
    graph.operations.append(graph.operations[_index(graph, "LORA_DOWN")])


def _compute_twice(graph: Graph) -> None:
    graph.operations[_index(graph, "DEPTHWISE_CONV_2D")].outputs["output"] = graph.operations[
        _index(graph, "CONV_2D")
    ].output


def _lose_operand(graph: Graph) -> None:
    del graph.operations[_index(graph, "UPDATE_ROWS")].inputs["d_output"]


def _invent_operand(graph: Graph) -> None:
    op = graph.operations[_index(graph, "CONV_2D")]
    op.inputs["nonsense"] = op.inputs["input"]


def _reshape(graph: Graph) -> None:
    graph.operations[_index(graph, "CONV_2D")].output.shape = (1, 4, 4, 7)


def _rename(graph: Graph) -> None:
    graph.operations[_index(graph, "CONV_2D")].output.name = "input"


def _retype(graph: Graph) -> None:
    graph.operations[_index(graph, "CONV_2D")].output.dtype = "int5"


def _lose_output(graph: Graph) -> None:
    graph.outputs = [Tensor("elsewhere", (1,), "float32", graph.outputs[0].purpose)]


def _shrink_data(graph: Graph) -> None:
    weights = graph.operations[_index(graph, "DEPTHWISE_CONV_2D")].inputs["filter"]
    weights.data = weights.data[:, :2]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (_swap, r"late: .* reads d_logits before it is computed"),
        (_drop, r"late: .*CONV_2D\(.* reads stem_hidden before it is computed"),
        (_repeat, "late: two operations of training are called stem_lora_down"),
        (_compute_twice, r"late: dw: DEPTHWISE_CONV_2D.* computes stem_out a second time"),
        (_lose_operand, r"late: .*UPDATE_ROWS.* lacks \['d_output'\]"),
        (_invent_operand, r"late: stem: CONV_2D.* unknown operands \['nonsense'\]"),
        (_reshape, r"late: stem: CONV_2D.* gives \(1, 4, 4, 7\), its rule says \(1, 4, 4, 6\)"),
        (_rename, "late: two tensors of training are called input"),
        (_retype, "late: stem_out has unknown dtype int5"),
        (_lose_output, "late: output elsewhere of training is never computed"),
        (_shrink_data, "late: dw_kernel holds data of shape"),
    ],
)
def test_planted_faults(fault: Callable[[Graph], None], message: str) -> None:
    graph = compiled().training
    assert graph is not None and verify(graph, "late") is graph
    fault(graph)
    with pytest.raises(VerifyError, match=message):
        verify(graph, "late")


@pytest.mark.parametrize(
    ("stage", "fault", "message"),
    [
        ("insert_adapters", lambda result: result.graph.operations.reverse(), "^insert: "),
        ("schedule", lambda result: result.operations.reverse(), "^schedule: "),
        ("differentiate", lambda result: result[0].operations.reverse(), "^differentiate: "),
    ],
)
def test_a_faulty_stage_is_named(
    monkeypatch: pytest.MonkeyPatch, stage: str, fault: Callable[[object], None], message: str
) -> None:
    original = getattr(tinypeft.compiler, stage)

    def faulty(*arguments: object) -> object:
        result = original(*arguments)
        fault(result)
        return result

    monkeypatch.setattr(tinypeft.compiler, stage, faulty)
    with pytest.raises(VerifyError, match=message):
        compiled()

"""attach_logits: what the loss reads, for every way in which a model may end."""

from __future__ import annotations

import numpy as np
import pytest
from small_models import Net, load, samples

from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import compile_model
from tinypeft.errors import AdapterError, ModelError
from tinypeft.frontend import load_tflite
from tinypeft.interpreter import run_graph
from tinypeft.ir import verify
from tinypeft.losses import LOSSES
from tinypeft.ops.weighted import filter_scales, input_scale
from tinypeft.stages.autodiff import TrainingConfig
from tinypeft.stages.logits import attach_logits


@pytest.mark.parametrize(
    ("name", "kind", "classes"),
    [
        ("plain", "DENSE_LOGITS", 5),
        ("softmax_end", "DENSE_LOGITS", 3),
        ("dense_reshape", "DENSE_LOGITS", 4),
        ("float_edges", "DENSE_LOGITS", 4),
        ("conv_mean", "OUTPUT_LOGITS", 4),
    ],
)
def test_ends_of_models(name: str, kind: str, classes: int) -> None:
    source = load(name)
    graph, logits = attach_logits(source.graph)
    verify(graph, "logits")
    operation = graph.producer(logits)
    assert operation is not None and operation.kind == kind
    assert graph.outputs[-1] is logits and graph.outputs[:-1] == source.graph.outputs
    assert logits.shape == (1, classes) and logits.dtype == "int32" and logits.scale is not None
    assert len(graph.operations) == len(source.graph.operations) + 1

    for x in samples(source, 5).x:
        values = {}
        outputs = run_graph(
            graph, {graph.inputs[0].name: x}, {}, lambda op, _, t, v, kept=values: kept.setdefault(t.name, v)
        )
        final = next(op for op in source.graph.operations if op.layer == operation.layer)
        assert final.output.scale is not None
        int8 = (values[final.output.name].astype(np.float64) - final.output.zero_point) * final.output.scale[0]
        real = outputs[-1] * float(logits.scale[0])
        step = final.output.scale[0] * (0.51 if kind == "DENSE_LOGITS" else 1e-4)
        inside = np.abs(values[final.output.name].astype(int)) < 127
        assert np.abs(real - int8)[inside].max(initial=0) <= step
        if kind == "DENSE_LOGITS":
            acc = (
                final.inputs["filter"].data.astype(np.int64)
                @ (values[final.inputs["input"].name].reshape(-1).astype(np.int64) - final.inputs["input"].zero_point)
                + final.inputs["bias"].data
            )
            exact = acc * (input_scale(final) * filter_scales(final)).astype(np.float64)
            assert (np.abs(real[0] - exact) <= 0.5 * float(logits.scale[0])).all(), "rounded once"


def test_a_classifier_with_an_activation_gives_its_int8_output() -> None:
    net = Net((1, 6), 1)
    net.dense("head", 3, relu=True)
    graph, logits = attach_logits(load_tflite("relu", net.build(), {}).graph)
    assert graph.producer(logits).kind == "OUTPUT_LOGITS"


def test_a_map_of_classes_is_refused() -> None:
    """By a loss against labels; one against vectors takes every element."""
    net = Net((1, 6, 6, 2), 1)
    net.conv("segment", 3)
    _, logits = attach_logits(load_tflite("map", net.build(), {}).graph, classes=False)
    assert logits.shape == (1, 6, 6, 3)
    with pytest.raises(
        ModelError, match=r"segment cannot be trained against labels: its output has shape \(1, 6, 6, 3\)"
    ):
        attach_logits(load_tflite("map", net.build(), {}).graph)


def test_what_a_loss_contains_is_passed_over() -> None:
    """BINARY_CROSS_ENTROPY reads the logits in front of a LOGISTIC, MEAN_SQUARED_ERROR the output of a SOFTMAX."""
    net = Net((1, 6), 1)
    net.dense("head", 3)
    net.function("probability", "LOGISTIC", 1 / 256, -128)
    graph, logits = attach_logits(
        load_tflite("binary", net.build(), {}).graph, LOSSES["binary_cross_entropy"].passed_over
    )
    assert graph.producer(logits).kind == "DENSE_LOGITS"
    graph, logits = attach_logits(load("softmax_end").graph, LOSSES["mean_squared_error"].passed_over, classes=False)
    assert graph.producer(logits).inputs["input"] is graph.outputs[0]
    assert graph.producer(graph.outputs[0]).kind == "SOFTMAX"


def test_a_retrained_layer_must_give_the_logits() -> None:
    source = load("softmax_end")
    training = TrainingConfig(loss="mean_squared_error", target="vector")
    with pytest.raises(AdapterError, match="head cannot be retrained: the loss reads what .*, a SOFTMAX"):
        compile_model("m", source.fingerprint, source.graph, AdapterConfig(modules_to_save=("head",)), training)

"""What merging changed of the outputs: device and merged model on the same samples, in LiteRT and the interpreter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinypeft.adapter_state import AdapterLike
from tinypeft.compiler import CompiledModel
from tinypeft.data import Dataset
from tinypeft.frontend import read_tflite
from tinypeft.interpreter import run_graph
from tinypeft.ir import Graph
from tinypeft.oracle import LiteRtOracle
from tinypeft.personalise import Outputs, Quality, outputs_of, quality


@dataclass(frozen=True)
class MergeCheck:
    """`samples` through the base with its adapter, as a device computes it, and through the merged model.

    unmerged, merged        accuracy or mean squared error; `merged` is LiteRT's
    agreement               share of samples for which both decide the same; None where the loss decides nothing
    largest_difference, mean_difference
                            of the outputs, in steps of int8, or real where they are float32
    interpreter_is_litert   whether tinypeft's interpreter gives LiteRT's bits for the merged model
    """

    samples: int
    unmerged: Quality
    merged: Quality
    agreement: float | None
    largest_difference: float
    mean_difference: float
    interpreter_is_litert: bool


def check_merged(model: CompiledModel, adapter: AdapterLike, tflite: bytes, dataset: Dataset) -> MergeCheck:
    """Compare the outputs for `dataset`; ModelError where LiteRT's reference kernels lack an operator."""
    graph = read_tflite(tflite)
    unmerged = _run(model, model.inference, dict(adapter.state), dataset.x)
    ours = _run(model, graph, {}, dataset.x)
    litert = LiteRtOracle(tflite).outputs(dataset.x)
    merged = outputs_of(model, [litert[i : i + 1] for i in range(len(litert))], None, graph.outputs[0])
    difference = np.abs(unmerged.outputs.astype(np.float64) - merged.outputs.astype(np.float64))
    agreement = None
    if model.loss.classifies and model.target is not None:
        agreement = float(np.mean(_decisions(unmerged, model) == _decisions(merged, model)))
    return MergeCheck(
        len(dataset),
        quality(model, unmerged, dataset.x, dataset.y),
        quality(model, merged, dataset.x, dataset.y),
        agreement,
        float(difference.max()),
        float(difference.mean()),
        bool(np.array_equal(ours.outputs, merged.outputs)),
    )


def _run(model: CompiledModel, graph: Graph, state: dict[str, np.ndarray], x: np.ndarray) -> Outputs:
    name = graph.inputs[0].name
    values = [run_graph(graph, {name: sample}, state) for sample in x]
    logits = [value[1] for value in values] if len(graph.outputs) > 1 else None
    return outputs_of(model, [value[0] for value in values], logits, graph.outputs[0])


def _decisions(outputs: Outputs, model: CompiledModel) -> np.ndarray:
    """The class of each sample (N,), or the yes or no of each output (N, outputs)."""
    if model.target is not None and model.target.shape:
        return outputs.scores > outputs.threshold
    return outputs.scores.argmax(1)

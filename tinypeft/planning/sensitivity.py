"""How much each layer could contribute: a model and samples in, the score of every layer and choice out.

The model is the empirical Fisher information: a choice scores the mean over samples of the sum of the squared
gradients of the loss with respect to what it trains. With plain SGD that is by how much a step lowers the loss of its
sample, per unit of the learning rate, so that scores of different kinds and layers compare and add up.

One backward pass a sample of the integer training graph gives `d`, the gradient at the accumulators of every layer, in
real units; the rest follows from it and the layer's input x and output y:
- bitfit, of a bias: d summed over positions; ia3, of a factor: d * y summed over positions
- retrained, sparse rows: G = d^T x, over positions and taps, and the bias
- lora of rank r: the r largest eigenvalues of the mean of G G^T, the squared singular values of all samples' gradients
  side by side: the most that r directions of the output can catch. A fresh B of zero hides A's gradient, so that
  gradients of A and B themselves would tell nothing.

Without labels the model's own decisions are the labels; the scores then say to which parameters it is sensitive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tinypeft.adapters import ADAPTERS, AdapterConfig
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.data import Dataset
from tinypeft.errors import AdapterError, DataError
from tinypeft.frontend import LoadedModel
from tinypeft.interpreter import run_graph
from tinypeft.ir import Operation, Tensor
from tinypeft.losses import target_argument
from tinypeft.ops.base import Value
from tinypeft.ops.fully_connected import dense_window
from tinypeft.ops.weighted import group_count
from tinypeft.ops.window import Window
from tinypeft.training import TrainingConfig

Progress = Callable[[str, int, int], None]

#: What shows the gradient at a layer's accumulators, the first that accepts the layer.
_PROBES = ("bitfit", "ia3")


@dataclass(eq=False)
class LayerGradients:
    """Sums over samples of squared gradients of one operation's parameters.

    bias, factor, rows: (Cout,), those of the filter summed over a row; gram (Cout, Cout): the sum of G G^T, None where
    the filter is no matrix.
    """

    operation: Operation
    bias: np.ndarray
    factor: np.ndarray
    rows: np.ndarray
    gram: np.ndarray | None

    def of_rank(self, r: int) -> float:
        """What r directions of the output catch of the filter's gradients."""
        assert self.gram is not None
        return float(np.maximum(np.linalg.eigvalsh(self.gram)[::-1][:r], 0).sum())


def probe_model(source: LoadedModel, operations: list[Operation], training: TrainingConfig) -> CompiledModel:
    """`source` compiled so that a training step computes the gradients at all of `operations`."""
    targets: dict[str, list[str]] = {}
    for op in operations:
        kind = next(kind for kind in _PROBES if ADAPTERS[kind].refuses(op) is None)
        targets.setdefault(kind, []).append(op.layer)
    config = AdapterConfig(
        "+".join(targets), modules_to_save=(), targets=tuple((k, tuple(dict.fromkeys(v))) for k, v in targets.items())
    )
    plain = TrainingConfig(
        loss=training.loss,
        target=training.target,
        label_smoothing=training.label_smoothing,
        class_weights=training.class_weights,
    )
    return compile_model(source.name, source.fingerprint, source.graph, config, plain)


def measure_gradients(
    probe: CompiledModel, operations: list[Operation], dataset: Dataset, progress: Progress = lambda *_: None
) -> list[LayerGradients]:
    """The sums of every operation over all samples, from the fresh adapter of `probe` each time.

    Raises DataError where the loss compares with vectors and the samples have none.
    """
    training = probe.training
    assert training is not None
    y = dataset.y if dataset.y is not None or probe.target is None else own_labels(probe, dataset.x)
    fresh = probe.fresh_state(0)
    places = {op.name: _gradient_tensor(probe, op) for op in operations}
    logits = next((op.output for op in training.operations if op.kind == "DENSE_LOGITS"), None)
    sums = [_zeros(op) for op in operations]
    for number, sample in enumerate(dataset.x):
        values: dict[str, Value] = {training.inputs[0].name: sample}
        target = target_argument(probe.target, None if y is None else y[number])
        arguments = {training.inputs[0].name: sample, **target, "learning_rate": np.float32(0)}

        def keep(op: Operation, name: str, tensor: Tensor, value: Value, kept: dict[str, Value] = values) -> None:
            kept[tensor.name] = value

        run_graph(training, arguments, dict(fresh), keep)
        for layer in sums:
            _add(layer, values, places[layer.operation.name], logits)
        progress("gradients", number + 1, len(dataset.x))
    for layer in sums:
        for name in ("bias", "factor", "rows", "gram"):
            total = getattr(layer, name)
            setattr(layer, name, None if total is None else total / len(dataset.x))
    return sums


def own_labels(model: CompiledModel, x: np.ndarray) -> np.ndarray:
    """The labels that the fresh model decides for: the largest output of each sample."""
    if model.target is not None and model.target.shape:
        raise DataError(f"{model.name} is trained against vectors, of which the samples have none", "--data F.npz:X:Y")
    state, graph = model.fresh_state(0), model.inference
    outputs = [run_graph(graph, {graph.inputs[0].name: sample}, dict(state))[0] for sample in x]
    return np.array([int(np.argmax(output)) for output in outputs], np.int64)


def _gradient_tensor(probe: CompiledModel, operation: Operation) -> Tensor:
    """The gradient at the accumulators, which the probe's update reads."""
    assert probe.training is not None
    masters = {f"{operation.name}_bias_master", f"{operation.name}_ia3_l_master"}
    for op in probe.training.operations:
        if op.kind == "UPDATE_ROWS" and op.inputs["master"].name in masters:
            return op.inputs["d_output"]
    raise AdapterError(f"no gradient reaches {operation.layer}", "leave it out")


def _zeros(op: Operation) -> LayerGradients:
    channels = op.output.shape[-1]
    matrix = op.kind in ("CONV_2D", "FULLY_CONNECTED")
    bias, factor, rows = (np.zeros(channels) for _ in range(3))
    return LayerGradients(op, bias, factor, rows, np.zeros((channels, channels)) if matrix else None)


def _add(layer: LayerGradients, values: dict[str, Value], gradient: Tensor, logits: Tensor | None) -> None:
    op = layer.operation
    block = values[gradient.name]
    d = np.ldexp(block.mantissa.astype(np.float64), block.exponent).reshape(-1, len(layer.bias))
    layer.bias += d.sum(0) ** 2
    layer.factor += (d * _real_output(op, values, logits).reshape(d.shape)).sum(0) ** 2
    if op.kind == "TRANSPOSE_CONV":
        return
    x = _real(op.inputs["input"], values[op.inputs["input"].name])
    window: Window = op.attributes.get("window") or dense_window(op)
    patches = window.patches(x).reshape(len(d), -1, window.input_c)
    if op.kind == "DEPTHWISE_CONV_2D":
        spread = np.repeat(patches, window.output_c // window.input_c, axis=-1)
        layer.rows += (np.einsum("pc,ptc->ct", d, spread) ** 2).sum(1)
        return
    groups = group_count(window, op.inputs["filter"])
    columns = patches.reshape(len(d), -1, groups, window.input_c // groups)
    each = window.output_c // groups
    for group in range(groups):
        rows = slice(group * each, (group + 1) * each)
        matrix = d[:, rows].T @ columns[:, :, group].reshape(len(d), -1)
        layer.rows[rows] += (matrix**2).sum(1)
        assert layer.gram is not None
        layer.gram[rows, rows] += matrix @ matrix.T


def _real(tensor: Tensor, value: np.ndarray) -> np.ndarray:
    assert tensor.scale is not None
    return (value.astype(np.float64) - tensor.zero_point) * float(tensor.scale[0])


def _real_output(op: Operation, values: dict[str, Value], logits: Tensor | None) -> np.ndarray:
    """The layer's output; training computes of a final dense layer its logits alone."""
    if op.output.name in values:
        return _real(op.output, values[op.output.name])
    assert logits is not None
    return _real(logits, values[logits.name])

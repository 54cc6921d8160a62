"""Scores are squared gradients: those that training itself follows, of every kind and layer."""

from __future__ import annotations

import numpy as np
import pytest
from planned import setting, shifted
from small_models import load

from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import compile_model
from tinypeft.data import Dataset
from tinypeft.errors import DataError
from tinypeft.interpreter import run_graph
from tinypeft.planning.candidates import adaptable_operations
from tinypeft.planning.sensitivity import LayerGradients, measure_gradients, own_labels, probe_model
from tinypeft.training import TrainingConfig

RATE = np.float32(2.0**-6)
MODELS = ("plain", "residual", "mlp", "no_bias", "forms")


def gradients(name: str, dataset: Dataset) -> list[LayerGradients]:
    graph = load(name).graph
    operations = adaptable_operations(graph, ("SOFTMAX",), classes=True)
    return measure_gradients(probe_model(load(name), operations, TrainingConfig()), operations, dataset)


def one_sample(name: str) -> Dataset:
    dataset = shifted(name)
    assert dataset.y is not None
    return Dataset(dataset.x[:1], dataset.y[:1])


def steps_of(name: str, config: AdapterConfig) -> dict[str, np.ndarray]:
    """The gradient that one step of SGD on the first sample follows, by master."""
    source, dataset = load(name), one_sample(name)
    model = compile_model(name, source.fingerprint, source.graph, config, TrainingConfig())
    assert model.training is not None and dataset.y is not None
    state = model.fresh_state(0)
    before = {p.master.name: state[p.master.name].astype(np.float64) for p in model.parameters}
    arguments = {source.graph.inputs[0].name: dataset.x[0], "label": np.int32(dataset.y[0]), "learning_rate": RATE}
    run_graph(model.training, arguments, state)
    return {key: (value - state[key].astype(np.float64)) / float(RATE) for key, value in before.items()}


def close(found: float, expected: float, whole: float) -> bool:
    """Gradients have 15 bits, of which sums over positions lose some."""
    return abs(found - expected) <= 0.03 * expected + 1e-3 * whole


@pytest.mark.parametrize("name", MODELS)
def test_channels_score_what_training_follows(name: str) -> None:
    measured = {each.operation.name: each for each in gradients(name, one_sample(name))}
    for kind, master, attribute in (("bitfit", "bias_master", "bias"), ("ia3", "ia3_l_master", "factor")):
        steps = steps_of(name, AdapterConfig(kind, modules_to_save=()))
        whole = max(float((step**2).sum()) for step in steps.values())
        assert whole > 0
        for op, each in measured.items():
            if kind == "ia3" and op == load(name).graph.operations[-1].name:
                continue  # its logits are then the int8 output, and the gradient another
            expected = float((steps[f"{op}_{master}"] ** 2).sum())
            assert close(float(getattr(each, attribute).sum()), expected, whole), (kind, op)


@pytest.mark.parametrize("name", MODELS)
def test_rows_score_what_training_follows(name: str) -> None:
    measured = {each.operation.name: each for each in gradients(name, one_sample(name))}
    steps = steps_of(name, AdapterConfig("sparse", modules_to_save=(), options=(("density", 1.0),)))
    rows = {key: step for key, step in steps.items() if key.endswith("rows_master")}
    whole = max(float((step**2).sum()) for step in rows.values())
    assert whole > 0 and rows
    for key, step in rows.items():
        found = measured[key.removesuffix("_sparse_rows_master")].rows
        expected = (step.reshape(len(found), -1) ** 2).sum(1)
        assert close(float(found.sum()), float(expected.sum()), whole), key
        assert np.allclose(found, expected, rtol=0.1, atol=2e-3 * max(whole, float(expected.sum()))), key


def test_ranks_score_singular_values() -> None:
    each = next(e for e in gradients("mlp", one_sample("mlp")) if e.operation.layer == "head")
    step = steps_of("mlp", AdapterConfig("modules_to_save", modules_to_save=("head",)))
    kernel = next(value for key, value in step.items() if key.endswith("kernel_master"))
    values = np.linalg.svd(kernel, compute_uv=False) ** 2
    for r in (1, 2, 4):
        assert each.of_rank(r) == pytest.approx(values[:r].sum(), rel=0.02)
    many = gradients("mlp", shifted("mlp"))
    for layer in many:
        by_rank = [layer.of_rank(r) for r in (1, 2, 4, 8)]
        assert by_rank == sorted(by_rank) and by_rank[-1] <= layer.rows.sum() * (1 + 1e-9)


def test_without_labels_its_own_decisions_count() -> None:
    dataset = shifted("plain")
    assert dataset.y is not None
    probe = probe_model(load("plain"), adaptable_operations(load("plain").graph, (), classes=True), TrainingConfig())
    classes = load("plain").graph.outputs[0].size
    assert (own_labels(probe, dataset.x) == (dataset.y - 1) % classes).all()


def test_vectors_have_no_decisions() -> None:
    training = TrainingConfig(loss="mean_squared_error", target="vector")
    source = setting("autoencoder").source
    operations = adaptable_operations(source.graph, (), classes=False)
    with pytest.raises(DataError, match="trained against vectors, of which the samples have none"):
        measure_gradients(
            probe_model(source, operations, training), operations, Dataset(shifted("autoencoder").x, None)
        )

"""`tinypeft.Model`: what commands do, in Python, without a board and, on the interpreter, without a compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_models

import tinypeft
from tinypeft import Model
from tinypeft.errors import AdapterError, DataError, ModelError
from tinypeft.frontend import read_tflite
from tinypeft.schedule import scheduled


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("model") / "plain.tflite"
    path.write_bytes(small_models.model_bytes("plain"))
    return Model.load(path)


@pytest.fixture(scope="module")
def lora(base: Model) -> Model:
    return base.attach("lora", r=2, lora_alpha=4, momentum=0.5)


@pytest.fixture(scope="module")
def samples(base: Model) -> tuple[np.ndarray, np.ndarray]:
    dataset = small_models.samples(base.source, 30)
    assert dataset.y is not None
    return dataset.x, dataset.y


def test_import_is_light() -> None:
    code = "import sys, tinypeft; print([m for m in ('numpy', 'tinypeft.api', 'ai_edge_litert') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
    assert tinypeft.Model is Model and set(tinypeft.__all__) == {"Model", "__version__"}
    with pytest.raises(AttributeError, match="has no attribute Modell"):
        _ = tinypeft.Modell


def test_attach_is_a_configuration(base: Model, lora: Model) -> None:
    assert base.compiled.training is None and lora.compiled.training is not None
    assert (lora.adapter.r, lora.adapter.lora_alpha, lora.training.momentum) == (2, 4.0, 0.5)
    assert "stem" in base.layers and "head" in base.layers
    targets = {"sparse": ["head"], "lora": "stem"}
    both = base.attach("lora+sparse", r=2, targets=targets, modules_to_save=[], density=0.5)
    assert both.compiled.adapted_by == {"stem": ["lora"], "head": ["sparse"]}
    vectors = base.attach("bitfit", modules_to_save=[], loss="mean_squared_error")
    assert vectors.training.target == "vector"


@pytest.mark.parametrize(
    ("kinds", "settings", "message"),
    [
        ("lorra", {}, "there is no adapter kind lorra"),
        ("lora", {"densty": 1}, "no adapter kind has an option densty"),
        ("lora", {"target_modules": ["stemm"]}, "matches no layer that lora can adapt"),
        ("lora", {"momentum": 2.0}, "momentum is 2, it must be at least 0 and below 1"),
        ("lora", {"loss": "none"}, "there is no loss none"),
        ("lora", {"r": 0}, "r is 0, the limits are 1 and 256"),
    ],
)
def test_attach_refuses(base: Model, kinds: str, settings: dict, message: str) -> None:
    with pytest.raises(AdapterError, match=message) as error:
        base.attach(kinds, **settings)
    assert error.value.hint


def test_interpreter_and_host_train_the_same_adapter(lora: Model, samples: tuple[np.ndarray, np.ndarray]) -> None:
    settings = {"epochs": 2, "learning_rate": 0.02, "schedule": "cosine", "warmup": 0.2, "seed": 4, "train_split": 0.3}
    interpreted = lora.train(*samples, on="interpreter", **settings)
    on_host = lora.train(*samples, on="host", **settings)
    assert interpreted.package == on_host.package and interpreted.losses == on_host.losses
    assert interpreted.accuracy_after == on_host.accuracy_after is not None
    plain = lora.train(*samples, on="interpreter", **(settings | {"schedule": "constant", "warmup": 0.0}))
    assert plain.package != interpreted.package
    assert scheduled(0.02, "cosine", 0.2, 0.0, 10).warmup_steps == 2
    evaluated = [lora.evaluate(*samples, on_host, on=on) for on in ("interpreter", "host")]
    np.testing.assert_array_equal(evaluated[0].outputs.outputs, evaluated[1].outputs.outputs)
    assert evaluated[0].accuracy == evaluated[1].accuracy and evaluated[0].error is None
    fresh = lora.evaluate(*samples, on="interpreter")
    assert fresh.outputs.sha256 != evaluated[0].outputs.sha256


def test_test_samples_measure_what_all_of_x_teach(lora: Model, samples: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = samples
    trained = lora.train(x[:10], y[:10], on="interpreter", epochs=1, test=(x[10:], y[10:]))
    assert trained.steps == 10
    assert trained.accuracy_after == lora.evaluate(x[10:], y[10:], trained, on="interpreter").accuracy
    further = lora.train(x[:10], y[:10], on="interpreter", epochs=1, test=(x[10:], y[10:]), adapter=trained)
    assert further.accuracy_before == trained.accuracy_after and further.package != trained.package
    with pytest.raises(DataError, match="exclude each other"):
        lora.train(x, y, on="interpreter", shots=1, test=(x, y))


def test_merge_export_and_import(lora: Model, samples: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    x, y = samples
    trained = lora.train(x, y, on="interpreter", epochs=2)
    lora.export(trained, tmp_path / "adapter", user="me")
    for given in (tmp_path / "adapter", tmp_path / "adapter" / "adapter.bin", trained.package):
        assert lora.import_adapter(given).package == trained.package
    report = lora.merge(tmp_path / "adapter", tmp_path / "merged.tflite", x=x, y=y)
    assert report.check is not None and report.check.interpreter_is_litert and report.check.largest_difference <= 3
    assert report.check.unmerged.accuracy == lora.evaluate(x, y, trained, on="interpreter").accuracy
    assert {layer.layer for layer in report.layers} == {p.layer for p in lora.compiled.parameters}
    merged = Model.load(tmp_path / "merged.tflite")
    kinds = [op.kind for op in lora.source.graph.operations]
    assert [op.kind for op in read_tflite(merged.source.tflite).operations] == kinds
    with pytest.raises(AdapterError, match="was not made from a Keras model"):
        lora.merge(trained, tmp_path / "other.tflite", keras=tmp_path / "other.keras")
    assert not (tmp_path / "other.tflite").exists()


def test_generate_and_open(lora: Model, samples: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    generated = lora.generate("host", tmp_path / "project")
    assert generated.report is not None and generated.report.arena_bytes == generated.compiled.arena.arena_bytes
    opened = Model.open(tmp_path / "project")
    assert opened.adapter == lora.adapter and opened.training == lora.training
    one = opened.train(*samples, epochs=1, seed=1)
    assert one.package == lora.train(*samples, epochs=1, seed=1, on="interpreter").package


def test_what_does_not_fit_is_refused(base: Model, lora: Model, samples: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = samples
    with pytest.raises(AdapterError, match="was generated without adapters"):
        base.train(x, y, on="interpreter")
    with pytest.raises(AdapterError, match=r"no firmware to run on qemu") as error:
        lora.evaluate(x, y, on="qemu")
    assert error.value.hint is not None and "generate" in error.value.hint
    with pytest.raises(DataError, match=r"samples given have shape \(30, 2\), the model takes"):
        lora.evaluate(x.reshape(30, -1)[:, :2], y, on="interpreter")
    with pytest.raises(DataError, match="the model has classes 0 to 4"):
        lora.evaluate(x, y + 5, on="interpreter")
    with pytest.raises(AdapterError, match="no adapter package"):
        lora.evaluate(x, y, b"none", on="interpreter")
    with pytest.raises(ModelError, match="does not exist"):
        Model.load("none.tflite")

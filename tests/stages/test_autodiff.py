"""The training graph: pruned to what the adapters need, masks where only the clamp is needed, batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from projects import CONFIGURATIONS
from small_models import MODELS, learning_rate, load, samples

from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.errors import AdapterError, ModelError
from tinypeft.interpreter import run_graph
from tinypeft.ir import Graph, Purpose
from tinypeft.losses import target_argument
from tinypeft.ops import OPS, Op
from tinypeft.ops.loss import LossOp
from tinypeft.stages.autodiff import TrainingConfig


def compiled(name: str, training: TrainingConfig | None = None, **config: object) -> CompiledModel:
    source = load(name)
    adapter = AdapterConfig(**config)  # type: ignore[arg-type]
    return compile_model(name, source.fingerprint, source.graph, adapter, training or TrainingConfig())


def backward_layers(model: CompiledModel) -> set[str]:
    """Those that pass a gradient on, or take it for an update."""
    assert model.training is not None
    updates = ("UPDATE_ROWS", "DENSE_RETRAIN")
    return {op.layer for op in model.training.operations if "BACKWARD" in op.kind or op.kind in updates}


@pytest.mark.parametrize(
    ("targets", "saved", "layers"),
    [
        (None, None, {"stem", "dw", "pointwise", "pool", "head"}),
        (("pointwise",), None, {"pointwise", "pool", "head"}),
        ((), None, {"head"}),
        (("head",), (), {"head"}),
        (("stem",), (), {"stem", "dw", "pointwise", "pool", "head"}),
    ],
)
def test_nothing_is_differentiated_below_the_first_adapter(targets: object, saved: object, layers: set[str]) -> None:
    assert backward_layers(compiled("plain", target_modules=targets, modules_to_save=saved)) == layers


def test_the_first_adapter_passes_nothing_on() -> None:
    """No gradient of the model's input, and none of a layer's frozen weights."""
    for name in MODELS:
        model = compiled(name)
        assert model.training is not None
        first = model.parameters[0].layer
        kinds = [op.kind for op in model.training.operations if op.layer == first]
        assert "CONV_2D_BACKWARD_INPUT" not in kinds, name
        filters = [op for op in model.training.operations if op.kind == "CONV_2D_BACKWARD_FILTER"]
        trained = {p.master.shape for p in model.parameters}
        assert all(op.output.shape in trained for op in filters), name
        assert not any(t.name == "d_input" for t in model.training.tensors())


def test_everything_computed_is_used() -> None:
    for name in MODELS:
        training = compiled(name).training
        assert training is not None
        read = {id(t) for op in training.operations for t in op.inputs.values()} | {id(t) for t in training.outputs}
        for op in training.operations:
            assert any(id(t) in read or t.persistent for t in op.outputs.values()), f"{name}: {op} is not used"


def test_a_softmax_behind_the_classifier_is_pruned() -> None:
    model = compiled("softmax_end")
    assert model.training is not None
    assert "SOFTMAX" in {op.kind for op in model.inference.operations}
    assert "SOFTMAX" not in {op.kind for op in model.training.operations}


def test_masks_where_only_the_clamp_is_needed() -> None:
    """An output whose values the backward pass reads is kept; of one it needs only the clamp of, a bit mask is."""
    model = compiled("plain")
    assert model.training is not None
    masks = {op.inputs["output"].name: op for op in model.training.operations if op.kind == "CLAMP_MASK"}
    assert set(masks) == {"stem_out", "pointwise_out"}  # dw's is an operand of pointwise's LoRA, pool's of head
    requantize = {op.layer: set(op.inputs) for op in model.training.operations if op.kind == "REQUANTIZE_BACKWARD"}
    assert requantize["stem"] == requantize["pointwise"] == {"d_output", "mask"}
    assert requantize["dw"] == {"d_output", "output"}
    order = [op.name for op in model.training.operations]
    for name, mask in masks.items():
        output = mask.inputs["output"]
        last = max(i for i, op in enumerate(model.training.operations) if output in op.inputs.values())
        assert last < order.index("softmax_cross_entropy"), f"{name} is kept in spite of its mask"
        assert mask.output.nbytes == (output.size + 7) // 8


@pytest.mark.parametrize("name", MODELS)
def test_masks_change_no_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import tinypeft.stages.autodiff as autodiff

    states = []
    for keep in (True, False):
        if not keep:
            monkeypatch.setattr(autodiff, "_keep_masks", lambda graph: graph)
        model = compiled(name)
        assert model.training is not None
        assert keep or not any(op.kind == "CLAMP_MASK" for op in model.training.operations)
        state = model.fresh_state(0)
        for x, y in zip(*_xy(name, 3), strict=True):
            run_graph(model.training, _arguments(model.training, x, y), state)
        states.append({n: v.tobytes() for n, v in state.items()})
    assert states[0] == states[1]


def _xy(name: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    dataset = samples(load(name), count)
    assert dataset.y is not None
    return dataset.x, dataset.y


def _arguments(graph: Graph, x: np.ndarray, y: int, rate: float = 0.05) -> dict[str, np.ndarray]:
    return {graph.inputs[0].name: x, "label": np.int32(y), "learning_rate": np.float32(rate)}


def test_a_gradient_is_updated_by_where_it_is_computed() -> None:
    """No gradient of a parameter is ever whole: an update holds the operation that gives its rows."""
    model = compiled("plain", TrainingConfig(momentum=0.5))
    assert model.training is not None
    operations = model.training.operations
    updates = [op for op in operations if op.kind == "UPDATE_ROWS"]
    assert {op.outputs["master"].name for op in updates} == {p.master.name for p in model.parameters}
    assert len(updates) == len(model.parameters) and all("velocity" in op.inputs for op in updates)
    for update in updates:
        assert update.attributes["update"].kind == "SGD"
        gradient = update.attributes["gradient"].output
        assert not any(gradient in [*op.inputs.values(), *op.outputs.values()] for op in operations), update
    quantizers = sorted(op.kind for op in operations if op.kind.endswith("_QUANTIZE"))
    assert quantizers == ["DENSE_QUANTIZE", "LORA_QUANTIZE", "LORA_QUANTIZE"]


def test_a_dense_layer_of_one_position_is_retrained_in_one_operation() -> None:
    """Where plain SGD updates it; whatever else changes the masters needs all rows."""
    kinds = {}
    for training in (TrainingConfig(), TrainingConfig(momentum=0.5), TrainingConfig(batch_size=2)):
        graph = compiled("plain", training).training
        assert graph is not None
        kinds[training.momentum, training.batch_size] = [op.kind for op in graph.operations]
    assert kinds[0.0, 1].count("DENSE_RETRAIN") == 1 and "DENSE_QUANTIZE" not in kinds[0.0, 1]
    assert "DENSE_RETRAIN" not in kinds[0.5, 1] and "DENSE_RETRAIN" not in kinds[0.0, 2]


@pytest.mark.parametrize(
    "training", [TrainingConfig(), TrainingConfig(momentum=0.9, batch_size=4), TrainingConfig("adam8")]
)
def test_a_fresh_and_a_loaded_adapter_define_all_state(training: TrainingConfig) -> None:
    """Nothing of an earlier adapter's training is left: velocities and sums start at zero as well."""
    for name in MODELS:
        model = compiled(name, training)
        assert model.reset and model.restore
        for graph in (model.reset, model.restore):
            written = {t.name for op in graph.operations for t in op.outputs.values()}
            assert {t.name for t in model.training_state} <= written, f"{name}, {graph.name}"


def test_momentum_and_batches_have_their_states_and_nothing_else_has() -> None:
    def states(training: TrainingConfig) -> set[str]:
        return {t.name.split("master")[-1] for t in compiled("mlp", training).training_state if "master_" in t.name}

    assert states(TrainingConfig()) == set()
    assert states(TrainingConfig(momentum=0.9)) == {"_velocity"}
    assert states(TrainingConfig(batch_size=2)) == {"_sum"}
    assert states(TrainingConfig(momentum=0.9, batch_size=2)) == {"_velocity", "_sum"}
    assert states(TrainingConfig("adam")) == {"_first_moment", "_second_moment"}
    scales = {"_first_scale", "_second_scale"}
    assert states(TrainingConfig("adam8")) == {"_first_moment", "_second_moment"} | scales
    shared = {t.name for t in compiled("mlp", TrainingConfig("adam8")).training_state if "master" not in t.name}
    assert shared - {t.name for t in compiled("mlp", TrainingConfig()).training_state} == {"adam_powers"}


@pytest.mark.parametrize("name", ["plain", "softmax_end"])
def test_batches_equal_updates_by_the_mean_gradient(name: str) -> None:
    """batch_size 4 with momentum: each update is what the mean of four samples' gradients gives by hand."""
    model = compiled(name, TrainingConfig(momentum=0.9, batch_size=4))
    assert model.training is not None and model.update is not None
    masters = {p.master.name for p in model.parameters}
    state = model.fresh_state(0)
    hand = {n: state[n].copy() for n in masters}
    velocity = {n: np.zeros_like(state[n]) for n in masters}
    x, y = _xy(name, 12)
    for batch in range(3):
        gradients: dict[str, list[np.ndarray]] = {n: [] for n in masters}
        before = {n: state[n].copy() for n in masters}
        weights = {t.name: state[t.name].copy() for t in model.adapter_weights}

        def keep(op, operand, tensor, value, found=gradients):  # the sum is the master of its update
            if operand == "master" and op.kind == "UPDATE_ROWS":
                found[tensor.name.removesuffix("_sum")].append(value.copy())

        for i in range(4 * batch, 4 * batch + 4):
            run_graph(model.training, _arguments(model.training, x[i], int(y[i])), state, keep)
        assert all((state[n] == before[n]).all() for n in masters), "masters move before the batch is complete"
        assert all((state[n] == weights[n]).all() for n in weights)
        run_graph(model.update, {"learning_rate": np.float32(0.05), "count": np.int32(4)}, state)
        for n in masters:
            singles = np.diff(np.stack([np.zeros_like(hand[n]), *gradients[n]]), axis=0)
            assert len(singles) == 4 and np.allclose(singles.sum(0), gradients[n][-1], rtol=1e-4, atol=1e-6)
            velocity[n] = np.float32(0.9) * velocity[n] + gradients[n][-1] / np.float32(4)
            hand[n] = hand[n] - np.float32(0.05) * velocity[n]
            assert (state[n] == hand[n]).all(), n
            assert not state[f"{n}_sum"].any(), "the sum starts again at zero"


@pytest.mark.parametrize("training", [TrainingConfig("adam"), TrainingConfig("adam8", batch_size=4, clip_norm=1.0)])
def test_what_is_shared_happens_once_before_the_updates(training: TrainingConfig) -> None:
    model = compiled("plain", training)
    assert model.training is not None
    graph = model.update or model.training
    kinds = [op.kind for op in graph.operations]
    updates = [
        i
        for i, op in enumerate(graph.operations)
        if op.kind.startswith("UPDATE") and op.attributes["update"].kind in ("ADAM", "ADAM8")
    ]
    assert kinds.count("ADAM_STEP") == 1 and kinds.index("ADAM_STEP") < updates[0]
    assert len(updates) == len(model.parameters)
    if model.update:
        assert "ADAM_STEP" not in [op.kind for op in model.training.operations]
        assert kinds.count("CLIP_FACTOR") == 1 and kinds.index("CLIP_FACTOR") < kinds.index("UPDATE_FROM_SUMS")
    state = model.fresh_state(0)
    steps = 3 * training.batch_size
    for number, (x, y) in enumerate(zip(*_xy("plain", steps), strict=True)):
        run_graph(model.training, _arguments(model.training, x, int(y)), state)
        if model.update and (number + 1) % training.batch_size == 0:
            run_graph(model.update, {"learning_rate": np.float32(0.01), "count": np.int32(4)}, state)
    np.testing.assert_allclose(state["adam_powers"], [0.9**3, 0.999**3], rtol=1e-6)
    assert (model.fresh_state(0)["adam_powers"] == 1).all()


def test_the_norm_of_the_mean_gradient_is_clipped() -> None:
    """SGD by the clipped gradient moves all masters together by rate * clip_norm, in the gradient's direction."""
    x, y = _xy("plain", 2)
    moves = {}
    for clip_norm in (0.0, 0.05, 1e5):
        model = compiled("plain", TrainingConfig(batch_size=2, clip_norm=clip_norm))
        assert model.training is not None and model.update is not None
        state = model.fresh_state(0)
        before = {p.master.name: state[p.master.name] for p in model.parameters}
        for sample, label in zip(x, y, strict=True):
            run_graph(model.training, _arguments(model.training, sample, int(label)), state)
        run_graph(model.update, {"learning_rate": np.float32(1.0), "count": np.int32(2)}, state)
        moves[clip_norm] = np.concatenate([(before[n] - state[n]).reshape(-1) for n in before]).astype(np.float64)
    norm = np.linalg.norm(moves[0.0])
    assert norm > 0.1, "clipping changes something"
    np.testing.assert_allclose(np.linalg.norm(moves[0.05]), 0.05, rtol=1e-4)
    np.testing.assert_allclose(moves[0.05], moves[0.0] * (0.05 / norm), rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(moves[1e5], moves[0.0])


def test_the_sums_are_of_the_single_gradients() -> None:
    """What a sample alone adds to a sum of zero is its gradient; float32 sums of them, in order, are the batch's."""
    model = compiled("mlp", TrainingConfig(batch_size=3))
    assert model.training is not None
    together = model.fresh_state(0)
    totals: dict[str, np.ndarray] = {}
    for sample, label in zip(*_xy("mlp", 3), strict=True):
        alone = model.fresh_state(0)
        for state in (together, alone):
            run_graph(model.training, _arguments(model.training, sample, int(label)), state)
        for name in (n for n in alone if n.endswith("_sum")):
            totals[name] = totals.get(name, np.zeros_like(alone[name])) + alone[name]
    assert len(totals) == len(model.parameters) and sum(total.any() for total in totals.values()) > 2
    for name, total in totals.items():
        assert together[name].tobytes() == total.tobytes(), name


def test_training_lowers_the_loss() -> None:
    for name in MODELS:
        model = compiled(name)
        assert model.training is not None
        state, (x, y) = model.fresh_state(0), _xy(name, 4)
        losses = [
            sum(
                int(run_graph(model.training, _arguments(model.training, *pair, learning_rate(name)), state)[0][0])
                for pair in zip(x, y, strict=True)
            )
            for _ in range(15)
        ]
        assert losses[-1] < 0.8 * losses[0], f"{name}: {losses[0] / 65536:.3f} -> {losses[-1] / 65536:.3f}"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "adagrad"}, "there is no optimizer adagrad"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"grad_bits": 12}, "grad_bits is 12"),
        ({"batch_size": 70000}, "batch_size is 70000"),
        ({"momentum": 1.0}, "momentum is 1"),
        ({"momentum": -0.1}, "momentum is -0.1"),
        ({"momentum": float("nan")}, "momentum is nan"),
        ({"momentum": 1 - 1e-9}, "momentum is 1, it must be at least 0 and below 1"),
        ({"nesterov": True}, "nesterov is on, but momentum is 0"),
        ({"optimizer": "adam", "beta_1": -0.1}, "beta_1 is -0.1"),
        ({"optimizer": "adam8", "beta_2": 1.0}, "beta_2 is 1"),
        ({"optimizer": "adam", "epsilon": 0.0}, "epsilon is 0"),
        ({"weight_decay": float("nan")}, "weight_decay is nan"),
        ({"weight_decay": -1.0}, "weight_decay is -1"),
        ({"clip_norm": float("inf"), "batch_size": 2}, "clip_norm is inf"),
        ({"clip_norm": 1.0}, "clip_norm is 1, but with batch_size 1"),
        ({"optimizer": "adam", "momentum": 0.5}, "momentum is 0.5, but adam has none"),
        ({"optimizer": "adam8", "nesterov": True}, "nesterov is True, but adam8 has none"),
        ({"epsilon": 1e-3}, "epsilon is 0.001, but sgd has none"),
        ({"loss": "hinge"}, "there is no loss hinge"),
        ({"target": "vector"}, "softmax_cross_entropy cannot be computed against the target vector, only label"),
        ({"loss": "mean_squared_error"}, "mean_squared_error cannot .* target label, only vector or input"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1"),
        ({"label_smoothing": float("nan")}, "label_smoothing is nan"),
        ({"class_weights": (1.0, -2.0)}, "class_weights has -2, the limits are 0 and 65536"),
        ({"class_weights": (1.0, float("inf"))}, "class_weights has inf"),
        (
            {"class_weights": (1.0,), "loss": "binary_cross_entropy", "target": "vector"},
            "class_weights are of losses against a label",
        ),
    ],
)
def test_training_settings_are_checked(settings: dict, message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        TrainingConfig(**settings)


def test_a_target_that_does_not_suit_the_model_is_refused() -> None:
    with pytest.raises(AdapterError, match="class_weights has 2 values, the model has 5 classes"):
        compiled("plain", TrainingConfig(class_weights=(1.0, 2.0)))
    message = "mean_squared_error against the input needs .*: the input has 112 elements, the output 5"
    with pytest.raises(AdapterError, match=message):
        compiled("plain", TrainingConfig(loss="mean_squared_error", target="input"))


def test_an_autoencoder_keeps_its_input() -> None:
    """The loss reads the model's own input; nothing may be written over it until then. Nothing is retrained whole."""
    model = compiled("autoencoder", TrainingConfig(loss="mean_squared_error", target="input"))
    assert model.training is not None and model.target is None
    loss = next(op for op in model.training.operations if isinstance(op.op, LossOp))
    assert loss.inputs["target"] is model.training.inputs[0]
    assert [t.name for t in model.training.inputs[1:]] == ["learning_rate"]
    assert model.logits is None and not any("kernel_master" in t.name for t in model.training_state)
    plan = model.arena.plans["training"]
    first = next(b for b in plan.buffers if any(t is model.training.inputs[0] for t in b.tensors))
    assert first.last >= model.training.operations.index(loss)


@pytest.mark.parametrize("name", ["binary", "regression", "autoencoder"])
def test_training_lowers_every_loss(name: str) -> None:
    model_name, adapter, training = CONFIGURATIONS[name]
    source = load(model_name)
    model = compile_model(name, source.fingerprint, source.graph, adapter, replace(training, batch_size=1))
    assert model.training is not None
    state, x = model.fresh_state(0), samples(source, 4).x
    size = model.target.size if model.target is not None else 0
    y = np.random.default_rng(1).integers(0, 2, (4, size)) if size else [None] * 4
    losses = []
    for _ in range(25):
        total = 0
        for sample, target in zip(x, y, strict=True):
            arguments = {model.training.inputs[0].name: sample, **target_argument(model.target, target)}
            arguments["learning_rate"] = np.float32(0.02)
            total += int(run_graph(model.training, arguments, state)[0][0])
        losses.append(total)
    assert losses[-1] < 0.8 * losses[0], f"{losses[0] / 65536:.3f} -> {losses[-1] / 65536:.3f}"


def test_an_operator_without_a_gradient_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where such an operator lies in the middle, nothing below it can be trained."""
    from small_models import Net

    from tinypeft.frontend import load_tflite

    net = Net((1, 6), 1)
    net.dense("first", 6)
    net.softmax("middle")
    net.dense("head", 3)
    source = load_tflite("middle", net.build(), {})
    assert compile_model("middle", source.fingerprint, source.graph, AdapterConfig(), TrainingConfig()).training
    monkeypatch.setattr(type(OPS["SOFTMAX"]), "vjp", Op.vjp)
    with pytest.raises(ModelError, match="middle is a SOFTMAX, through which no gradient can pass") as caught:
        compile_model("middle", source.fingerprint, source.graph, AdapterConfig(), TrainingConfig())
    assert caught.value.hint
    above = AdapterConfig(target_modules=())
    assert compile_model("middle", source.fingerprint, source.graph, above, TrainingConfig()).training is not None


def test_gradients_of_8_bits_take_half_the_memory() -> None:
    """All that the arena holds of gradients is bfp8; what is computed forward is the same."""
    source = load("residual")
    wide, narrow = (
        compile_model("m", source.fingerprint, source.graph, AdapterConfig(r=2), TrainingConfig(grad_bits=bits))
        for bits in (16, 8)
    )
    sizes = []
    for model, dtype in ((wide, "bfp16"), (narrow, "bfp8")):
        assert model.training is not None
        gradients = [t for t in model.training.tensors() if t.in_arena and t.purpose is Purpose.GRADIENT]
        assert gradients and {t.dtype for t in gradients} == {dtype}
        sizes.append({t.name: t.nbytes for t in gradients})
    assert sizes[0] == {name: 2 * nbytes for name, nbytes in sizes[1].items()}
    assert narrow.arena.plans["training"].arena_bytes < wide.arena.plans["training"].arena_bytes

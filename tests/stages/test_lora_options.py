"""LoRA's options: PEFT's patterns and scalings, what A starts from, 4 bits, LoftQ, merging, and every refusal."""

from __future__ import annotations

import math

import numpy as np
import pytest
from small_models import load, samples

from tinypeft.adapters import ADAPTERS, AdapterConfig
from tinypeft.adapters.base import MergedLayer
from tinypeft.adapters.loftq import attach_factors, starting_factors
from tinypeft.adapters.lora_options import largest_rank, layer_rank, layer_scaling
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.errors import AdapterError
from tinypeft.interpreter import run_graph
from tinypeft.ops.weighted import filter_scales
from tinypeft.stages.autodiff import TrainingConfig


def config(r: int = 4, modules_to_save: tuple[str, ...] | None = (), **options: object) -> AdapterConfig:
    return AdapterConfig(r=r, modules_to_save=modules_to_save, options=tuple(options.items()))


def compiled(name: str, adapter: AdapterConfig) -> CompiledModel:
    return compile_model(name, b"", load(name).graph, adapter, TrainingConfig())


@pytest.mark.parametrize(
    ("layer", "rank", "scaling"),
    [
        ("conv_1", 8, 16 / 8),
        ("block.conv_1", 8, 16 / 8),
        ("myconv_1", 4, 16 / 4),
        ("dense_a", 2, 3.5 / 2),
        ("x.dense_b", 2, 3.5 / 2),
        ("other", 4, 16 / 4),
    ],
)
def test_patterns_follow_peft(layer: str, rank: int, scaling: float) -> None:
    settings = AdapterConfig(
        lora_alpha=16.0, options=(("rank_pattern", r"conv_1=8, dense_\w{1,2}=2"), ("alpha_pattern", "dense.*=3.5"))
    )
    assert layer_rank(settings, layer) == rank and layer_scaling(settings, layer) == pytest.approx(scaling)
    stable = AdapterConfig(lora_alpha=16.0, options=(*settings.options, ("use_rslora", True)))
    assert layer_scaling(stable, layer) == pytest.approx(scaling * rank / math.sqrt(rank))
    assert largest_rank(settings) == 8 and largest_rank(AdapterConfig(r=9)) == 9


def test_ranks_and_scalings_reach_the_layers() -> None:
    model = compiled("residual", config(rank_pattern="again=5", alpha_pattern="again=2", use_rslora=True))
    ranks = {p.layer: p.master.shape[0] for p in model.parameters if p.name.endswith("lora_A")}
    assert ranks.pop("again") == 5 and ranks and set(ranks.values()) == {4}
    layer = next(op for op in model.inference.operations if op.layer == "again" and "hidden" in op.inputs)
    np.testing.assert_allclose(layer.attributes["lora"].b_unit * filter_scales(layer), 2 / math.sqrt(5), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank_pattern": "agian=5"}, "matches no layer that lora adapts; did you mean again"),
        ({"rank_pattern": "again"}, "is not PATTERN=NUMBER"),
        ({"rank_pattern": "again=4,"}, None),
        ({"rank_pattern": "again=4.5"}, "must be a whole number up to 256"),
        ({"rank_pattern": "again=300"}, "must be a whole number up to 256"),
        ({"alpha_pattern": "again=0"}, "must be a number above 0"),
        ({"alpha_pattern": "(again=1"}, "is no regular expression"),
        ({"lora_bits": 6}, "A and B can have 4 or 8"),
        ({"lora_bits": 2}, "the limits are 4 and 8"),
        (
            {"init_lora_weights": "ones"},
            "there is no init_lora_weights ones; one of: uniform, default, gaussian, loftq",
        ),
        ({"init_lora_weights": "loftq"}, "an int8 .tflite does not hold them; give the .keras"),
    ],
)
def test_refusals(options: dict[str, object], message: str | None) -> None:
    if message is None:
        assert compiled("residual", config(**options)).parameters
        return
    with pytest.raises(AdapterError) as error:
        compiled("residual", config(**options))
    assert message in f"{error.value.message}; {error.value.hint}"


@pytest.mark.parametrize(
    ("start", "deviation"), [("uniform", "1/sqrt(n)"), ("default", "1/sqrt(3n)"), ("gaussian", "1/r")]
)
def test_what_a_starts_from(start: str, deviation: str) -> None:
    model = compiled("residual", config(r=64, init_lora_weights=start))
    state = model.fresh_state(7)
    for parameter in model.parameters:
        values = state[parameter.master.name]
        if parameter.name.endswith("lora_B"):
            assert not values.any()
            continue
        n = values[0].size
        expected = {"1/sqrt(n)": n**-0.5, "1/sqrt(3n)": (3 * n) ** -0.5, "1/r": 1 / 64}[deviation]
        error = 4 * expected / math.sqrt(values.size)
        assert abs(values.mean()) < error and abs(values.std() - expected) < error
        within = np.mean(np.abs(values) < expected)  # 68.3 % of a normal distribution, 57.7 % of a uniform one
        share = 0.683 if start == "gaussian" else 0.577
        assert abs(within - share) < 2 / math.sqrt(values.size)


@pytest.mark.parametrize("options", [{"lora_bits": 4}, {"init_lora_weights": "gaussian", "use_rslora": True}])
def test_a_fresh_adapter_leaves_the_base_as_it_is(options: dict[str, object]) -> None:
    source = load("residual")
    base, adapted = compiled("residual", AdapterConfig(adapter="none")), compiled("residual", config(**options))
    state = adapted.fresh_state(3)
    for x in samples(source, 5).x:
        arguments = {base.inference.inputs[0].name: x.reshape(base.inference.inputs[0].shape)}
        expected, actual = (run_graph(m.inference, arguments, dict(state))[0] for m in (base, adapted))
        np.testing.assert_array_equal(actual, expected)


def test_four_bits_halve_what_travels() -> None:
    whole, half = compiled("residual", config()), compiled("residual", config(lora_bits=4))
    matrices = sum(p.master.size for p in whole.parameters)
    rows = sum(p.master.shape[0] for p in whole.parameters)
    assert whole.package_bytes - half.package_bytes == pytest.approx(matrices / 2 - rows, abs=len(whole.parameters))


def _float_filters(name: str, seed: int) -> dict[str, np.ndarray]:
    """Filters that the int8 ones of a model are the rounded ones of."""
    rng = np.random.default_rng(seed)
    filters = {}
    for op in load(name).graph.operations:
        if op.kind in ("CONV_2D", "FULLY_CONNECTED"):
            data = op.inputs["filter"].data
            assert data is not None
            scale = filter_scales(op).reshape(-1, *[1] * (data.ndim - 1))
            filters[op.name] = ((data + rng.uniform(-0.5, 0.5, data.shape)) * scale).astype(np.float32)
    return filters


@pytest.mark.parametrize("bits", [8, 4])
def test_loftq_takes_up_what_quantisation_took(bits: int) -> None:
    """At full rank all of it; at a low one what is best: the rest is the smaller singular values."""
    source, filters = load("residual"), _float_filters("residual", 3)
    for rank in (2, 16):
        settings = config(r=rank, init_lora_weights="loftq", lora_bits=bits)
        attach_factors(source.graph, starting_factors(source.graph, filters, rank))
        model = compile_model("residual", b"", source.graph, settings, TrainingConfig())
        state = model.fresh_state(0)
        assert model.restore is not None
        run_graph(model.restore, {}, state)  # what the integers stand for
        for op in source.graph.operations:
            if f"{op.name}_lora_A_master" not in state:
                continue
            a, b = state[f"{op.name}_lora_A_master"].astype(float), state[f"{op.name}_lora_B_master"].astype(float)
            data = op.inputs["filter"].data
            assert data is not None
            lost = filters[op.name].reshape(len(data), -1) - data.reshape(len(data), -1) * filter_scales(op)[:, None]
            left = lost - layer_scaling(settings, op.layer) * (b @ a.reshape(rank, -1))
            best = np.sqrt((np.linalg.svd(lost, compute_uv=False)[rank:] ** 2).sum())
            slack = {8: 0.03, 4: 0.35}[bits] * np.linalg.norm(lost)
            assert np.linalg.norm(left) <= best + slack, f"{op.name} at rank {rank}"
            assert np.linalg.norm(left) < np.linalg.norm(lost)


def test_merging_adds_the_product_of_b_and_a() -> None:
    """Tap by tap, in another order than the code's."""
    settings = config(r=3, use_rslora=True, rank_pattern="again=2")
    model = compiled("residual", settings)
    rng = np.random.default_rng(1)
    state = {p.master.name: rng.normal(0, 1, p.master.shape).astype(np.float32) for p in model.parameters}
    for op in model.base.operations:
        if f"{op.name}_lora_A_master" not in state:
            continue
        a, b = state[f"{op.name}_lora_A_master"], state[f"{op.name}_lora_B_master"]
        start = rng.normal(0, 1, op.inputs["filter"].shape)
        layer = MergedLayer(start.copy(), np.zeros(len(start)))
        ADAPTERS["lora"].merge(op, settings, state, layer)
        rank = 2 if op.layer == "again" else 3
        for at in np.ndindex(start.shape):
            added = sum(float(b[at[0], r]) * float(a[(r, *at[1:])]) for r in range(rank)) * 8 / math.sqrt(rank)
            assert layer.filter[at] == pytest.approx(start[at] + added)
        assert not layer.bias.any()

"""Plans keep to their budgets in truth, a larger budget never scores less, and nothing that is shown is beaten."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from planned import planned, setting, shifted, survey

from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import compile_model
from tinypeft.errors import AdapterError, FitError
from tinypeft.planning import Budget, PlanFacts, Survey, plan_adapters
from tinypeft.planning.choices import Choice, Plan, adapter_config, check_names
from tinypeft.planning.search import Search

MODELS = ("mlp", pytest.param("residual", marks=pytest.mark.slow))


def chosen(name: str, budget: Budget) -> PlanFacts:
    return planned(name, budget).report.chosen


def between(name: str, key: str, share: float) -> int:
    """A limit within what the frontier's plans take."""
    values = [getattr(plan, key) for plan in planned(name, Budget()).report.frontier]
    return round(min(values) + share * (max(values) - min(values)))


@pytest.mark.parametrize("name", MODELS)
def test_budgets_are_kept(name: str) -> None:
    everything = chosen(name, Budget())
    for share in (0.2, 0.6):
        ram, step = (between(name, key, share) for key in ("ram_bytes", "instructions_per_step"))
        within = chosen(name, Budget(ram_bytes=ram, instructions_per_step=step))
        assert within.ram_bytes <= ram and within.instructions_per_step <= step
        assert within.score < everything.score
    flash = between(name, "flash_bytes", 0.3)
    assert chosen(name, Budget(flash_bytes=flash)).flash_bytes <= flash


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("field", "key"), [("ram_bytes", "ram_bytes"), ("instructions_per_step", "instructions_per_step")]
)
def test_a_larger_budget_never_scores_less(name: str, field: str, key: str) -> None:
    scores = [
        chosen(name, Budget(**{field: between(name, key, share)})).score for share in (0.05, 0.25, 0.45, 0.7, 1.0)
    ]
    assert scores == sorted(scores) and scores[0] < scores[-1]


@pytest.mark.parametrize("name", MODELS)
def test_figures_are_those_of_the_compiled_configuration(name: str) -> None:
    found = planned(name, Budget(ram_bytes=between(name, "ram_bytes", 0.5)))
    source = setting(name).source
    model = compile_model(name, source.fingerprint, source.graph, found.adapter, setting(name).training)
    facts = found.report.chosen
    assert (model.adapter_bytes, model.training_bytes) == (facts.adapter_bytes, facts.optimizer_bytes)
    assert model.arena.arena_bytes <= facts.arena_bytes  # an arena over several RAMs may have gaps
    layers = {parameter.layer for parameter in model.parameters}
    assert layers == {layer.layer for layer in facts.layers}


@pytest.mark.parametrize("name", MODELS)
def test_the_frontier_has_no_plan_that_another_beats(name: str) -> None:
    report = planned(name, Budget()).report
    assert sum(plan.chosen for plan in report.frontier) == 1 and len(report.frontier) > 3
    for one, other in itertools.permutations(report.frontier, 2):
        worse = one.score <= other.score and one.ram_bytes >= other.ram_bytes
        worse = worse and one.flash_bytes >= other.flash_bytes
        assert not (worse and one.instructions_per_step >= other.instructions_per_step) or one.chosen


def test_the_same_samples_give_the_same_plan() -> None:
    again = plan_adapters(Survey(setting("mlp"), shifted("mlp")), Budget())
    assert again.report == planned("mlp", Budget()).report


@pytest.mark.parametrize("name", ["plain", "mlp", "no_bias"])
def test_a_shift_of_the_classes_goes_to_the_head_first(name: str) -> None:
    """The dearest gradient lies in front perhaps, but the head is what pays for itself first."""
    first = next(iter(Search(survey(name).estimator).greedy(0.0, 1.0))).plan
    assert first == Plan((("head", Choice(("modules_to_save",))),))


def test_the_tightest_budgets_adapt_the_head_alone() -> None:
    least = min(plan.ram_bytes for plan in planned("mlp", Budget()).report.frontier)
    assert [layer.layer for layer in chosen("mlp", Budget(ram_bytes=least + 100)).layers] == ["head"]


def test_the_pool_has_nothing_that_another_beats() -> None:
    pool = survey("mlp").pool
    assert [one.score for one in pool] == sorted((one.score for one in pool), reverse=True)
    assert not any(one.beats(other) for one, other in itertools.permutations(pool, 2))
    assert all(one.plan.possible for one in pool)


def test_nothing_fits() -> None:
    least = min(plan.ram_bytes for plan in planned("mlp", Budget()).report.frontier)
    with pytest.raises(FitError, match=r"no adapter of mlp fits: the least, .* needs [\d,]+ B of RAM") as caught:
        planned("mlp", Budget(ram_bytes=least - 1000))
    assert "B of RAM beyond the budget" in caught.value.message and caught.value.hint is not None
    needed = int(caught.value.hint.removeprefix("--ram "))
    assert chosen("mlp", Budget(ram_bytes=needed)).ram_bytes <= needed
    with pytest.raises(FitError, match="instructions a step beyond the budget"):
        planned("mlp", Budget(instructions_per_step=1000))


def test_a_plan_as_a_configuration() -> None:
    plan = Plan(
        (
            ("a.b", Choice(("bitfit", "lora"), 2)),
            ("c", Choice(("lora",), 4)),
            ("d", Choice(("lora",), 4)),
            ("e", Choice(("sparse",), channels=(1, 3))),
            ("f", Choice(("modules_to_save",))),
        )
    )
    config = adapter_config(plan, AdapterConfig(lora_alpha=4.0, options=(("lora_bits", 4), ("channels", "x=1"))))
    assert config.adapter == "bitfit+lora+sparse" and config.r == 4 and config.lora_alpha == 4.0
    assert config.targets == (("bitfit", ("a.b",)), ("lora", ("a.b", "c", "d")), ("sparse", ("e",)))
    assert dict(config.options) == {"lora_bits": 4, "rank_pattern": r"a\.b=2", "channels": "e=1,3"}
    assert config.modules_to_save == ("f",)
    assert plan.label == "lora r=2 + bitfit: a.b; lora r=4: c, d; sparse 2 rows: e; retrained: f"
    head = adapter_config(Plan((("f", Choice(("modules_to_save",))),)), AdapterConfig())
    assert (head.adapter, head.targets, head.modules_to_save) == ("modules_to_save", (), ("f",))


def test_names_that_a_configuration_cannot_hold() -> None:
    graph = setting("plain").source.graph
    check_names(graph)
    operations = [replace(op, layer=f"x.{op.layer}" if i else "x.x") for i, op in enumerate(graph.operations)]
    operations[2].layer = "x"
    changed = type(graph)("g", graph.inputs, graph.outputs, operations)
    with pytest.raises(AdapterError, match=r"the layer name x also means x\.x"):
        check_names(changed)
    operations[2].layer = "a=b"
    with pytest.raises(AdapterError, match="'a=b' cannot stand in a configuration"):
        check_names(changed)

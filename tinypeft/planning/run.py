"""From a model, samples and budgets to the plan that fits with the highest score, and the frontier around it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from tinypeft import __version__
from tinypeft.adapters import AdapterConfig
from tinypeft.data import Dataset
from tinypeft.errors import AdapterError, FitError, ModelError
from tinypeft.losses import LABEL, LOSSES
from tinypeft.planning.candidates import Candidates, adaptable_operations, candidate_choices
from tinypeft.planning.choices import Choice, Plan, adapter_config
from tinypeft.planning.costs import Compiled, Estimator, Progress, Setting, compile_plan, figures
from tinypeft.planning.report import SCHEMA, Budget, PlanFacts, Report, Sensitivity, layer_facts
from tinypeft.planning.search import Estimate, plan_pool
from tinypeft.planning.sensitivity import measure_gradients, probe_model

#: how many plans a frontier shows
SHOWN = 12
#: how much of its quick cost a plan may really take at the least, so that costlier ones need not be compiled
SLACK = 0.6

#: a configuration -> the counted instructions of a training step
Measure = Callable[[AdapterConfig], int]


@dataclass(frozen=True, eq=False)
class Planned:
    """The report, and the configuration of the chosen plan."""

    report: Report
    adapter: AdapterConfig


class Survey:
    """What is known of a model and samples before any budget: scores, quick costs, the pool, and what was compiled."""

    def __init__(self, setting: Setting, dataset: Dataset, progress: Progress = lambda *_: None) -> None:
        """Raises AdapterError or ModelError where nothing of the model can be trained."""
        self.setting, self.samples = setting, len(dataset)
        self.labels = "given" if dataset.y is not None else "own" if setting.training.target == LABEL else "none"
        self.estimator = Estimator(setting, sensitivity(setting, dataset, progress), progress)
        self.pool = plan_pool(self.estimator, progress)
        self.figures = functools.cache(self._figures)

    def _figures(self, plan: Plan) -> Compiled | None:
        """None where the plan as a whole cannot be compiled, say, since its kinds leave an accumulator no room."""
        try:
            return figures(self.setting, compile_plan(self.setting, plan))
        except (AdapterError, ModelError):
            return None


def plan_adapters(
    survey: Survey, budget: Budget, *, measure: Measure | None = None, progress: Progress = lambda *_: None
) -> Planned:
    """The plan with the highest score within `budget` and the memories of the board.

    `measure` counts the instructions of a training step of a configuration; estimates are used without. Raises FitError
    where no plan fits.
    """
    search = _Choosing(survey, budget, measure)
    chosen = search.choose(progress)
    shown = []
    spread = _spread(survey.pool, chosen)
    for number, estimate in enumerate(spread):
        if survey.figures(estimate.plan) is not None:
            shown.append(estimate)
        progress("compiling the frontier", number + 1, len(spread))
    candidates = survey.estimator.candidates
    total = sum(max(choices.values()) for choices in candidates.values())
    shares = {(layer, c): score / total for layer, choices in candidates.items() for c, score in choices.items()}
    facts = [_facts(e, search, shares, total, chosen=e is chosen) for e in shown]
    report = Report(
        SCHEMA,
        __version__,
        survey.setting.source.name,
        survey.setting.board.name,
        survey.samples,
        survey.labels,
        budget,
        tuple(
            Sensitivity(layer, choice.label, score, score / total)
            for layer, choices in candidates.items()
            for choice, score in choices.items()
        ),
        tuple(_frontier(facts)),
    )
    return Planned(report, adapter_config(chosen.plan, survey.setting.base))


def sensitivity(setting: Setting, dataset: Dataset, progress: Progress = lambda *_: None) -> Candidates:
    """Every layer's choices with their scores."""
    loss = LOSSES[setting.training.loss]
    operations = adaptable_operations(setting.source.graph, loss.passed_over, classes=setting.training.target == LABEL)
    probe = probe_model(setting.source, operations, setting.training)
    gradients = measure_gradients(probe, operations, dataset, progress)
    candidates = candidate_choices(setting.source.graph, gradients, retrains=loss.classifies)
    if not candidates:
        raise AdapterError(
            f"the loss of {setting.source.name} has no gradient at any layer on these samples",
            "give labelled samples that it does not know yet: --data F.npz:X:Y",
        )
    return candidates


class _Choosing:
    def __init__(self, survey: Survey, budget: Budget, measure: Measure | None) -> None:
        self.survey, self.setting, self.figures = survey, survey.setting, survey.figures
        self.budget, self._measure = budget, measure
        self.measured: dict[Plan, int] = {}

    def choose(self, progress: Progress) -> Estimate:
        """The first of the pool that fits; raises FitError with the one that is the least beyond."""
        tried = [estimate for estimate in self.survey.pool if self._may_fit(estimate)]
        for number, estimate in enumerate(tried):
            progress("looking for the best that fits", number, len(tried))
            if self._fits(estimate.plan):
                progress("looking for the best that fits", len(tried), len(tried))
                return estimate
        raise self._nothing_fits()

    def _may_fit(self, estimate: Estimate) -> bool:
        ram, instructions = self.budget.ram_bytes, self.budget.instructions_per_step
        return (ram is None or estimate.cost.ram * SLACK <= ram) and (
            instructions is None or estimate.cost.instructions * SLACK <= instructions
        )

    def _fits(self, plan: Plan) -> bool:
        found = self.figures(plan)
        if found is None or not found.fits or self.budget.over(found):
            return False
        if self._measure is None:
            return True
        self.measured[plan] = self._measure(adapter_config(plan, self.setting.base))
        return not self.budget.over(replace(found, instructions=self.measured[plan]))

    def _nothing_fits(self) -> FitError:
        pool = self.survey.pool
        smallest = min(pool, key=lambda e: (e.cost.ram, -e.score))
        quickest = min(pool, key=lambda e: (e.cost.instructions, -e.score))
        plans = [e for e in (smallest, quickest) if self.figures(e.plan) is not None]
        name, board = self.setting.source.name, self.setting.board
        if not plans:
            return FitError(f"no adapter of {name} can be compiled", "tinypeft generate --adapter bitfit says why")
        best = min(plans, key=lambda e: self._excess(e.plan))
        found = self.figures(best.plan)
        assert found is not None
        if best.plan in self.measured:
            found = replace(found, instructions=self.measured[best.plan])
        over = self.budget.over(found)
        what = f"no adapter of {name} fits: the least, {best.plan.label}, needs {found.ram_bytes:,} B of RAM, "
        what += f"{found.flash_bytes:,} B of flash and {found.instructions:,} instructions a step"
        if not over:
            return FitError(f"{what}; {board.name} has less", "a smaller model, or another --board: tinypeft boards")
        beyond = ", ".join(f"{amount:,}{'' if 'instr' in n else ' B of'} {n}" for n, amount in over.items())
        flags = {
            "RAM": f"--ram {found.ram_bytes}",
            "flash": f"--flash {found.flash_bytes}",
            "instructions a step": f"--instructions-per-step {found.instructions}",
        }
        return FitError(f"{what}; that is {beyond} beyond the budget", " ".join(flags[name] for name in over))

    def _excess(self, plan: Plan) -> float:
        found = self.figures(plan)
        assert found is not None
        limits = (
            (found.ram_bytes, self.budget.ram_bytes),
            (found.flash_bytes, self.budget.flash_bytes),
            (found.instructions, self.budget.instructions_per_step),
        )
        return max((used / limit for used, limit in limits if limit), default=0.0)


def _spread(pool: list[Estimate], chosen: Estimate) -> list[Estimate]:
    """Plans of the pool from the cheapest in RAM to the highest score, evenly; the chosen one among them."""
    best: list[Estimate] = []
    for estimate in sorted(pool, key=lambda e: (e.cost.ram, -e.score)):
        if not best or estimate.score > best[-1].score:
            best.append(estimate)
    step = max(1.0, (len(best) - 1) / (SHOWN - 1)) if len(best) > 1 else 1.0
    places = sorted({round(i * step) for i in range(SHOWN) if round(i * step) < len(best)})
    shown = [best[i] for i in places]
    return shown if chosen in shown else sorted([*shown, chosen], key=lambda e: (e.cost.ram, -e.score))


def _facts(
    estimate: Estimate, search: _Choosing, shares: dict[tuple[str, Choice], float], total: float, *, chosen: bool
) -> PlanFacts:
    found = search.figures(estimate.plan)
    assert found is not None
    return PlanFacts(
        estimate.plan.label,
        layer_facts(estimate.plan, shares),
        estimate.score,
        estimate.score / total,
        found.parameters,
        found.adapter_bytes,
        found.state_bytes,
        found.arena_bytes,
        found.ram_bytes,
        found.flash_bytes,
        found.instructions,
        search.measured.get(estimate.plan),
        chosen,
    )


def _frontier(facts: list[PlanFacts]) -> list[PlanFacts]:
    """Those that no other beats in truth, and the chosen one; the cheapest in RAM first."""

    def beaten(one: PlanFacts) -> bool:
        return any(
            other.score >= one.score
            and other.ram_bytes <= one.ram_bytes
            and other.flash_bytes <= one.flash_bytes
            and other.instructions_per_step <= one.instructions_per_step
            and other is not one
            for other in facts
        )

    kept = [one for one in facts if one.chosen or not beaten(one)]
    return sorted(kept, key=lambda one: (one.ram_bytes, one.score))

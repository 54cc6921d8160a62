"""The search for plans: quick costs in, a pool of plans none of which another beats out.

Nothing here knows a budget: the pool is a property of the model, the budget only picks from it, so that a larger one
never picks a lower score. Greedy runs raise one layer's choice at a time, by score per byte, per instruction, and per
both; then exchanges look for a higher score at no higher cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tinypeft.planning.choices import Plan
from tinypeft.planning.costs import Cost, Estimator

Progress = Callable[[str, int, int], None]

#: how much a byte and an instruction count in a greedy run, each relative to the plan of all layers
WEIGHTS = ((1.0, 0.0), (0.0, 1.0), (0.5, 0.5), (0.9, 0.1))
#: how many plans the exchanges start from
IMPROVED = 40


@dataclass(frozen=True)
class Estimate:
    """A plan with its score and quick cost."""

    plan: Plan
    score: float
    cost: Cost

    def beats(self, other: Estimate) -> bool:
        """Whether it scores at least as much for at most as much of everything, and is not the same."""
        mine, others = self._figures(), other._figures()
        return mine != others and all(a <= b for a, b in zip(mine, others, strict=True))

    def _figures(self) -> tuple[float, ...]:
        return -self.score, self.cost.ram, self.cost.state, self.cost.instructions


def plan_pool(estimator: Estimator, progress: Progress = lambda *_: None) -> list[Estimate]:
    """The plans worth compiling, those of the highest score first."""
    search = Search(estimator)
    pool: dict[Plan, Estimate] = {}
    for layer, choices in estimator.candidates.items():
        for choice in choices:
            _put(pool, search.estimate(Plan(((layer, choice),))))
    for number, weights in enumerate(WEIGHTS):
        for estimate in search.greedy(*weights):
            _put(pool, estimate)
        progress("greedy runs", number + 1, len(WEIGHTS))
    best = _undominated(pool)
    started = best[:: max(1, -(-len(best) // IMPROVED))]
    for number, estimate in enumerate(started):
        _put(pool, search.improved(estimate))
        progress("exchanges", number + 1, len(started))
    return _undominated(pool)


def _put(pool: dict[Plan, Estimate], estimate: Estimate) -> None:
    pool.setdefault(estimate.plan, estimate)


def _undominated(pool: dict[Plan, Estimate]) -> list[Estimate]:
    every = list(pool.values())
    kept = [one for one in every if not any(other.beats(one) for other in every)]
    return sorted(kept, key=lambda one: (-one.score, one.cost.ram, one.plan.label))


class Search:
    """Ways from plan to plan, at quick costs."""

    def __init__(self, estimator: Estimator) -> None:
        self.estimator = estimator
        self.layers = list(estimator.candidates)
        self._whole = self._scale()

    def estimate(self, plan: Plan) -> Estimate:
        """Score and quick cost of `plan`."""
        return Estimate(plan, self.estimator.score(plan), self.estimator.cost(plan))

    def greedy(self, ram_weight: float, instruction_weight: float) -> Iterator[Estimate]:
        """Every plan on the way from nothing to the highest score that a run reaches."""
        current = self.estimate(Plan())
        while True:
            best, best_rate = None, 0.0
            for plan in self._moves(current.plan):
                after = self.estimate(plan)
                gain = after.score - current.score
                if gain <= 0:
                    continue
                paid = ram_weight * (after.cost.ram - current.cost.ram) / self._whole[0]
                paid += instruction_weight * (after.cost.instructions - current.cost.instructions) / self._whole[1]
                rate = gain / max(paid, 1e-6)
                if rate > best_rate:
                    best, best_rate = after, rate
            if best is None:
                return
            current = best
            yield current

    def improved(self, start: Estimate) -> Estimate:
        """`start`, or a plan of a higher score at no higher cost that exchanges of one or two choices lead to."""
        current, limit = start, start.cost
        while True:
            found = [one for plan in self._exchanges(current.plan) if _within((one := self.estimate(plan)).cost, limit)]
            best = max(found, key=lambda one: one.score, default=current)
            if best.score <= current.score:
                return current
            current = best

    def _moves(self, plan: Plan) -> Iterator[Plan]:
        """Another choice for one layer."""
        for layer in self.layers:
            for choice in self.estimator.candidates[layer]:
                changed = plan.changed(layer, choice, self.layers)
                if changed != plan and changed.possible:
                    yield changed

    def _exchanges(self, plan: Plan) -> Iterator[Plan]:
        """One layer's choice taken back, or none, and another choice for one layer."""
        shorter = [plan.changed(layer, None, self.layers) for layer, _ in plan.choices]
        for base in (plan, *shorter):
            yield from self._moves(base)

    def _scale(self) -> Sequence[float]:
        """RAM and instructions of all layers with their best choices."""
        plan = Plan(tuple((layer, max(c, key=lambda one: c[one])) for layer, c in self.estimator.candidates.items()))
        cost = self.estimator.cost(plan)
        return max(cost.ram, 1), max(cost.instructions, 1)


def _within(cost: Cost, limit: Cost) -> bool:
    return cost.ram <= limit.ram and cost.state <= limit.state and cost.instructions <= limit.instructions

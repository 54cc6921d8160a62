"""What `tinypeft plan` found, as facts: budgets, the frontier's plans with their figures, and the chosen one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tinypeft.planning.choices import Choice, Plan
from tinypeft.planning.costs import Compiled

SCHEMA = "tinypeft.plan/1"


@dataclass(frozen=True)
class Budget:
    """The most that a plan may take; None for what the board has, of instructions for any number.

    ram_bytes: all RAM of the firmware, stack and runtime included; flash_bytes: constants and code.
    """

    ram_bytes: int | None = None
    flash_bytes: int | None = None
    instructions_per_step: int | None = None

    def over(self, figures: Compiled) -> dict[str, int]:
        """By how much `figures` exceed it, of what they do."""
        limits = (
            ("RAM", figures.ram_bytes, self.ram_bytes),
            ("flash", figures.flash_bytes, self.flash_bytes),
            ("instructions a step", figures.instructions, self.instructions_per_step),
        )
        return {name: used - limit for name, used, limit in limits if limit is not None and used > limit}


@dataclass(frozen=True)
class LayerFacts:
    """What is trained in a layer; `score_share` of the best of every layer."""

    layer: str
    adapters: tuple[str, ...]
    r: int
    channels: tuple[int, ...]
    score_share: float
    label: str


@dataclass(frozen=True)
class PlanFacts:
    """A plan that was compiled. `instructions_measured`: counted under QEMU, None where they were not."""

    label: str
    layers: tuple[LayerFacts, ...]
    score: float
    score_share: float
    trainable_parameters: int
    adapter_bytes: int
    optimizer_bytes: int
    arena_bytes: int
    ram_bytes: int
    flash_bytes: int
    instructions_per_step: int
    instructions_measured: int | None
    chosen: bool


@dataclass(frozen=True)
class Sensitivity:
    """A layer's choice and its score, a share of the best of every layer added up."""

    layer: str
    label: str
    score: float
    score_share: float


@dataclass(frozen=True)
class Report:
    """Everything. `labels`: given, own (the model's own decisions) or none (the loss reads the input)."""

    schema: str
    tinypeft: str
    model: str
    board: str
    samples: int
    labels: str
    budget: Budget
    sensitivity: tuple[Sensitivity, ...]
    frontier: tuple[PlanFacts, ...]

    @property
    def chosen(self) -> PlanFacts:
        """The plan that the configuration is of."""
        return next(plan for plan in self.frontier if plan.chosen)

    def as_json(self) -> dict[str, Any]:
        """As the schema has it."""
        return asdict(self)


def layer_facts(plan: Plan, shares: dict[tuple[str, Choice], float]) -> tuple[LayerFacts, ...]:
    """The facts of each layer of `plan`."""
    return tuple(
        LayerFacts(layer, choice.kinds, choice.r, choice.channels, shares[layer, choice], choice.label)
        for layer, choice in plan.choices
    )

"""A frontier as a self-contained page: what plans score against their RAM and their instructions, and their table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tinypeft.planning.report import PlanFacts, Report
from tinypeft.resources import template

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 300, 52, 20, 14, 44
_TICKS = 5


@dataclass(frozen=True)
class Tick:
    """A line of the grid: where it lies, and its number."""

    at: float
    text: str


@dataclass(frozen=True)
class Point:
    """A plan in a chart; `tip` is what hovering shows."""

    x: float
    y: float
    tip: str
    chosen: bool


@dataclass(frozen=True)
class Chart:
    """One chart, in SVG units; `limit` is where the budget lies, None where there is none in sight."""

    title: str
    unit: str
    points: list[Point]
    line: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    limit: float | None


def render_frontier(report: Report) -> str:
    """The page; the same report gives the same text."""
    budget = report.budget
    charts = [
        _chart(report, "RAM", "B", lambda plan: plan.ram_bytes, budget.ram_bytes),
        _chart(report, "Instructions a training step", "", _instructions, budget.instructions_per_step),
    ]
    sizes = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "top": TOP, "bottom": BOTTOM}
    return template("report/frontier.html.j2").render(report=report, charts=charts, **sizes)


def _instructions(plan: PlanFacts) -> int:
    return plan.instructions_measured or plan.instructions_per_step


def _chart(report: Report, title: str, unit: str, cost: Callable[[PlanFacts], int], limit: int | None) -> Chart:
    plans = sorted(report.frontier, key=lambda plan: (cost(plan), plan.score))
    step = _step(max(cost(plan) for plan in plans))
    end = step * (max(cost(plan) for plan in plans) // step + 1)

    def across(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * value / end, 2)

    def up(share: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share, 2)

    points = [
        Point(across(cost(p)), up(p.score_share), f"{p.score_share:.1%}, {cost(p):,} {unit}\n{p.label}", p.chosen)
        for p in plans
    ]
    steps, highest = "", 0.0
    for plan in plans:
        if plan.score_share > highest:
            x, y = across(cost(plan)), up(plan.score_share)
            steps += f"H{x:g}V{y:g}" if steps else f"M{x:g} {up(0):g}V{y:g}"
            highest = plan.score_share
    x_ticks = [Tick(across(value), _short(value)) for value in range(0, end + 1, step)]
    y_ticks = [Tick(up(i / 4), f"{i / 4:.0%}") for i in range(5)]
    inside = limit is not None and limit <= end
    return Chart(title, unit, points, steps, x_ticks, y_ticks, across(limit) if inside and limit is not None else None)


def _step(most: int) -> int:
    """A round distance of the lines of a grid that reaches `most`."""
    size = 1
    while True:
        for factor in (1, 2, 5):
            if size * factor * _TICKS >= most:
                return size * factor
        size *= 10


def _short(value: int) -> str:
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return str(value)

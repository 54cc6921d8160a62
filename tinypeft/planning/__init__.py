"""Planning: a model, samples and budgets in, what to train where out: scores, true costs, a frontier, the choice."""

from tinypeft.planning.config_file import config_text
from tinypeft.planning.costs import Setting
from tinypeft.planning.measure import measured_step
from tinypeft.planning.plot import render_frontier
from tinypeft.planning.report import SCHEMA, Budget, PlanFacts, Report
from tinypeft.planning.run import Planned, Survey, plan_adapters

__all__ = [
    "SCHEMA",
    "Budget",
    "PlanFacts",
    "Planned",
    "Report",
    "Setting",
    "Survey",
    "config_text",
    "measured_step",
    "plan_adapters",
    "render_frontier",
]

"""A picture of the personalisation benchmark: every user's result by method, and the means."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from tinypeft.benchmark.datasets import BenchmarkDataset
from tinypeft.benchmark.device_results import DeviceSummary
from tinypeft.benchmark.float_baselines import Summary
from tinypeft.errors import OutputError, ToolError

FORMATS = (".svg", ".png", ".pdf")


def check_plot(path: Path) -> None:
    """OutputError for a name that no picture can have or a missing folder, ToolError without matplotlib."""
    if path.suffix not in FORMATS:
        raise OutputError(f"{path} is no name of a picture", "end it with " + ", ".join(FORMATS))
    if not path.resolve().parent.is_dir():
        raise OutputError(f"{path} cannot be written: its folder does not exist", f"mkdir -p {path.parent}")
    if importlib.util.find_spec("matplotlib") is None:
        raise ToolError("plots need matplotlib, which is not installed", "pip install 'tinypeft[plot]'")


def plot_users(path: Path, dataset: BenchmarkDataset, summaries: Sequence[Summary | DeviceSummary]) -> None:
    """Write the picture: a column a method, a dot a user, a line the mean. The same results give the same picture."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "tinypeft"
    figure = Figure(figsize=(1.6 + 0.9 * len(summaries), 4.5), layout="constrained")
    axes = figure.add_subplot()
    labels = []
    for column, summary in enumerate(summaries):
        integer = isinstance(summary, DeviceSummary)
        labels.append(summary.method if integer else f"float\n{summary.method}")
        values = [summary.users[user] for user in sorted(summary.users)]
        axes.plot([column] * len(values), values, "o", alpha=0.6, color="tab:blue" if integer else "tab:grey")
        axes.hlines(summary.mean, column - 0.3, column + 0.3, color="black")
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_ylabel(dataset.metric)
    axes.set_title(f"{dataset.name}: users (dots) and their mean (line)")
    axes.grid(axis="y", alpha=0.3)
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}", "choose another folder") from error

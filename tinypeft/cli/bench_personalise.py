"""`tinypeft bench personalise`: how well each adapter kind fits a model to users, beside training in float."""

from __future__ import annotations

import os
from pathlib import Path

import click
from rich.table import Table

from tinypeft.benchmark import DATASETS, BenchmarkDataset, Summary, float_results, load_benchmark, summarize
from tinypeft.benchmark import METHODS as FLOAT_METHODS
from tinypeft.benchmark.device_results import DeviceSummary, device_results, summarize_device
from tinypeft.benchmark.methods import METHODS
from tinypeft.benchmark.plot import check_plot, plot_users
from tinypeft.cli.on_device import progress_bars
from tinypeft.cli.output import console, json_option, print_json
from tinypeft.errors import DataError


@click.command("personalise")
@click.option("--dataset", type=click.Choice(sorted(DATASETS)), default="fsdd", show_default=True, help="Whose users.")
@click.option("--methods", default=",".join(METHODS), show_default=True, help="Integer methods, with commas.")
@click.option(
    "--floats",
    default=",".join(FLOAT_METHODS),
    show_default=True,
    help="Float training beside them, with commas; full is tuned over rates, which takes long. '' for none.",
)
@click.option("--users", help="Only these, with commas.")
@click.option("--seeds", type=click.IntRange(1, 100), default=5, show_default=True, help="Runs a user.")
@click.option("--guard", is_flag=True, help="With guard rails: keep an adapter only if samples held back say so.")
@click.option("--workers", type=click.IntRange(1), default=os.cpu_count() or 1, help="Users trained at a time.")
@click.option("--plot", metavar="F", help="Draw each user's result by method: .svg, .png or .pdf.")
@json_option
def personalise(
    dataset: str,
    methods: str,
    floats: str,
    users: str | None,
    seeds: int,
    guard: bool,
    workers: int,
    plot: str | None,
    as_json: bool,
) -> None:
    """Personalise a base model for every user of a dataset, on the host twin; results are cached.

    The data is in $TINYPEFT_DATA; the base models are trained on first use.
    """
    if plot is not None:
        check_plot(Path(plot))
    data = load_benchmark(dataset)
    chosen = _chosen(users, data.users())
    numbers = list(range(seeds))
    with progress_bars() as progress:

        def show(what: str, done: int, total: int) -> None:
            progress("float", done, total)

        def show_device(what: str, done: int, total: int) -> None:
            progress("on the device", done, total)

        integer = device_results(
            data, _names(methods), numbers, chosen, guard=guard, workers=workers, progress=show_device
        )
        real = float_results(data, _names(floats), numbers, chosen, show) if _names(floats) else []
    on_device, in_float = summarize_device(data, integer), summarize(data, real)
    if plot is not None:
        plot_users(Path(plot), data, [*in_float, *on_device])
    if as_json:
        facts = {"dataset": dataset, "metric": data.metric, "seeds": seeds, "guard": guard, "epochs": data.epochs}
        print_json(facts | {"float": in_float, "device": on_device})
        return
    console().print(_table(data, in_float, on_device))


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def _chosen(users: str | None, known: list[str]) -> list[str] | None:
    if users is None:
        return None
    chosen = _names(users)
    for name in chosen:
        if name not in known:
            raise DataError(f"there is no user {name!r}", "choose from: " + ", ".join(known))
    return chosen


def _table(dataset: BenchmarkDataset, in_float: list[Summary], on_device: list[DeviceSummary]) -> Table:
    """Means of users' means; "lost" is the most that a run is below the fresh adapter."""
    accurate = dataset.metric == "accuracy"

    def value(number: float) -> str:
        return f"{100 * number:.1f} %" if accurate else f"{number:.4g}"

    title = f"{dataset.name}: {dataset.metric} on each user's own test samples"
    columns = "method", "rate", "mean", "worst", "lost", "parameters", "package", "arena", "state", "step / inference"
    table = Table(*columns, title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for f in in_float:
        table.add_row(f"float {f.method}", f"{f.rate:g}", value(f.mean), value(f.worst))
    table.add_section()
    for s in on_device:
        cost = s.cost
        table.add_row(
            s.method,
            f"{s.rate:g}",
            value(s.mean),
            value(s.worst),
            value(max(s.lost, 0.0)),
            f"{cost.parameters:,}",
            f"{cost.package_bytes:,} B",
            f"{cost.arena_bytes:,} B",
            f"{cost.state_bytes:,} B",
            f"{cost.training_macs / max(cost.inference_macs, 1):.2f} × MACs",
        )
    return table

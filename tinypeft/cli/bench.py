"""`tinypeft bench`: how good tinypeft is, measured. A benchmark is a command of this group."""

from __future__ import annotations

import difflib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
from rich.table import Table

from tinypeft.adapters import AdapterConfig
from tinypeft.cli.bench_model import model
from tinypeft.cli.bench_personalise import personalise
from tinypeft.cli.output import console, json_option, print_json, progress_console
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.data import load_array
from tinypeft.demo import make_model
from tinypeft.errors import AdapterError
from tinypeft.frontend import LoadedModel, load_model
from tinypeft.generate import open_project
from tinypeft.ir import Graph
from tinypeft.planner import Plan, cp_sat, live_buffers, native, plan_arena
from tinypeft.planner.arena import Effort, Progress
from tinypeft.planner.greedy import greedy_packings
from tinypeft.planner.instances import Instance, read_instances
from tinypeft.planner.packing import make_packing
from tinypeft.stages.autodiff import TrainingConfig


@dataclass(frozen=True)
class PlannerResult:
    """A row of the planner's benchmark; sizes in bytes. `greedy_bytes` is what TFLite Micro's planner needs."""

    name: str
    buffers: int
    lower_bound: int
    greedy_bytes: int
    arena_bytes: int
    bound: int
    gap_bytes: int
    gap_percent: float
    optimal: bool
    proof: str
    method: str
    nodes: int
    seconds: float


class Benchmarks(click.Group):
    """Its commands, and `bench MODEL`, which is short for `bench model MODEL`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's; arguments that begin with no command are those of `model`."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            word = args[0]
            if not word.startswith("-") and not Path(word).suffix and not Path(word).exists():
                nearest = difflib.get_close_matches(word, self.commands, n=1)
                hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
                ctx.fail(f"No such command and no such file {word!r}.{hint}")
            args = [model.name or "model", *args]
        return super().parse_args(ctx, args)


@click.group("bench", cls=Benchmarks)
def command() -> None:
    """Measure: what a model costs on a core, the memory planner, personalisation.

    `bench MODEL` is short for `bench model MODEL`.
    """


command.add_command(model)
command.add_command(personalise)


@command.command("planner")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--instances", metavar="DIR", help="Instances in MiniMalloc's form, a folder of .csv files or one file.")
@click.option(
    "--time-limit", type=click.FloatRange(0, min_open=True), default=60.0, show_default=True, help="Seconds for each."
)
@click.option(
    "--effort",
    type=click.Choice(["exact", "fast"]),
    default="exact",
    show_default=True,
    help="fast: what every compilation does, bounded by counts instead of time.",
)
@json_option
def planner(models: tuple[str, ...], instances: str | None, time_limit: float, effort: Effort, as_json: bool) -> None:
    """Plan instances and the graphs of MODELs (int8 .tflite, or folders that `generate` wrote), beside greedy by size.

    Of a .tflite: inference alone, and training with the default adapter. Without any of these: the demo's model.
    """
    with progress_console().status("reading") as status:
        found = read_instances(Path(instances)) if instances else []

        def note(text: str) -> None:
            status.console.print(text, markup=False)

        for model in models:
            found += _graphs_of(model, note)
        if not found:
            note("no instances and no model given: this runs on the demo's model, which Keras trains now")
            found = _demo_graphs(status.update, note)
        missing = _missing() if effort == "exact" else []
        for line in missing:
            note(line)
        results = []
        for instance in found:
            results.append(_measure(instance, time_limit, effort, status.update))
            note(_line(results[-1]))
    if as_json:
        print_json({"effort": effort, "time_limit": time_limit, "missing": missing, "instances": results})
        return
    console().print(_table(results))


def _missing() -> list[str]:
    """What would make the searches better here, and why it is not there."""
    lines = []
    reason = native.why_not_native()
    if reason is not None:
        lines.append(f"the exact search runs in Python, some fifty times slower than in C: {reason}")
    if not cp_sat.available():
        lines.append("CP-SAT does not take part: pip install 'tinypeft[planner]'")
    return lines


def _graphs_of(path: str, note: Callable[[str], None]) -> list[Instance]:
    """The inference and the training graph of a .tflite or of a generated folder."""
    if Path(path).is_dir():
        model = open_project(path).model
        return [_instance(model, graph) for graph in (model.inference, model.training) if graph is not None]
    return _graphs_of_source(load_model(path), note)


def _graphs_of_source(source: LoadedModel, note: Callable[[str], None]) -> list[Instance]:
    bare = compile_model(source.name, source.fingerprint, source.graph, AdapterConfig("none"), TrainingConfig())
    found = [_instance(bare, bare.inference)]
    try:
        adapted = compile_model(source.name, source.fingerprint, source.graph, AdapterConfig(), TrainingConfig())
    except AdapterError as error:
        note(f"{source.name}: inference only; {error.message}")
        return found
    return found + [_instance(adapted, graph) for graph in (adapted.training,) if graph is not None]


def _demo_graphs(progress: Callable[[str], None], note: Callable[[str], None]) -> list[Instance]:
    progress("training the demo's model")
    with tempfile.TemporaryDirectory(prefix="tinypeft-") as folder:
        files = make_model(Path(folder))
        source = load_model(files.model, load_array(f"{files.data}:x_base"), progress)
    return _graphs_of_source(source, note)


def _instance(model: CompiledModel, graph: Graph) -> Instance:
    buffers = live_buffers(graph)
    inputs = {tensor.name for tensor in model.inference.inputs}
    return Instance(f"{model.name} {graph.name}", buffers, {b.name: 0 for b in buffers if b.name in inputs})


def _measure(instance: Instance, time_limit: float, effort: Effort, progress: Callable[[str], None]) -> PlannerResult:
    begin = time.monotonic()

    def tell(state: Progress) -> None:
        progress(
            f"{instance.name}: {state.arena_bytes:,} B, at least {state.bound:,} B; {state.method}; "
            f"{state.nodes:,} nodes, {time.monotonic() - begin:.0f} s"
        )

    progress(f"{instance.name}: {len(instance.buffers)} buffers")
    plan = plan_arena(instance.buffers, instance.pinned, effort=effort, time_limit=time_limit, changed=tell)
    seconds = time.monotonic() - begin
    return PlannerResult(
        instance.name,
        len(instance.buffers),
        plan.lower_bound,
        _greedy_bytes(instance),
        plan.arena_bytes,
        plan.bound,
        plan.gap,
        round(_percent(plan), 3),
        plan.optimal,
        plan.proof,
        plan.method,
        plan.nodes,
        round(seconds, 2),
    )


def _greedy_bytes(instance: Instance) -> int:
    """What first fit by size needs."""
    packing = make_packing([b for b in instance.buffers if b.size], instance.pinned)
    _, _, offsets = next(greedy_packings(packing))
    return packing.height(offsets) * packing.granule


def _percent(plan: Plan) -> float:
    return 100.0 * plan.gap / plan.bound if plan.bound else 0.0


def _verdict(result: PlannerResult) -> str:
    if result.optimal:
        return "optimal (proved)"
    return f"{result.gap_bytes:,} B ({result.gap_percent:.2f} %)"


def _line(result: PlannerResult) -> str:
    return f"{result.name}: {result.arena_bytes:,} B, {_verdict(result)}, {result.seconds:.1f} s"


def _table(results: list[PlannerResult]) -> Table:
    table = Table("instance", "buffers", "lower bound", "greedy by size", "ours", "gap", "proof", "found by", "seconds")
    for column in (1, 2, 3, 4, 8):
        table.columns[column].justify = "right"
    for r in results:
        table.add_row(
            r.name,
            f"{r.buffers:,}",
            f"{r.bound:,}",
            f"{r.greedy_bytes:,}",
            f"{r.arena_bytes:,}",
            _verdict(r),
            r.proof if r.optimal else "",
            r.method,
            f"{r.seconds:.1f}",
        )
    return table

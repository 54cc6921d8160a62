"""Fuzz the firmware's parsers: how often in all, and how long at most, in; a line for each target and findings out.

`python fuzz.py [--runs N] [--seconds S] [target ...]`
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from seeds import write_seeds
from targets import BUILD, TARGETS, CannotFuzzError, Result, Target, build, require_fuzzer, run


def shares(targets: list[Target], runs: int) -> dict[str, int]:
    """How often each target runs: slow ones less often, and `runs` in all."""
    whole = sum(target.share for target in targets)
    counts = {target.name: int(runs * target.share / whole) for target in targets}
    counts[targets[0].name] += runs - sum(counts.values())
    return counts


@contextmanager
def progress_bar(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield bar


def fuzz(target: Target, runs: int, seconds: int, console: Console) -> Result:
    """Build and run one target."""
    folder = BUILD / target.name
    with progress_bar(console) as bar:
        task = bar.add_task(f"building {target.name}", total=runs)
        program = build(target, folder)
        write_seeds(target, folder / "seeds")
        bar.update(task, description=target.name)
        begin = time.monotonic()
        result = run(target, program, folder, runs, seconds, lambda done: bar.update(task, completed=done))
    return replace(result, seconds=time.monotonic() - begin)


def line(target: Target, result: Result) -> str:
    """One line about a run."""
    rate = result.executions / max(result.seconds, 0.001)
    return (
        f"{target.name:8} {result.executions:>11,} executions in {result.seconds:7.1f} s, {rate:8,.0f}/s, "
        f"{result.edges:5} edges" + (", a finding" if result.found else "")
    )


def main() -> int:
    """0, or 1 where anything was found."""
    parser = argparse.ArgumentParser(description="Fuzz the firmware's parsers with libFuzzer and sanitizers.")
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--runs", type=int, default=10_000_000, help="executions in all (default: 10,000,000)")
    parser.add_argument("--seconds", type=int, default=0, help="at most so long for each target (default: no limit)")
    options = parser.parse_args()
    if unknown := [name for name in options.targets if name not in TARGETS]:
        parser.error(f"no target {', '.join(unknown)}; try one of {', '.join(TARGETS)}")
    if options.runs < 1 or options.seconds < 0:
        parser.error(f"--runs {options.runs}, --seconds {options.seconds}: try --runs 100000 --seconds 60")
    console = Console(highlight=False)
    try:
        require_fuzzer()
    except CannotFuzzError as error:
        sys.exit(f"error: {error}")
    chosen = [TARGETS[name] for name in options.targets or TARGETS]
    results: dict[str, Result] = {}
    for target, runs in zip(chosen, shares(chosen, options.runs).values(), strict=True):
        try:
            result = results[target.name] = fuzz(target, runs, options.seconds, console)
        except subprocess.CalledProcessError:
            sys.exit(f"error: {target.name} does not compile; try: read what clang says above")
        except RuntimeError as error:
            sys.exit(f"error: {error}")
        console.print(line(target, result), soft_wrap=True)
        if result.found:
            program = BUILD / target.name / target.name
            console.print(f"  {result.reason}\n  again: {program} {result.found}", soft_wrap=True)
    findings = sum(result.found is not None for result in results.values())
    console.print(f"{sum(result.executions for result in results.values()):,} executions in all, {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())

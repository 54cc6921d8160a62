"""Draw random models and compare them: batches of one source, run by processes side by side."""

from __future__ import annotations

import importlib.util
import json
import math
import multiprocessing
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
from choices import HypothesisChoices
from comparing import FINDING, LITERT, Case, Result
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import seed as start_from
from hypothesis import strategies as st
from processes import Comparer, Crashed, Server, converter
from random_graphs import draw_graph
from random_keras import Specification, draw_keras
from random_operators import KINDS, operator_file
from report import Finding, Tally
from twins import can_emulate, prepare_library

from tinypeft.adapters import AdapterConfig

OPERATORS, GRAPHS, KERAS = "operator", "graph", "keras"
#: Percent of all models
SHARES = {GRAPHS: 60, OPERATORS: 30, KERAS: 10}
#: Models drawn from one seed of Hypothesis: a failure ends them
BATCH = 50
#: One model in so many is emulated too
EMULATED = 25
#: Seconds for which a failure is shrunk
SHRINKING = 30.0


@dataclass(frozen=True)
class Batch:
    """`count` models of one source from one seed; `first` is the number of the first among those of its source."""

    source: str
    seed: int
    first: int
    count: int


def batches(total: int, seed: int, shares: dict[str, int]) -> list[Batch]:
    """`total` models in batches, by the percentages of their sources."""
    result = []
    for number, (source, share) in enumerate(shares.items()):
        count = total * share // 100
        for first in range(0, count, BATCH):
            result.append(
                Batch(source, seed * 1_000_003 + number * 100_003 + 1000 * first, first, min(BATCH, count - first))
            )
    return result


class Campaign:
    """Compares cases in one process of its own; Keras models are converted in another.

    `folder` may be shared; `own` is the folder of this campaign. From the time `end` on it begins no model.
    """

    def __init__(self, folder: Path, own: Path, emulate: bool = True, end: float = math.inf):
        self.end = end
        self.comparer = Server(Comparer(folder / "shared"), own / "comparer")
        self.converter = Server(converter, own / "converter")
        self.emulate = emulate and can_emulate() is None
        self.tally = Tally()
        self._numbers: dict[str, int] = {}

    def close(self) -> None:
        """End the processes."""
        self.comparer.stop()
        self.converter.stop()

    def run(self, batch: Batch) -> None:
        """Compare a batch's models."""
        if batch.source == OPERATORS:
            self._operators(batch)
        else:
            left = batch.count
            for seed in range(batch.seed, batch.seed + 10 * batch.count):
                left -= self._drawn(batch.source, seed, left) if left and time.time() < self.end else 0

    def compare(self, case: Case, counted: bool = True) -> Result:
        """The result for one case; a process that ended is a result as well."""
        if counted:
            number = self._numbers.get(case.source, 0)
            self._numbers[case.source] = number + 1
            case = replace(case, emulate=self.emulate and number % EMULATED == EMULATED // 2)
        begin = time.monotonic()
        try:
            result = self.comparer.ask(case)
        except Crashed as crash:
            by_litert = crash.stage == "LiteRT"
            said = "LiteRT aborted" if by_litert else f"the process ended while {crash.stage}: {crash.said}"
            result = Result(LITERT if by_litert else FINDING, said)
        if counted:
            self.tally.add(case.source.split()[0], result, time.monotonic() - begin)
        return result

    def _operators(self, batch: Batch) -> None:
        for number in range(batch.first, batch.first + batch.count):
            if time.time() > self.end:
                return
            kind = KINDS[number % len(KINDS)]
            rng = np.random.default_rng((batch.seed, number))
            case = Case(f"{OPERATORS} {kind}", operator_file(rng, kind), number)
            result = self.compare(replace(case, source=OPERATORS))
            if result.outcome == FINDING:
                self.tally.findings.append(Finding(case, result, f"seed ({batch.seed}, {number})"))

    def _drawn(self, source: str, seed: int, count: int) -> int:
        """Draw up to `count` models by Hypothesis and compare them; returns how many.

        They are fewer where it draws the same twice, and where one fails, which is shrunk.
        """
        known: dict[Any, tuple[Case, Result]] = {}
        failing: list[tuple[Case, Result]] = []
        compared, since = 0, 0.0

        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
            print_blob=False,
            report_multiple_bugs=False,
        )
        @start_from(seed)
        @given(st.data())
        def draw(data: Any) -> None:
            nonlocal compared, since
            drawn = (draw_graph if source == GRAPHS else draw_keras)(HypothesisChoices(data))
            key = drawn if isinstance(drawn, Case) else json.dumps(drawn)
            if key not in known:
                if failing and time.monotonic() - since > SHRINKING:
                    reject()
                if time.time() > self.end:
                    return
                known[key] = self._compared(drawn, counted=not failing)
                compared += not failing
            case, result = known[key]
            if result.outcome == FINDING and (not failing or result.signature == failing[0][1].signature):
                since = since or time.monotonic()
                failing.append((case, result))
                raise AssertionError(result.reason)

        try:
            draw()
        except Exception:
            if not failing:
                raise
            case, result = min(failing, key=lambda each: len(each[0].tflite))
            self.tally.findings.append(Finding(case, result, f"seed {seed}"))
        return compared

    def _compared(self, drawn: Case | Specification, counted: bool) -> tuple[Case, Result]:
        """The case of what was drawn, a Keras model converted before, and its result."""
        if isinstance(drawn, Case):
            return drawn, self.compare(drawn, counted)
        case = Case(KERAS, b"", drawn["seed"] & 0xFFFFF)
        try:
            converted = self.converter.ask(drawn)
            problem = f"the converter refused: {converted}" if isinstance(converted, str) else ""
        except Crashed as crash:
            problem = f"the converter ended: {crash.said[:60]}"
        if problem:
            result = Result(LITERT, problem)
            if counted:
                self.tally.add(KERAS, result)
            return case, result
        tflite, layers, built = converted
        if counted:
            self.tally.layers.update(built)
        case = replace(case, tflite=tflite, keras_layers=layers)
        if drawn["trained"]:
            case = replace(case, adapter=AdapterConfig(r=2), steps=2)
        return case, self.compare(case, counted)


def run_batches(
    work: list[Batch], folder: Path, workers: int, progress: Callable[[Tally], None], limit: float = 1e9
) -> Tally:
    """All batches by `workers` processes; Keras models by the first of them alone. `progress` gets the sum so far.

    Models that are not begun within `limit` seconds are left out.
    """
    end = time.time() + limit
    shutil.rmtree(folder / "runs", ignore_errors=True)
    prepare_library(folder / "shared")
    context = multiprocessing.get_context("spawn")
    general, keras, results = context.Queue(), context.Queue(), context.Queue()
    for batch in work:
        (keras if batch.source == KERAS else general).put(batch)
    processes = [
        context.Process(target=_work, args=(folder, i, [keras, general] if i == 0 else [general], results, end))
        for i in range(workers)
    ]
    for process in processes:
        process.start()
    total, left = Tally(), len(work)
    try:
        while left:
            try:
                tally = results.get(timeout=5)
            except Empty:
                if not any(process.is_alive() for process in processes):
                    raise RuntimeError(f"the processes ended with {left} batches left") from None
                continue
            total.merge(tally)
            left -= 1
            progress(total)
    finally:
        for process in processes:
            process.join(10)
            process.terminate()
    return total


def _work(folder: Path, number: int, queues: list[Any], results: Any, end: float) -> None:
    campaign = Campaign(folder, folder / "runs" / str(number), end=end)
    try:
        for batch in _taken(queues):
            campaign.tally = Tally()
            try:
                campaign.run(batch)
            except Exception:  # a defect of the fuzzer itself
                failed = Result(FINDING, f"the fuzzer failed: {traceback.format_exc()}")
                campaign.tally.findings.append(Finding(Case(batch.source, b"", 0), failed, f"{batch}"))
            results.put(campaign.tally)
    finally:
        campaign.close()


def _taken(queues: list[Any]) -> Iterator[Batch]:
    """The batches of the queues, one queue after the other."""
    for queue in queues:
        while True:
            try:
                yield queue.get(timeout=0.5)
            except Empty:
                break


def has_tensorflow() -> bool:
    """Whether Keras models can be converted here."""
    return importlib.util.find_spec("tensorflow") is not None

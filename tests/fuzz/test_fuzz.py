"""A short run of the fuzzer from a fixed seed, and that it would find what it is for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import comparing
import numpy as np
import pytest
from campaign import GRAPHS, KERAS, OPERATORS, Batch, Campaign, batches, has_tensorflow
from choices import RandomChoices
from comparing import EQUAL, FINDING, LITERT, REFUSED, Case, compare
from processes import Crashed, Server
from random_graphs import draw_graph
from random_operators import KINDS, operator_file
from report import Finding, Tally, load_case, save_finding
from tflite_builder import Node, build_model, int8_tensor, int32_constant
from twins import Toolbox

from tinypeft.ops import OPS
from tinypeft.oracle import LiteRtOracle

SEED = 7
#: Models by source, so few that all take some twenty seconds
COUNTS = {GRAPHS: 12, OPERATORS: 16, KERAS: 4}


@pytest.mark.parametrize("source", COUNTS)
def test_random_models_are_equal(shared: Path, tmp_path: Path, source: str) -> None:
    if source == KERAS and not has_tensorflow():
        pytest.skip("TensorFlow is not installed")
    campaign = Campaign(shared, tmp_path)
    try:
        campaign.run(Batch(source, SEED, 0, COUNTS[source]))
    finally:
        campaign.close()
    assert not campaign.tally.failed, "\n".join(campaign.tally.lines(0))
    assert campaign.tally.outcomes[EQUAL] >= COUNTS[source] * 0.7, "\n".join(campaign.tally.lines(0))
    assert campaign.tally.models.total() == COUNTS[source] and campaign.tally.bytes > 1000


def test_every_source_has_its_share() -> None:
    work = batches(2000, 3, {GRAPHS: 60, OPERATORS: 30, KERAS: 10})
    counts = {source: sum(b.count for b in work if b.source == source) for source in COUNTS}
    assert counts == {GRAPHS: 1200, OPERATORS: 600, KERAS: 200}
    assert len({b.seed for b in work}) == len(work)


def test_every_kind_of_operator_makes_a_file() -> None:
    for kind in KINDS:
        for seed in range(5):
            assert operator_file(np.random.default_rng(seed), kind)[4:8] == b"TFL3"


def trained_case() -> Case:
    """A graph with adapters, trained by SGD."""
    seeds = (np.random.default_rng(seed) for seed in range(100))
    return next(
        case for case in map(draw_graph, map(RandomChoices, seeds)) if case.steps and case.training.optimizer == "sgd"
    )


def test_a_wrong_bit_of_a_training_step_is_found(toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch) -> None:
    case, right = trained_case(), OPS["SGD"].evaluate
    assert compare(case, toolbox, lambda stage: None).outcome == EQUAL

    def wrong(op: Any, values: Any) -> Any:
        results = {name: np.array(value) for name, value in right(op, values).items()}
        results["master"].reshape(-1)[-1:].view(np.int32)[:] ^= 1
        return results

    monkeypatch.setattr(OPS["SGD"], "evaluate", wrong)
    divergence = compare(case, toolbox, lambda stage: None).divergence
    assert divergence is not None and divergence["phase"] in ("training", "update")
    assert (
        divergence["operator"] in ("UPDATE_ROWS", "UPDATE_FROM_SUMS")
        and divergence["between"] == "interpreter and host"
    )


def test_a_bit_that_litert_has_otherwise_is_found(toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch) -> None:
    case, right = trained_case(), LiteRtOracle.layers

    def wrong(oracle: LiteRtOracle, sample: np.ndarray) -> dict[int, np.ndarray]:
        layers = right(oracle, sample)
        layers[max(layers)].reshape(-1)[-1:].view(np.uint8)[0] ^= 1
        return layers

    monkeypatch.setattr(LiteRtOracle, "layers", wrong)
    divergence = compare(case, toolbox, lambda stage: None).divergence
    assert divergence is not None and divergence["between"] == "LiteRT and interpreter"
    assert abs(divergence["expected"] - divergence["actual"]) == 1


def test_undefined_behaviour_ends_the_process_and_is_told(shared: Path, tmp_path: Path) -> None:
    server = Server(_Overflowing(shared), tmp_path)
    with pytest.raises(Crashed) as crash:
        server.ask(None)
    assert crash.value.stage == "running on host" and "signed integer overflow" in crash.value.said
    server.stop()


class _Overflowing:
    """Makes a function that loads a library which overflows."""

    def __init__(self, shared: Path):
        self.shared = shared

    def __call__(self, folder: Path) -> Callable[[Any, Callable[[str], None]], Any]:
        import ctypes
        import subprocess

        from twins import TWIN_FLAGS

        (folder / "o.c").write_text("int over(int a); int over(int a) { return a + 2147483647; }\n")
        subprocess.run(["gcc", *TWIN_FLAGS, "-shared", "o.c", "-o", "o.so"], cwd=folder, check=True)

        def run(question: Any, stage: Callable[[str], None]) -> Any:
            stage("running on host")
            return ctypes.CDLL(str(folder / "o.so")).over(5)

        return run


def test_where_litert_stops_there_is_nothing_to_find(shared: Path, tmp_path: Path) -> None:
    """A SOFTMAX over 600 equal values, at which LiteRT aborts."""
    x, y = int8_tensor("x", (1, 600), 1e-4, 0), int8_tensor("y", (1, 600), 1 / 256, -128)
    data = build_model(Node("SOFTMAX", schema.SoftmaxOptionsT(beta=1.0), [x], [y]))
    campaign = Campaign(shared, tmp_path, emulate=False)
    result = campaign.compare(Case(OPERATORS, data, 0))
    assert (result.outcome, result.reason) == (LITERT, "LiteRT aborted")
    assert campaign.compare(Case(OPERATORS, operator_file(np.random.default_rng(1), "ADD"), 0)).outcome == EQUAL
    campaign.close()


def test_a_refusal_needs_a_documented_reason(toolbox: Toolbox, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = int8_tensor("x", (1, 4), 0.1), int8_tensor("y", (1, 1), 0.1)
    unsupported = Node("SUM", schema.ReducerOptionsT(keepDims=True), [x, int32_constant("axes", [1])], [y])
    limit = Node("LEAKY_RELU", schema.LeakyReluOptionsT(alpha=-0.5), [x], [int8_tensor("y", (1, 4), 0.1)])

    def outcome(node: Node) -> str:
        return compare(Case(GRAPHS, build_model(node), 0), toolbox, lambda stage: None).outcome

    assert outcome(unsupported) == outcome(limit) == REFUSED
    monkeypatch.setattr(comparing, "DOCUMENTED", ())
    assert outcome(unsupported) == REFUSED
    assert outcome(limit) == FINDING


def test_a_finding_is_saved_and_read_again(tmp_path: Path, toolbox: Toolbox) -> None:
    case = trained_case()
    result = compare(case, toolbox, lambda stage: None)
    tally = Tally(findings=[Finding(case, result, "seed 1")])
    assert tally.failed and "seed 1" in tally.lines(1)[-1]
    assert load_case(save_finding(tmp_path / "found", 4, tally.findings[0])) == case

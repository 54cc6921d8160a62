"""Projects measured operator by operator: what is said adds up to what the device counts, and to the ELF."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulation import need
from projects import BOARD, Built, save_model

from tinypeft.adapters import AdapterConfig
from tinypeft.boards import load_board
from tinypeft.counting import GraphCost, Measurement, measure, measure_project
from tinypeft.counting.code import read_functions
from tinypeft.counting.operators import kernel_of
from tinypeft.emulators import EMULATORS
from tinypeft.emulators.icount import Executed, Segment
from tinypeft.emulators.qemu import Qemu
from tinypeft.errors import AdapterError, BoardError, DeviceError, ToolError
from tinypeft.generate import generate_project
from tinypeft.ir import Graph


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    need("qemu", BOARD)


@pytest.fixture(scope="module")
def residual(project: Callable[[str], Built]) -> Built:
    return project("residual")


@pytest.fixture(scope="module")
def measured(residual: Built) -> Measurement:
    return measure_project(residual.directory, train=True)


def graphs(built: Built, measured: Measurement) -> list[tuple[Graph, GraphCost]]:
    assert built.model.training is not None and measured.train is not None
    return [(built.model.inference, measured.inference), (built.model.training, measured.train)]


def test_every_operator_that_runs_has_a_row(residual: Built, measured: Measurement) -> None:
    for graph, cost in graphs(residual, measured):
        running = {op.name: kernel for op in graph.operations if (kernel := kernel_of(op)) is not None}
        assert [row.name for row in cost.operators] == list(running)
        assert [row.kernel for row in cost.operators] == [kernel.call.function for kernel in running.values()]
        assert cost.macs == sum(op.op.macs(op) for op in graph.operations)


def test_operators_and_glue_are_what_the_device_counts_in_all(residual: Built, measured: Measurement) -> None:
    """By the other plugin, which knows nothing of operators."""
    rng = np.random.default_rng(0)
    inputs = [measure._random_input(residual.model.inference.inputs[0], rng) for _ in range(measure.STEP)]
    assert measured.train is not None
    with EMULATORS["qemu"].open(residual.directory, residual.opened.board, count_instructions=True) as device:
        device.infer(inputs[0])
        assert device.instructions() == measured.inference.instructions
        device.reset_adapter(0)
        for step, sample in enumerate(inputs):
            device.train_step(sample, step % residual.model.classes, 0.01)
        assert device.instructions() == measured.train.instructions
    for _, cost in graphs(residual, measured):
        assert cost.instructions == cost.glue_instructions + sum(row.instructions for row in cost.operators)
        assert cost.cycles is not None and cost.cycles > cost.instructions
        assert cost.glue_instructions < 50


def test_code_and_tables_are_those_of_the_project(residual: Built, measured: Measurement) -> None:
    sizes = {n: f.nbytes for f in read_functions(residual.directory / "build" / "firmware.elf") for n in f.names}
    weights = (residual.directory / "src" / "residual_weights.c").read_text()
    sizeof = {"int8_t": 1, "uint8_t": 1, "int16_t": 2, "int32_t": 4, "float": 4}
    found = re.findall(r"^const (\w+) \w+\[(\d+)\]", weights, re.MULTILINE)
    in_all = sum(sizeof[ctype] * int(count) for ctype, count in found)
    assert found
    for _, cost in graphs(residual, measured):
        for row in cost.operators:
            assert row.code_bytes >= sizes[row.kernel]
        assert cost.code_bytes <= sum(sizes.values())
        assert max(row.code_bytes for row in cost.operators) < cost.code_bytes
        assert cost.code_bytes <= cost.glue_code_bytes + sum(row.code_bytes for row in cost.operators)
        assert max(row.table_bytes for row in cost.operators) < cost.weight_bytes <= in_all
    assert measured.inference.arena_bytes == residual.model.arena.plans["inference"].arena_bytes


def test_json_holds_totals_operators_and_the_training_step(measured: Measurement) -> None:
    found = measured.as_json()
    assert (found["model"], found["board"], found["ran_on"], found["core"]) == ("residual", BOARD, BOARD, "cortex-m4")
    totals = {"instructions", "cycles", "macs", "code_bytes", "weight_bytes", "arena_bytes", "glue", "operators"}
    assert totals | {"model", "board", "ran_on", "core", "train"} == set(found)
    assert set(found["train"]) == totals
    for graph in (found, found["train"]):
        assert graph["instructions"] == graph["glue"]["instructions"] + sum(
            row["instructions"] for row in graph["operators"]
        )
        assert graph["cycles"] == graph["glue"]["cycles"] + sum(row["cycles"] for row in graph["operators"])
    row = found["operators"][0]
    assert row["instructions_per_mac"] == row["instructions"] / row["macs"]


def test_a_batch_and_vectors_are_measured_too(project: Callable[[str], Built]) -> None:
    for name in ("regression", "latents_batches"):
        found = measure_project(project(name).directory, train=True)
        assert found.train is not None and found.train.macs > found.inference.macs


def test_nothing_to_train(project: Callable[[str], Built]) -> None:
    with pytest.raises(AdapterError, match="has no adapter that could be trained"):
        measure_project(project("inference").directory, train=True)


def test_two_runs_that_differ_are_refused(residual: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter(range(2))

    def profiles(*arguments: Any) -> Iterator[list[Segment]]:
        yield [Segment(0, {0: Executed(next(counts))})]

    monkeypatch.setattr(measure, "_profiles", profiles)
    with pytest.raises(DeviceError, match="two runs of residual on stm32f4_discovery executed different instructions"):
        measure_project(residual.directory)


def test_calls_of_another_graph_are_refused(residual: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a call was inlined, or the folder's firmware is not that of its model."""
    monkeypatch.setattr(measure, "_profiles", lambda *arguments: [[Segment(0, {0: Executed(1)})]])
    with pytest.raises(DeviceError, match=r"inference made 0 of \d+ calls: next is tp_\w+ of"):
        measure_project(residual.directory)


def test_without_qemu(residual: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Qemu, "missing", lambda self: "qemu-system-arm is not installed")
    with pytest.raises(ToolError, match="nothing can be counted here: qemu-system-arm is not installed"):
        measure_project(residual.directory)


def test_a_plugin_that_qemu_refuses(residual: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As newer ones do, whose interface is another."""
    faulty = tmp_path / "faulty.so"
    faulty.write_bytes(b"no library")
    monkeypatch.setattr("tinypeft.emulators.qemu.build_profiler", lambda: (faulty, None))
    with pytest.raises(ToolError, match="QEMU refused the counting plugin, which speaks version 1") as refusal:
        measure_project(residual.directory)
    assert refusal.value.hint is not None and "QEMU 4.2 to 8.2" in refusal.value.hint


def test_the_host_has_no_instructions_to_count(tmp_path: Path) -> None:
    model = save_model("plain", tmp_path)
    generate_project(model, load_board("host"), tmp_path / "host", adapter=AdapterConfig("none"))
    with pytest.raises(BoardError, match="board host does not run on qemu"):
        measure_project(tmp_path / "host")

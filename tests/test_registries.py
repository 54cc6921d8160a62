"""Every registry, walked: what is found by its file alone must be complete and tested from the day it exists."""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import numpy as np
import pytest
from cases import CASES
from gradients import backward
from kernel_harness import FIRMWARE, block_float
from training_cases import KERNEL_CASES
from update_cases import ROW_CASES, held_by
from weighted_cases import WEIGHTED_CASES

from tinypeft import adapters, emulators, flashers, losses, ops, optimizers
from tinypeft.adapters import ADAPTERS, AdapterConfig
from tinypeft.boards import board_names, load_board
from tinypeft.compiler import compile_model
from tinypeft.emulators import EMULATORS
from tinypeft.errors import AdapterError
from tinypeft.flashers import FLASHERS
from tinypeft.ir import Graph, Operation, Purpose, Tensor, verify
from tinypeft.losses import INPUT, LOSSES, TARGETS
from tinypeft.ops import OPS, CArray, CPointers
from tinypeft.ops.base import Op, Value
from tinypeft.ops.loss import LossOp
from tinypeft.optimizers import OPTIMIZERS
from tinypeft.stages.autodiff import TrainingConfig

REGISTRIES: dict[str, tuple[dict[str, Any], Any]] = {
    "ops": (OPS, ops.register),
    "adapters": (ADAPTERS, adapters.register),
    "optimizers": (OPTIMIZERS, optimizers.register),
    "losses": (LOSSES, losses.register),
    "emulators": (EMULATORS, emulators.register),
    "flashers": (FLASHERS, flashers.register),
}
FORWARD = {**CASES, **WEIGHTED_CASES}
ENTRIES = [(registry, name) for registry, (entries, _) in REGISTRIES.items() for name in entries]


@functools.cache
def operations() -> dict[str, Operation]:
    """An example of every operator that some test compares with its kernel, by kind."""
    rng = np.random.default_rng(1)
    found: dict[str, Operation] = {}
    for kind, make in FORWARD.items():
        op = (CASES[kind](rng, kind=kind) if kind in CASES else make(rng)).operation()
        found[kind] = op
        if kind in CASES and op.op.differentiable:  # test_backward compares what these emit
            values: dict[str, Value] = {
                n: t.data if t.data is not None else np.zeros(t.shape, t.dtype) for n, t in op.inputs.items()
            }
            found |= {s.kind: s for s, _ in backward(op, values, block_float(rng, op.output.shape))[1] if s.kind in OPS}
    return found | {kind: make(rng, "op") for kind, make in KERNEL_CASES.items()} | {}


@functools.cache
def examples() -> dict[str, Operation]:
    """The same, cases without their values."""
    rows = {kind: held_by(make(np.random.default_rng(1), "op")[0])[kind] for kind, make in ROW_CASES.items()}
    return rows | {kind: case if isinstance(case, Operation) else case[0] for kind, case in operations().items()}


def missing_cases(registered: dict[str, Op], forward: Any, compared: Any) -> list[str]:
    """A sentence for every operator that lacks a case."""
    problems = []
    for name, op in registered.items():
        if op.importable and name not in forward:
            problems.append(f"{name} can be read from a .tflite file but has no case in CASES or WEIGHTED_CASES")
        if name not in compared:
            problems.append(f"{name} has no case that compares its kernel with evaluate; add one to KERNEL_CASES")
    return problems


def test_every_operator_has_a_case() -> None:
    assert missing_cases(OPS, FORWARD, examples()) == []


def test_an_operator_without_a_case_is_named() -> None:
    class Forgotten(Op):
        name = "FORGOTTEN"

    assert missing_cases({**OPS, "FORGOTTEN": Forgotten()}, FORWARD, examples()) == [
        "FORGOTTEN has no case that compares its kernel with evaluate; add one to KERNEL_CASES"
    ]
    assert len(missing_cases({"ADD": OPS["ADD"]}, {}, {})) == 2


def test_no_case_is_of_an_unknown_operator() -> None:
    assert set(FORWARD) | set(KERNEL_CASES) <= set(OPS)
    assert set(FORWARD) == {name for name, op in OPS.items() if op.importable}


@pytest.mark.parametrize("kind", OPS)
def test_the_kernel_is_in_its_source_and_in_a_header(kind: str) -> None:
    operation = examples()[kind]
    headers = "\n".join(path.read_text() for path in (FIRMWARE / "include" / "tinypeft").glob("*.h"))
    if kind in ROW_CASES:
        function = operation.op.row_function(operation)
        text = (FIRMWARE / "kernels" / OPS[kind].source).read_text()
        # a macro may define it
        assert re.search(rf"^(void |int |\w+\(){function.name}[(,]", text, re.M), (
            f"{function.name} is not in its source"
        )
        assert re.search(rf"^(void|int) {function.name}\(", headers, re.M), f"{function.name} is declared in no header"
        return
    call = operation.op.call(operation)
    if call is None:
        assert not OPS[kind].source, f"{kind} names a source but calls nothing"
        return
    text = (FIRMWARE / "kernels" / OPS[kind].source).read_text()
    assert re.search(rf"^void {call.function}\(", text, re.M), f"{call.function} is not in {OPS[kind].source}"
    declared = re.search(rf"^void {call.function}\(([^;]*)\);", headers, re.M)
    assert declared, f"{call.function} is declared in no header"
    given = len(call.arguments) + bool(call.params) + bool(operation.op.scratch_bytes(operation))
    assert declared[1].count(",") + 1 == given, f"{call.function} takes {declared[1]}; the call gives {given}"
    if call.params:
        struct = re.search(rf"typedef struct {{([^}}]*)}} {call.params};", headers)
        assert struct, f"{call.params} is defined in no header"
        fields = set(re.findall(r"\w+", re.sub(r"/\*.*?\*/", "", struct[1], flags=re.S)))
        assert set(call.fields) <= fields, f"{call.params} lacks {set(call.fields) - fields}"


@pytest.mark.parametrize("kind", OPS)
def test_an_operator_declares_what_it_takes_and_gives(kind: str) -> None:
    operation = examples()[kind]
    op = operation.op
    assert op is OPS[kind] and op.name == kind and re.fullmatch(r"[A-Z0-9_]+", kind)
    given = set(operation.inputs) - set(operation.outputs)  # what is updated in place is an operand if it is read
    assert set(op.operands) <= set(operation.inputs) and all(op.takes(name) for name in given)
    assert all(op.gives(name) for name in operation.outputs)
    for name, shape in op.shapes(operation).items():
        assert operation.outputs[name].shape == shape, f"{kind}: {name}"
    for output, hosts in op.in_place(operation).items():
        for host in hosts:
            assert operation.inputs[host].nbytes >= operation.outputs[output].nbytes, f"{kind}: {output} in {host}"
    assert op.scratch_bytes(operation) >= 0 and op.macs(operation) >= 0
    call = None if kind in ROW_CASES else op.call(operation)
    for argument in [] if call is None else call.arguments:
        assert argument is None or isinstance(argument, Tensor | tuple | CArray | CPointers | int | float), (
            f"{kind}: {argument!r}"
        )
    if not (op.importable or op.differentiable):
        with pytest.raises(NotImplementedError):
            op.from_tflite(None, [], [])


@pytest.mark.parametrize(("registry", "name"), ENTRIES)
def test_entries_are_documented_and_filed_under_their_name(registry: str, name: str) -> None:
    entry = REGISTRIES[registry][0][name]
    assert entry.name == name
    assert type(entry).__doc__, f"{type(entry).__name__} in {registry} has no docstring"
    assert type(entry).__module__.startswith(f"tinypeft.{registry}.")


@pytest.mark.parametrize("registry", REGISTRIES)
def test_a_name_cannot_be_taken_twice(registry: str) -> None:
    entries, register = REGISTRIES[registry]
    name, entry = next(iter(entries.items()))
    before = dict(entries)
    with pytest.raises(KeyError, match=name):
        register(type(entry))
    assert entries == before


@pytest.mark.parametrize("name", EMULATORS)
def test_emulators(name: str) -> None:
    emulator = EMULATORS[name]
    assert isinstance(emulator.capabilities, frozenset)
    assert emulator.missing() is None or isinstance(emulator.missing(), str)


@pytest.mark.parametrize("name", FLASHERS)
def test_flashers(name: str) -> None:
    flasher = FLASHERS[name]
    assert flasher.program and flasher.probe and flasher.settings
    assert flasher.missing() is None or flasher.install in str(flasher.missing())
    for failure in flasher.failures:
        re.compile(failure.pattern)
        values = dict.fromkeys(flasher.settings, "x")
        assert "{" not in failure.hint.format_map({"probe": flasher.probe, **values})


@pytest.mark.parametrize("name", board_names())
def test_boards(name: str) -> None:
    board = load_board(name)
    assert board.name == name and board.title
    assert set(board.emulators) <= set(EMULATORS), f"{name} names an emulator that does not exist"
    assert set(board.flashers) <= set(FLASHERS), f"{name} names a flasher that does not exist"
    for flasher in board.flashers:
        FLASHERS[flasher].settings_of(board)
    if board.is_host:
        return
    assert board.core.startswith("cortex-m") and board.clock_hz > 0 and board.datasheet
    assert board.flash.length > 0 and board.ram.length > 0 and all(region.reference for region in board.memories)
    assert board.console is not None and board.console.baud > 0
    assert (FIRMWARE / "consoles" / f"{board.console.driver}.c").is_file()


@pytest.mark.parametrize("shape", [(3, 70), (3,)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_update_what_they_declare(name: str, shape: tuple[int, ...]) -> None:
    """An update writes the master and its own states, reads the shared ones, and has a function for rows of it."""
    optimizer = OPTIMIZERS[name]
    assert set(optimizer.reads) <= {field.name for field in dataclasses.fields(TrainingConfig)}
    master = Tensor("master", shape, "float32", Purpose.MASTER)
    rate = Tensor("rate", (), "float32", Purpose.ARGUMENT)
    gradient = Tensor("gradient", shape, "float32", Purpose.GRADIENT)
    for config in (TrainingConfig(optimizer=name), TrainingConfig(optimizer=name, **_momentum(optimizer.reads))):
        settings = vars(config)
        states, shared = optimizer.states(master, settings), optimizer.shared(settings)
        assert set(shared.starts) == set(shared.states)
        operation = optimizer.update(master, gradient, rate, states | shared.states, settings)
        verify(Graph("update", [gradient, rate], [], [*shared.operations, operation]), name)
        assert list(operation.outputs) == ["master", *states] and operation.output is master
        assert {t.name for op in shared.operations for t in op.outputs.values()} == {
            t.name for t in shared.states.values()
        }
        every = [*states.values(), *shared.states.values()]
        assert all(s.purpose is Purpose.OPTIMIZER_STATE for s in every)
        rows = operation.op.row_function(operation)
        assert {id(t) for t in rows.states} == {id(t) for t in every}


def _momentum(reads: tuple[str, ...]) -> dict[str, Any]:
    return {"momentum": 0.9} if "momentum" in reads else {}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_train_a_model(name: str) -> None:
    """Every target that a loss declares gives a training graph whose loss is its operator; others are refused."""
    from small_models import load

    loss, source = LOSSES[name], load("autoencoder")
    assert isinstance(OPS[loss.operator], LossOp) and all(kind in OPS for kind in loss.passed_over)
    assert loss.targets and set(loss.targets) <= set(TARGETS) and loss.bounds[0] < loss.bounds[1]
    for target in TARGETS:
        if target not in loss.targets:
            with pytest.raises(AdapterError, match=f"{name} cannot be computed against the target {target}"):
                TrainingConfig(loss=name, target=target)
            continue
        model = compile_model("m", b"", source.graph, AdapterConfig(), TrainingConfig(loss=name, target=target))
        assert model.training is not None and model.training.outputs[0].dtype == "int32"
        assert [op.kind for op in model.training.operations if isinstance(op.op, LossOp)] == [loss.operator]
        assert (model.target is None) is (target == INPUT)


def test_every_adapter_kind_compiles() -> None:
    from small_models import load

    for kind in ADAPTERS:
        if kind == "modules_to_save":
            continue
        model = compile_model("plain", b"", load("plain").graph, AdapterConfig(adapter=kind), TrainingConfig())
        assert model.parameters and model.training is not None
        assert {op.kind for graph in model.graphs for op in graph.operations} <= set(examples())

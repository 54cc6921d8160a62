"""A LoRA merged on the device into copies of weights: the interpreter's bits, when it ends, what it loses and needs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import small_models
from emulation import need
from projects import CONFIGURATIONS, Built, save_model

from tinypeft.adapters import AdapterConfig
from tinypeft.boards import load_board
from tinypeft.device import Device
from tinypeft.errors import AdapterError, DeviceError
from tinypeft.frontend import load_tflite
from tinypeft.generate import compile_for, generate_project, open_project
from tinypeft.interpreter import run_graph
from tinypeft.losses import target_argument
from tinypeft.memory import MemoryConfig
from tinypeft.package.format import Identity
from tinypeft.running import running_device
from tinypeft.state import pack_adapter
from tinypeft.training import TrainingConfig

PROJECTS = ("plain", "lora_int4", "lora_channels", "no_bias")
ALL = MemoryConfig(merge_room=1 << 16)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Built]:
    """(name in CONFIGURATIONS, memory, board) -> a project with room to merge."""

    @functools.cache
    def build(name: str, memory: MemoryConfig = ALL, board: str = "host") -> Built:
        folder = tmp_path_factory.mktemp(name)
        model, adapter, training = CONFIGURATIONS[name]
        report = generate_project(
            save_model(model, folder), load_board(board), folder / "project",
            adapter=adapter, training=training, memory=memory,
        )  # fmt: skip
        opened = open_project(folder / "project")
        return Built(name, folder / "project", report, opened, small_models.learning_rate(model))

    return build


def trained_state(made: Built, seed: int = 3) -> dict[str, np.ndarray]:
    model, samples = made.model, made.samples(12, seed)
    state = model.fresh_state(seed)
    assert model.training is not None and samples.y is not None
    for x, y in zip(samples.x, samples.y, strict=True):
        arguments = {model.training.inputs[0].name: x, "learning_rate": np.float32(made.learning_rate)}
        run_graph(model.training, arguments | target_argument(model.target, y), state)
    return state


def expected(made: Built, state: dict[str, np.ndarray], x: np.ndarray, *, merged: bool) -> list[np.ndarray]:
    model, values = made.model, dict(state)
    assert model.merged is not None
    run_graph(model.merged.fill, {}, values)
    graph = model.merged.inference if merged else model.inference
    return run_graph(graph, {graph.inputs[0].name: x}, values)


def assert_outputs(made: Built, device: Device, state: dict[str, np.ndarray], *, merged: bool) -> None:
    for x in made.samples(6, 5).x:
        output, *logits = expected(made, state, x, merged=merged)
        assert device.infer(x.tobytes()).output == output.tobytes()
        if logits:
            assert device.read("logits") == logits[0].tobytes()


def assert_differs(made: Built, state: dict[str, np.ndarray]) -> None:
    """So that a test can tell which of both has run."""
    pairs = [[expected(made, state, x, merged=merged)[-1] for merged in (False, True)] for x in made.samples(6, 5).x]
    assert any((plain != merged).any() for plain, merged in pairs)


@pytest.mark.parametrize("name", PROJECTS)
def test_a_merged_model_is_the_interpreters(name: str, built: Callable[..., Built]) -> None:
    made = built(name)
    state = trained_state(made)
    assert_differs(made, state)
    with made.twin() as device:
        device.load_adapter(pack_adapter(made.model, state))
        assert_outputs(made, device, state, merged=False)
        device.merge()
        assert_outputs(made, device, state, merged=True)
        device.unmerge()
        assert_outputs(made, device, state, merged=False)
        device.merge()
        assert_outputs(made, device, state, merged=True)


def test_whatever_changes_the_adapter_ends_it(built: Callable[..., Built]) -> None:
    made = built("plain")
    model, state, other = made.model, trained_state(made), trained_state(made, 8)
    package, sample = pack_adapter(model, state), made.samples(1, 9)
    (x,), (y,) = sample.x, sample.y
    learned = dict(other)
    arguments = {model.training.inputs[0].name: x, "learning_rate": np.float32(0.01)}
    with made.twin() as device:

        def after(change: Callable[[], object], then: dict[str, np.ndarray]) -> None:
            device.load_adapter(package)
            device.merge()
            assert_outputs(made, device, state, merged=True)
            change()
            assert_outputs(made, device, then, merged=False)

        def train() -> None:
            device.load_adapter(pack_adapter(model, other))
            device.merge()
            device.train_step(x.tobytes(), int(y), 0.01)

        run_graph(model.restore, {}, learned)
        run_graph(model.training, arguments | target_argument(model.target, y), learned)
        after(train, learned)
        after(lambda: device.load_adapter(pack_adapter(model, other)), other)
        after(lambda: device.reset_adapter(4), model.fresh_state(4))
        after(lambda: device.write("adapter", pack_adapter(model, other)[80:-36]), other)
        after(device.requantize, state)
        device.merge()
        assert device.evaluate(x.tobytes(), int(y)) is not None
        assert_outputs(made, device, state, merged=True)


def test_it_belongs_to_the_adapter_that_served(built: Callable[..., Built]) -> None:
    made = built("plain", replace(ALL, adapters=3))
    model, states = made.model, [trained_state(made, seed) for seed in (3, 8, 9)]
    with made.twin() as device:
        for number, state in enumerate(states):
            device.adapters.push(f"a{number}", pack_adapter(model, state, Identity(f"a{number}")))
        for number in (0, 1):
            device.adapters.activate(f"a{number}")
        device.merge()
        assert_outputs(made, device, states[1], merged=True)
        device.adapters.activate("a0", keep=False)
        assert_outputs(made, device, states[0], merged=False)
        device.adapters.activate("a1", keep=False)
        assert_outputs(made, device, states[1], merged=True)
        device.adapters.deactivate()
        assert_outputs(made, device, model.fresh_state(0), merged=False)
        device.adapters.activate("a0", keep=False)
        device.adapters.activate("a2")  # in the memory of a1
        assert_outputs(made, device, states[2], merged=False)


def test_layers_are_chosen_by_what_a_byte_saves() -> None:
    source = load_tflite("residual", small_models.model_bytes("residual"), {})

    def layers(room: int, kind: str = "lora") -> list[str]:
        model = compile_for(
            source, None, AdapterConfig(kind, r=3), TrainingConfig(), 2048, MemoryConfig(merge_room=room)
        )
        assert model.merged_bytes <= room
        return [] if model.merged is None else model.merged.layers

    every = layers(1 << 20)
    assert set(every) == {"stem", "branch_a", "branch_b", "again", "down"}
    for room in range(0, 1700, 100):
        assert layers(room) == [layer for layer in every if layer in layers(room)]
    assert layers(20) == [] and layers(1 << 20, "bitfit") == []


def test_without_room_it_is_refused(built: Callable[..., Built], project: Callable[[str], Built]) -> None:
    with project("plain").twin() as device, pytest.raises(DeviceError, match="built without that"):
        device.merge()
    with pytest.raises(AdapterError, match=r"room of 20 B to merge is of no use: no layer of plain with a LoRA fits"):
        built("plain", MemoryConfig(merge_room=20))


def test_what_it_loses(built: Callable[..., Built]) -> None:
    """Weights are rounded to the base's steps: outputs move by a few of theirs, decisions hardly."""
    made = built("residual")
    state = trained_state(made)
    pairs = [[expected(made, state, x, merged=merged)[-1] for merged in (False, True)] for x in made.samples(40, 5).x]
    same = np.mean([plain.argmax() == merged.argmax() for plain, merged in pairs])
    assert same >= 0.9


def test_on_qemu(built: Callable[..., Built]) -> None:
    need("qemu", "mps2_an386")
    made = built("lora_channels", ALL, "mps2_an386")
    state = trained_state(made)
    with running_device(made.opened, "qemu", count_instructions=False) as device:
        device.load_adapter(pack_adapter(made.model, state))
        for merged in (False, True):
            (device.merge if merged else device.unmerge)()
            assert_outputs(made, device, state, merged=merged)

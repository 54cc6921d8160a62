"""Weighted sums of adapters on a device: the host's bits, what serves meanwhile and afterwards, what is refused."""

from __future__ import annotations

import contextlib
import functools
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from emulation import need
from projects import Built, save_model

from tinypeft.adapter_combine import combine_adapters
from tinypeft.adapter_state import adapter_from_masters, adapter_from_package
from tinypeft.adapters import AdapterConfig
from tinypeft.boards import load_board
from tinypeft.compiler import compile_model
from tinypeft.device import Device, framing
from tinypeft.device.adapters import AdapterCommand
from tinypeft.errors import DeviceError
from tinypeft.generate import generate_project, open_project
from tinypeft.interpreter import run_graph
from tinypeft.losses import target_argument
from tinypeft.memory import MemoryConfig
from tinypeft.package.format import Identity, parse
from tinypeft.running import running_device
from tinypeft.state import pack_adapter, pack_tensors
from tinypeft.training import TrainingConfig

#: name -> the small model and its adapters, small enough for sums to fit the arena
PROJECTS = {
    "head": ("plain", AdapterConfig(r=2), TrainingConfig(momentum=0.5)),
    "channels": ("plain", AdapterConfig("lora+bitfit+ia3", r=2), TrainingConfig(batch_size=2)),
    "int4": (
        "residual",
        AdapterConfig(r=2, target_modules="again|head", options=(("lora_bits", 4),)),
        TrainingConfig(),
    ),
    "sparse": ("plain", AdapterConfig("sparse", modules_to_save=()), TrainingConfig("adam")),
    "too_large": ("mlp", AdapterConfig(r=4), TrainingConfig()),
    "bottleneck": ("plain", AdapterConfig("bottleneck"), TrainingConfig()),
}
RATE = np.float32(0.01)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Built]:
    """(name, resident, board) -> a project that keeps four adapters."""

    @functools.cache
    def build(name: str, resident: int = 2, board: str = "host") -> Built:
        folder = tmp_path_factory.mktemp(name)
        model, adapter, training = PROJECTS[name]
        memory = MemoryConfig(adapters=4, resident=resident)
        report = generate_project(
            save_model(model, folder), load_board(board), folder / "project",
            adapter=adapter, training=training, memory=memory,
        )  # fmt: skip
        return Built(name, folder / "project", report, open_project(folder / "project"), float(RATE))

    return build


def trained_packages(made: Built, count: int = 2) -> list[bytes]:
    """Of adapters a0, a1, … that learned from different samples."""
    model, packages = made.model, []
    for number in range(count):
        state = model.fresh_state(number + 3)
        teach(made, state, number)
        packages.append(pack_adapter(model, state, Identity(f"a{number}", 1)))
    return packages


def teach(made: Built, state: dict[str, np.ndarray], seed: int, steps: int = 6) -> None:
    model, samples = made.model, made.samples(steps, seed)
    assert model.training is not None and samples.y is not None
    argument = model.training.inputs[0].name
    for step, (x, y) in enumerate(zip(samples.x, samples.y, strict=True)):
        arguments = {argument: x, "learning_rate": RATE} | target_argument(model.target, y)
        run_graph(model.training, arguments, state)
        count = model.training_config.batch_size
        if model.update is not None and (step + 1) % count == 0:
            run_graph(model.update, {"learning_rate": RATE, "count": np.int32(count)}, state)


def confirm(device: Device, *packages: bytes) -> None:
    for package in packages:
        name = parse(package).header.identity.id
        device.adapters.push(name, package)
        device.adapters.activate(name)
        device.adapters.confirm(name)


@pytest.fixture
def running(built: Callable[..., Built]) -> Iterator[Callable[..., tuple[Built, Device]]]:
    """(name, resident) -> the project and its twin."""
    with contextlib.ExitStack() as stack:

        def run(name: str, resident: int = 2) -> tuple[Built, Device]:
            made = built(name, resident)
            return made, stack.enter_context(made.twin())

        yield run


def assert_combined(
    made: Built, device: Device, packages: list[bytes], weights: tuple[float, ...], method: str
) -> None:
    """What serves is the host's sum of these packages, masters and all else that training starts from included."""
    model = made.model
    given = [adapter_from_package(model, package) for package in packages]
    expected = combine_adapters(model, given, weights, method)  # type: ignore[arg-type]
    device.adapters.combine([parse(package).header.identity.id for package in packages], weights, method)
    assert device.read("training") == pack_tensors(model.training_state, expected.state)
    assert device.read("adapter") == pack_tensors(model.adapter_weights, expected.state)
    sample = made.samples(1, 9).x[0]
    output = run_graph(model.inference, {model.inference.inputs[0].name: sample}, dict(expected.state))[0]
    run = device.infer(sample.tobytes())
    np.testing.assert_array_equal(np.frombuffer(run.output, output.dtype), output.reshape(-1))


@pytest.mark.parametrize("weights", [(0.7, 0.3), (1.5, -0.625)])
@pytest.mark.parametrize("name", ["head", "channels", "int4", "sparse"])
def test_linear_is_the_hosts(name: str, weights: tuple[float, float], running) -> None:
    made, device = running(name)
    packages = trained_packages(made)
    confirm(device, *packages)
    assert_combined(made, device, packages, weights, "linear")


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, -2.0)])
def test_cat_is_the_hosts(weights: tuple[float, float], running) -> None:
    """Of packages of rank 1, also together with one that is a sum itself; another does not fit."""
    made, device = running("channels")
    source, (_, adapter, training) = made.opened.source, PROJECTS["channels"]
    model = compile_model("plain", source.fingerprint, source.graph, replace(adapter, r=1), training)
    smaller = trained_packages(replace(made, opened=replace(made.opened, model=model)), 3)
    confirm(device, *smaller)
    assert_combined(made, device, smaller[:2], weights, "cat")
    device.adapters.save("sum", 7)
    confirm(device, device.adapters.pull("sum"))
    with pytest.raises(DeviceError, match=r"COMBINE\(sum,a2, cat\).*rank is above this firmware's"):
        device.adapters.combine(["sum", "a2"], [1, 1], "cat")
    assert_combined(made, device, [device.adapters.pull("sum"), smaller[2]], (0.75, 0.25), "linear")


def test_cat_of_4_bits_counts_the_rows_that_are_not_zeros(running) -> None:
    made, device = running("int4")
    packages = []
    for number, package in enumerate(trained_packages(made)):
        state = adapter_from_package(made.model, package).state
        masters = {p.master.name: state[p.master.name] for p in made.model.parameters}
        for name in masters:
            if name.endswith("lora_A_master"):
                masters[name][1:] = 0
            if name.endswith("lora_B_master"):
                masters[name][:, 1:] = 0
        halved = adapter_from_masters(made.model, masters)
        packages.append(pack_adapter(made.model, halved.state, Identity(f"a{number}")))
    confirm(device, *packages)
    assert_combined(made, device, packages, (1.0, -0.5), "cat")


def test_training_goes_on_from_a_sum(running) -> None:
    """And what had been trained, unsaved, is as it was."""
    made, device = running("head", resident=3)
    packages, model = trained_packages(made), made.model
    confirm(device, *packages)
    device.adapters.activate("a1", keep=False)
    sample, other = made.samples(2, 5).x, made.samples(2, 5).y
    device.train_step(sample[0].tobytes(), int(other[0]), RATE)
    changed = device.read("adapter")
    device.adapters.combine(["a0", "a1"], [0.25, 0.75])
    state = combine_adapters(model, [adapter_from_package(model, package) for package in packages], (0.25, 0.75)).state
    for x, y in zip(sample, other, strict=True):
        device.train_step(x.tobytes(), int(y), RATE)
        arguments = {model.training.inputs[0].name: x, "learning_rate": RATE} | target_argument(model.target, y)
        run_graph(model.training, arguments, state)
    assert device.read("training") == pack_tensors(model.training_state, state)
    device.adapters.activate("a1", keep=False)
    assert device.read("adapter") == changed


def test_masters_follow_what_is_loaded_into_the_same_memory(running) -> None:
    """a2 takes the place of a0, whose masters are in memory."""
    made, device = running("head")
    packages, model = trained_packages(made, 3), made.model
    confirm(device, *packages)
    (x,), (y,) = made.samples(1, 5).x, made.samples(1, 5).y
    for name in ("a0", "a1", "a2"):
        device.adapters.activate(name, keep=False)
        if name != "a1":
            device.train_step(x.tobytes(), int(y), RATE)
    state = adapter_from_package(model, packages[2]).state
    arguments = {model.training.inputs[0].name: x, "learning_rate": RATE} | target_argument(model.target, y)
    run_graph(model.training, arguments, state)
    assert device.read("training") == pack_tensors(model.training_state, state)


def test_an_error_leaves_what_serves(running) -> None:
    made, device = running("head")
    confirm(device, *trained_packages(made))
    device.adapters.push("candidate", pack_adapter(made.model, made.model.fresh_state(0), Identity("candidate")))
    device.adapters.activate("a1", keep=False)
    before = device.read("adapter")
    for names, weights, method, message in (
        (["a0", "other"], [1, 1], "linear", "no such adapter"),
        (["a0", "candidate"], [1, 1], "linear", "no such adapter"),
        (["a0", "a1"], [1, float("nan")], "linear", "out of range"),
        (["a0", "a1"], [1, -1.1e6], "linear", "out of range"),
        (["a0"], [1, 1], "linear", "out of range"),
        (["a0", "a1"], [1], "linear", "out of range"),
        (["a0", ""], [1, 1], "linear", "not an adapter id"),
        (["a0"] * 9, [1] * 9, "linear", "out of range"),
        ([], [], "linear", "out of range"),
        (["a0", "a1"], [1, 1], "cat", "rank is above"),
    ):
        with pytest.raises(DeviceError, match=message):
            device.adapters.combine(names, weights, method)
        assert device.read("adapter") == before and device.adapters.list().serving == "a1"
    with pytest.raises(DeviceError, match="out of range"):
        fields = {"ids": "a0", "weights": struct.pack("<f", 1.0), "method": 2}
        device.adapters._link.request(
            AdapterCommand.COMBINE, fields, "a0, method=2", group=framing.ADAPTERS_GROUP, op=framing.WRITE
        )
    device.adapters.combine(["a0"] * 8, [0.125] * 8)
    assert device.adapters.list().serving == "" and not device.adapters.list().base


def test_under_the_base_model(running) -> None:
    made, device = running("head")
    packages = trained_packages(made)
    confirm(device, *packages)
    device.adapters.deactivate()
    with pytest.raises(DeviceError, match="rank is above"):
        device.adapters.combine(["a0", "a1"], [1, 1], "cat")
    assert device.adapters.list().base
    assert_combined(made, device, packages, (0.5, 0.5), "linear")


@pytest.mark.parametrize(
    ("name", "resident", "message"),
    [
        ("too_large", 2, "wrong size"),
        ("bottleneck", 2, "built without that"),
        ("head", 1, "built without that"),
    ],
)
def test_where_it_cannot_be(name: str, resident: int, message: str, running) -> None:
    made, device = running(name, resident)
    confirm(device, *trained_packages(made))
    with pytest.raises(DeviceError, match=message):
        device.adapters.combine(["a0", "a1"], [0.5, 0.5])


@pytest.mark.parametrize("name", ["channels", "int4"])
def test_on_qemu(name: str, built: Callable[..., Built]) -> None:
    need("qemu", "mps2_an386")
    made = built(name, board="mps2_an386")
    packages = trained_packages(made)
    with running_device(made.opened, "qemu", count_instructions=False, fresh=False) as device:
        confirm(device, *packages)
        assert_combined(made, device, packages, (0.7, -0.3), "linear")
        assert_combined(made, device, packages[:1], (0.3,), "cat")

"""Random lives of a device that keeps adapters, against a model in Python: statuses, lists and outputs, to the bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import small_models
from kept import Build, Kept, data, restart
from store_model import DeviceModel, Refused

from tinypeft.device import Device
from tinypeft.errors import DeviceError

OPERATIONS = 1000
NAMES = ("anna", "ben", "carla", "dora", "emil")  # one more than there is room for
WEIGHTS = {
    **{"use": 20, "activate": 8, "deactivate": 4, "push": 14, "confirm": 10, "revert": 4, "delete": 2, "save": 5},
    **{"train": 16, "reset_adapter": 2, "load": 3, "checkpoint": 3, "resume": 4, "restart": 5},
}


class Life:
    """A device and its model, which do the same."""

    def __init__(self, device: Device, kept: Kept, seed: int):
        self.device, self.kept, self.model = device, kept, DeviceModel(kept)
        self.rng = np.random.default_rng(seed)
        self.samples = kept.samples(8)
        self.rate = np.float32(small_models.learning_rate(kept.name) / 4)
        counters = (0, 0, 1)
        self.packages = [
            kept.package(name, seed, version=seed, counter=counters[seed % 3]) for seed in range(1, 4) for name in NAMES
        ]

    def step(self) -> str:
        """One operation on both; what it was."""
        kind = str(self.rng.choice(list(WEIGHTS), p=np.array(list(WEIGHTS.values())) / sum(WEIGHTS.values())))
        name = str(self.rng.choice(NAMES))
        what, on_device, on_model = getattr(self, kind)(name)
        expected = outcome(on_model)
        found = outcome(on_device)
        assert found == expected, f"{what}: the device gave {found}, the model {expected}"
        slots = self.device.adapters.list()
        assert replace(slots, slots=-1, unused=-1) == self.model.listed(), what
        x = self.samples.x[self.rng.integers(len(self.samples.x))]
        assert self.device.infer(data(x)).output == self.model.infer(x), f"another output after {what}"
        return what

    def use(self, name: str):
        return (
            f"use {name}",
            lambda: self.device.adapters.activate(name, keep=False),
            lambda: self.model.activate(name, False),
        )

    def activate(self, name: str):
        return f"activate {name}", lambda: self.device.adapters.activate(name), lambda: self.model.activate(name, True)

    def deactivate(self, name: str):
        keep = bool(self.rng.integers(2))
        return (
            f"deactivate, keep={keep}",
            lambda: self.device.adapters.deactivate(keep=keep),
            lambda: self.model.activate(None, keep),
        )

    def push(self, name: str):
        package = self.packages[self.rng.integers(len(self.packages))]
        name = name if self.rng.random() < 0.05 else package[48:64].rstrip(b"\0").decode()
        return f"push {name}", lambda: self.device.adapters.push(name, package), lambda: self.model.push(name, package)

    def confirm(self, name: str):
        return f"confirm {name}", lambda: self.device.adapters.confirm(name), lambda: self.model.confirm(name)

    def revert(self, name: str):
        return f"revert {name}", lambda: self.device.adapters.revert(name), lambda: self.model.revert(name)

    def delete(self, name: str):
        return f"delete {name}", lambda: self.device.adapters.delete(name), lambda: self.model.delete(name)

    def save(self, name: str):
        version = int(self.rng.integers(10, 100))
        return (
            f"save {name} {version}",
            lambda: self.device.adapters.save(name, version),
            lambda: self.model.save(name, version),
        )

    def train(self, name: str):
        index = int(self.rng.integers(len(self.samples.x)))
        x, label = self.samples.x[index], int(self.samples.y[index] % self.kept.model.classes)
        return (
            f"train with sample {index}",
            lambda: self.device.train_step(data(x), label, float(self.rate)),
            lambda: self.model.train(x, label, self.rate),
        )

    def reset_adapter(self, name: str):
        seed = int(self.rng.integers(100))
        return (
            f"reset the adapter, seed {seed}",
            lambda: self.device.reset_adapter(seed),
            lambda: self.model.reset_adapter(seed),
        )

    def load(self, name: str):
        package = self.packages[self.rng.integers(len(self.packages))]
        return "load a package", lambda: self.device.load_adapter(package), lambda: self.model.load(package)

    def checkpoint(self, name: str):
        step = int(self.rng.integers(1000))
        return (
            f"checkpoint {name} {step}",
            lambda: self.device.adapters.checkpoint(name, step),
            lambda: self.model.checkpoint(name, step),
        )

    def resume(self, name: str):
        return f"resume {name}", lambda: self.device.adapters.resume(name), lambda: self.model.resume(name)

    def restart(self, name: str):
        return "restart", lambda: restart(self.device), self.model.restart


def outcome(operation: Callable[[], object]) -> object:
    """What an operation gave: a number, nothing, or the status that it was refused with."""
    try:
        found = operation()
    except Refused as refused:
        return f"status {refused.status}"
    except DeviceError as error:
        return f"status {error.status}"
    return found if isinstance(found, int) else None


@pytest.mark.parametrize("name", ["plain", "residual", "lora_int4"])
def test_random_operations_on_the_twin(kept: Build, name: str) -> None:
    built = kept(name)
    with built.running("host") as device:
        life = Life(device, built, seed=1)
        done = [life.step() for _ in range(OPERATIONS if name == "plain" else OPERATIONS // 5)]
    assert len({what.split()[0] for what in done}) >= 12


def test_random_operations_under_qemu(kept: Build) -> None:
    built = kept("plain")
    with built.running("qemu") as device:
        life = Life(device, built, seed=2)
        for _ in range(OPERATIONS):
            life.step()

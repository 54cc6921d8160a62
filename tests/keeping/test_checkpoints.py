"""Training that a reset interrupts goes on at the exact next step."""

from __future__ import annotations

import numpy as np
import pytest
import small_models
from kept import Build, Kept, data, restart

from tinypeft.device import Device
from tinypeft.errors import DeviceError

STEPS, RESETS = 60, 50
NAME = "anna"


class Training:
    """The same steps on any device, whenever it is begun or goes on."""

    def __init__(self, built: Kept):
        self.samples, self.model = built.samples(STEPS), built.model
        self.rate = float(np.float32(small_models.learning_rate(built.name) / 4))

    def run(self, device: Device, first: int, last: int) -> None:
        for i in range(first, last):
            x, label = self.samples.x[i], int(self.samples.y[i] % self.model.classes)
            device.train_step(data(x), label, self.rate)
            if self.model.update is not None and (i + 1) % self.model.training_config.batch_size == 0:
                device.update(self.rate)


def uninterrupted(built: Kept, training: Training) -> bytes:
    with built.running("host") as device:
        device.reset_adapter(5)
        training.run(device, 0, STEPS)
        return device.export_adapter() + device.read("training")


@pytest.mark.parametrize("name", ["plain", "batches", "adam8", "lora_int4"])
def test_a_reset_at_random_steps_on_the_twin(kept: Build, name: str) -> None:
    """Each on its own: train up to there, keep it, train on in vain, reset, resume, train to the end."""
    built = kept(name)
    training = Training(built)
    expected = uninterrupted(built, training)
    with built.running("host") as device:
        for step in np.random.default_rng(0).integers(0, STEPS, RESETS if name == "plain" else RESETS // 5):
            device.reset_adapter(5)
            training.run(device, 0, step)
            device.adapters.checkpoint(NAME, int(step))
            training.run(device, step, min(step + 2, STEPS))
            restart(device)
            assert device.adapters.resume(NAME) == step
            training.run(device, step, STEPS)
            assert device.export_adapter() + device.read("training") == expected, f"reset at step {step}"


@pytest.mark.parametrize("name", ["plain", "batches"])
def test_fifty_resets_under_qemu(kept: Build, name: str) -> None:
    """All in one training: it ends with the same bytes."""
    built = kept(name)
    training = Training(built)
    steps = sorted(np.random.default_rng(1).choice(np.arange(1, STEPS), RESETS, replace=False))
    with built.running("qemu") as device:
        device.reset_adapter(5)
        done = 0
        for step in map(int, steps):
            training.run(device, done, step)
            device.adapters.checkpoint(NAME, step)
            training.run(device, step, min(step + 1, STEPS))
            restart(device)
            done = device.adapters.resume(NAME)
            assert done == step
        training.run(device, done, STEPS)
        assert device.export_adapter() + device.read("training") == uninterrupted(built, training)


def test_checkpoints_that_are_not_there(kept: Build) -> None:
    built = kept("plain")
    with built.running("host") as device:
        with pytest.raises(DeviceError) as refused:
            device.adapters.resume(NAME)
        assert refused.value.status == -17
        device.adapters.deactivate()
        with pytest.raises(DeviceError) as refused:
            device.adapters.checkpoint(NAME, 1)
        assert refused.value.status == -18

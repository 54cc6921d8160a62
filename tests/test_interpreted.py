"""The interpreter in the place of a device: training on it gives the bytes that the host twin gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from projects import Built
from trained import trained

from tinypeft.device import Device
from tinypeft.errors import AdapterError, DeviceError
from tinypeft.interpreted import InterpretedDevice
from tinypeft.personalise import Trained, infer_all, train_adapter


def train(built: Built, device: Device | InterpretedDevice, start: bytes | None = None) -> Trained:
    samples = built.samples(14)
    return train_adapter(
        built.model,
        device,
        samples.x,
        samples.y,
        np.arange(6),
        np.arange(6, 14),
        epochs=2,
        learning_rate=built.learning_rate,
        seed=3,
        start=start,
    )


@pytest.mark.parametrize("name", ["plain", "batches", "latents", "latents_batches"])
def test_trains_as_the_twin_does(project: Callable[[str], Built], name: str) -> None:
    built = project(name)
    with built.twin() as twin:
        expected = train(built, twin)
        again = train(built, twin, expected.package)
    device = InterpretedDevice(built.model)
    found = train(built, device)
    assert (found.package, found.losses) == (expected.package, expected.losses)
    assert (found.accuracy_before, found.accuracy_after) == (expected.accuracy_before, expected.accuracy_after)
    assert found.state.keys() == expected.state.keys()
    for tensor, values in expected.state.items():
        np.testing.assert_array_equal(found.state[tensor], values)
    gone_on = train(built, device, expected.package)
    assert gone_on.package == again.package != expected.package


def test_refuses_what_a_device_refuses() -> None:
    made = trained("plain")
    device = InterpretedDevice(made.model)
    with pytest.raises(DeviceError, match=r"input has 3 bytes, \d+ are needed"):
        device.infer(b"abc")
    with pytest.raises(DeviceError, match="generated without an update"):
        device.update(0.1)
    for step in (lambda: device.encode(b"", 0), lambda: device.train_latents(0, 0, 0.1)):
        with pytest.raises(DeviceError, match="plain keeps no latents of a sample"):
            step()
    with pytest.raises(DeviceError, match="has no object 'arena'"):
        device.read("arena")
    with pytest.raises(AdapterError, match="no adapter package"):
        device.load_adapter(b"nothing")
    device.load_adapter(made.adapter.package)
    assert device.export_adapter() == made.adapter.package
    assert infer_all(made.model, device, made.samples.x, lambda done: None).instructions is None

"""The adapter package on the host twin: round trip, every damaged byte refused, training goes on after a load."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from projects import TRAINABLE, Built

from tinypeft.device import Device
from tinypeft.errors import AdapterError, DeviceError
from tinypeft.interpreter import run_graph
from tinypeft.losses import target_argument, target_on_device
from tinypeft.package.format import Identity
from tinypeft.state import pack_adapter, pack_tensors, unpack_adapter

HEADER = 80


def train(
    built: Built, device: Device, state: dict[str, np.ndarray] | None, first: int, steps: int, done: int = 0
) -> None:
    """The same steps on the device and, with a state, in the interpreter; `done` samples wait for an update."""
    model, dataset = built.model, built.samples(20)
    assert model.training is not None
    rate = np.float32(built.learning_rate)
    for i in range(first, first + steps):
        x, y = dataset.x[i], None if dataset.y is None else dataset.y[i]
        device.train_step(np.ascontiguousarray(x).tobytes(), target_on_device(model.target, y), float(rate))
        done += 1
        complete = model.update is not None and done == model.training_config.batch_size
        if complete:
            device.update(float(rate))
        if state is not None:
            arguments = {model.training.inputs[0].name: x, **target_argument(model.target, y), "learning_rate": rate}
            run_graph(model.training, arguments, state)
            if complete:
                run_graph(model.update, {"learning_rate": rate, "count": np.int32(done)}, state)
        done = 0 if complete else done


def assert_state(built: Built, device: Device, state: dict[str, np.ndarray]) -> None:
    for target, tensors in (("adapter", built.model.adapter_weights), ("training", built.model.training_state)):
        assert device.read(target, 0, sum(t.nbytes for t in tensors)) == pack_tensors(tensors, state), target


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_package_survives_and_training_goes_on(project: Callable[[str], Built], name: str) -> None:
    """Exported, read by the host, loaded by a device that had been trained otherwise; then equal to the interpreter."""
    built = project(name)
    with built.twin() as first, built.twin() as second:
        first.reset_adapter(1)
        train(built, first, None, 0, 8)
        package = first.export_adapter()
        assert len(package) == built.model.package_bytes
        state = unpack_adapter(built.model, package)
        assert pack_adapter(built.model, state) == package
        second.reset_adapter(9)
        train(built, second, None, 3, 3)  # with batches: an update is not complete, its sums are to be dropped
        second.load_adapter(package)
        assert second.export_adapter() == package
        assert built.model.restore is not None
        run_graph(built.model.restore, {}, state)
        assert_state(built, second, state)
        train(built, second, state, 8, 8)
        assert_state(built, second, state)
        x = built.samples(3).x[2]
        expected = run_graph(built.model.inference, {built.model.inference.inputs[0].name: x}, state)[0]
        assert second.infer(np.ascontiguousarray(x).tobytes()).output == expected.tobytes()


def refused(device: Device, package: bytes, kept: bytes, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        device.load_adapter(package)
    assert device.read("adapter") == kept, "a refused package left its traces"


def sealed(data: bytes) -> bytes:
    """With a checksum and a SHA-256 that match."""
    covered = data + struct.pack("<I", zlib.crc32(data))
    return covered + hashlib.sha256(covered).digest()


def test_every_flipped_bit_is_refused(project: Callable[[str], Built]) -> None:
    """One bit at a time in every byte: header, payload, checksums; the host refuses what the device refuses."""
    built = project("plain")
    with built.twin() as device:
        device.reset_adapter(1)
        train(built, device, None, 0, 4)
        package = device.export_adapter()
        device.reset_adapter(2)
        kept = device.read("adapter")
        for position in range(len(package)):
            for bit in range(8) if position < HEADER else (position % 8,):
                damaged = bytearray(package)
                damaged[position] ^= 1 << bit
                refused(device, bytes(damaged), kept, "status -")
                with pytest.raises(AdapterError):
                    unpack_adapter(built.model, bytes(damaged))
        device.load_adapter(package)
        assert device.read("adapter") != kept


def test_the_reason_is_given(project: Callable[[str], Built]) -> None:
    built = project("plain")
    with built.twin() as device:
        device.reset_adapter(1)
        kept, package = device.read("adapter"), device.export_adapter()
        head, payload = package[:HEADER], package[HEADER:-36]

        def changed(offset: int, data: bytes) -> bytes:
            return sealed(head[:offset] + data + head[offset + len(data) :] + payload)

        refused(device, changed(12, bytes([head[12] ^ 1])), kept, r"another base model \(status -5\)")
        refused(device, changed(44, bytes([head[44] ^ 1])), kept, r"other layers or another kind \(status -8\)")
        refused(device, changed(72, b"\x40"), kept, r"other layers or another kind \(status -8\)")
        refused(device, changed(74, b"\x05"), kept, r"rank is above this firmware's \(status -9\)")
        longer = head[:8] + struct.pack("<I", len(payload) + 4) + head[12:] + payload + bytes(4)
        refused(device, sealed(longer), kept, r"wrong size \(status -2\)")
        refused(device, changed(4, b"\x03"), kept, r"format version \(status -4\)")
        refused(device, changed(48, b"A"), kept, r"not an adapter id.* \(status -19\)")
        refused(device, b"TPAX" + package[4:], kept, r"status -4")
        refused(device, package[:-1], kept, r"incomplete \(status -13\)")
        refused(device, package[:-33] + bytes([package[-33] ^ 1]) + package[-32:], kept, r"checksum .* \(status -3\)")
        refused(device, package[:-1] + bytes([package[-1] ^ 1]), kept, r"SHA-256 .* does not match \(status -10\)")
        for length in (0, 1, 79):
            refused(device, package[:length], kept, "status -13")
        refused(device, package + bytes(built.model.arena.arena_bytes), kept, "status -2")
        device.load_adapter(package)
        assert device.read("adapter") == kept


def test_who_an_adapter_is_does_not_matter_to_its_weights(project: Callable[[str], Built]) -> None:
    built = project("plain")
    state = built.model.fresh_state(4)
    with built.twin() as device:
        device.load_adapter(pack_adapter(built.model, state, Identity("door-bell_2.0", 4_000_000_000, 17)))
        assert device.read("adapter") == pack_tensors(built.model.adapter_weights, state)
        assert device.export_adapter() == pack_adapter(built.model, state)


def test_an_adapter_of_another_kind_or_model_is_refused(project: Callable[[str], Built]) -> None:
    plain, others = project("plain"), ("ia3", "no_saved_module", "conv_mean")
    with plain.twin() as device:
        kept = device.read("adapter")
        for name in others:
            other = project(name)
            package = pack_adapter(other.model, other.model.fresh_state(0))
            refused(device, package, kept, "status -5" if name == "conv_mean" else "status -8")
            with pytest.raises(
                AdapterError, match="belongs to base model" if name == "conv_mean" else "other layers or another kind"
            ):
                unpack_adapter(plain.model, package)

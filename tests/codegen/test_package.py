"""The adapter package on the host twin: round trip, every damaged byte refused, training goes on after a load."""

from __future__ import annotations

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
from tinypeft.state import pack_adapter, pack_tensors, unpack_adapter

HEADER = 52


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
    """With a checksum that matches."""
    return data + struct.pack("<I", zlib.crc32(data))


def test_every_flipped_bit_is_refused(project: Callable[[str], Built]) -> None:
    """One bit at a time in every byte: header, payload, checksum; the host refuses what the device refuses."""
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
                refused(device, bytes(damaged), kept, "status -[2-5]")
                with pytest.raises(AdapterError):
                    unpack_adapter(built.model, bytes(damaged))
        device.load_adapter(package)
        assert device.read("adapter") != kept


def test_the_reason_is_given(project: Callable[[str], Built]) -> None:
    built = project("plain")
    with built.twin() as device:
        device.reset_adapter(1)
        kept, package = device.read("adapter"), device.export_adapter()
        head, payload = package[:HEADER], package[HEADER:-4]
        fingerprint = bytes([head[12] ^ 1]) + head[13:44]
        refused(
            device, sealed(head[:12] + fingerprint + head[44:] + payload), kept, r"another base model \(status -5\)"
        )
        layout = struct.pack("<I", struct.unpack("<I", head[44:48])[0] ^ 1)
        refused(device, sealed(head[:44] + layout + head[48:] + payload), kept, r"wrong size \(status -2\)")
        longer = head[:8] + struct.pack("<I", len(payload) + 4) + head[12:] + payload + bytes(4)
        refused(device, sealed(longer), kept, r"wrong size \(status -2\)")
        refused(device, sealed(head[:4] + b"\x02\x00" + head[6:] + payload), kept, r"format version \(status -4\)")
        refused(device, b"TPAX" + package[4:], kept, r"status -4")
        refused(device, package[:-1], kept, r"status -2")
        refused(device, package[:-1] + bytes([package[-1] ^ 1]), kept, r"checksum does not match \(status -3\)")
        for length in (0, 1, 55):
            refused(device, package[:length], kept, "status -4")
        refused(device, package + bytes(built.model.arena.arena_bytes), kept, "status -2")
        device.load_adapter(package)


def test_an_adapter_of_another_rank_or_model_is_refused(project: Callable[[str], Built]) -> None:
    plain, others = project("plain"), ("batches", "no_saved_module", "conv_mean")
    with plain.twin() as device:
        kept = device.read("adapter")
        for name in others:
            other = project(name)
            package = pack_adapter(other.model, other.model.fresh_state(0))
            refused(device, package, kept, "status -5" if name == "conv_mean" else "status -2")
            with pytest.raises(
                AdapterError, match="belongs to base model" if name == "conv_mean" else "other layers or another rank"
            ):
                unpack_adapter(plain.model, package)

"""What must not get in: each fault has an error of its own, and the adapter that serves goes on."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Iterator

import pytest
from kept import ADAPTERS, Build, Kept, data, restart

from tinypeft.device import Device
from tinypeft.device.status import STATUS_TEXTS, hint_of
from tinypeft.errors import DeviceError
from tinypeft.package.delta import diff
from tinypeft.package.format import HEADER_BYTES

NAME = "anna"
LENGTH, FINGERPRINT, LAYOUT, ID, COUNTER, METHOD, RANK = 8, 12, 44, 48, 68, 72, 74


def sealed(package: bytes) -> bytes:
    """Checksums that match."""
    covered = package[:-36] + struct.pack("<I", zlib.crc32(package[:-36]))
    return covered + hashlib.sha256(covered).digest()


def with_bytes(package: bytes, offset: int, value: bytes) -> bytes:
    return sealed(package[:offset] + value + package[offset + len(value) :])


def flipped(package: bytes, offset: int) -> bytes:
    return package[:offset] + bytes([package[offset] ^ 1]) + package[offset + 1 :]


#: what is wrong -> (the package made of a good one, status)
FAULTS: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "another format": (lambda p: with_bytes(p, 4, b"\3"), -4),
    "no package": (lambda p: b"\0" * len(p), -4),
    "another base model": (lambda p: with_bytes(p, FINGERPRINT, b"\1" * 32), -5),
    "other layers": (lambda p: with_bytes(p, LAYOUT, b"\1\2\3\4"), -8),
    "another kind": (lambda p: with_bytes(p, METHOD, b"\x08\0"), -8),
    "a rank above the largest": (lambda p: with_bytes(p, RANK, b"\5\0"), -9),
    "a payload of another size": (lambda p: sealed(with_bytes(p, LENGTH, b"\1\0\0\0")[: 80 + 1 + 36]), -2),
    "a wrong CRC": (lambda p: flipped(p, HEADER_BYTES + 3), -3),
    "a wrong SHA-256": (lambda p: flipped(p, len(p) - 5), -10),
    "another id": (lambda p: with_bytes(p, ID, b"berta"), -22),
    "no id": (lambda p: with_bytes(p, ID, b"A"), -19),
    "an older security counter": (lambda p: with_bytes(p, COUNTER, b"\4\0\0\0"), -12),
    "a file that is too short": (lambda p: p[:-1], -13),
    "less than a header": (lambda p: p[:40], -13),
    "nothing": (lambda p: b"", -13),
    "a file that is too long": (lambda p: p + b"\0", -2),
    "more than a slot": (lambda p: p + bytes(5000), -14),
    "a delta to what is not there": (lambda p: diff(p, with_bytes(p, 90, b"\7")), -20),
}


@pytest.fixture(scope="module", params=["host", "qemu"])
def device(kept: Build, request: pytest.FixtureRequest) -> Iterator[tuple[Device, Kept]]:
    """One that serves `anna`, confirmed with security counter 5."""
    built = kept("plain")
    with built.running(request.param) as running:
        running.adapters.push(NAME, built.package(NAME, 1, version=7, counter=5))
        running.adapters.activate(NAME)
        running.adapters.confirm(NAME)
        yield running, built


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_refused_and_the_old_one_serves(device: tuple[Device, Kept], fault: str) -> None:
    running, built = device
    make, status = FAULTS[fault]
    good, new = built.package(NAME, 1, version=7, counter=5), built.package(NAME, 2, version=8, counter=5)
    x = built.samples(3).x[2]
    before, listed = running.infer(data(x)).output, running.adapters.list()
    with pytest.raises(DeviceError) as refused:
        running.adapters.push(NAME, make(new))
    assert refused.value.status == status, refused.value.message
    assert STATUS_TEXTS[status] in refused.value.message and refused.value.hint == hint_of(status)
    assert status == -2 or refused.value.hint
    assert running.adapters.list() == listed
    assert running.infer(data(x)).output == before == built.output(built.trained(1), x)
    assert running.adapters.pull(NAME) == good


def test_deltas(device: tuple[Device, Kept]) -> None:
    """One that is damaged anywhere behind its header gives no package that counts; a right one gives the new one."""
    running, built = device
    good, new = built.package(NAME, 1, version=7, counter=5), built.package(NAME, 2, version=8, counter=5)
    delta, listed = diff(good, new), running.adapters.list()
    for offset in range(24, len(delta) - 8, 37):
        with pytest.raises(DeviceError):
            running.adapters.push(NAME, flipped(delta, offset))
        assert running.adapters.list() == listed, offset
    running.adapters.push(NAME, delta)
    assert running.adapters.pull(NAME) == new and len(delta) < len(new)
    running.adapters.revert(NAME)


def test_every_fault_has_an_error_of_its_own() -> None:
    own = ("another base model", "a rank above the largest", "a wrong CRC", "a wrong SHA-256", "more than a slot")
    own += ("an older security counter", "a file that is too short")
    assert len({FAULTS[fault][1] for fault in own}) == len(own)


def test_no_free_slot(kept: Build) -> None:
    """Two slots hold the adapter and its candidate, a third what is uploaded; a fifth id finds no room."""
    built = kept("plain")
    with built.running("host") as device:
        names = [f"user-{i}" for i in range(ADAPTERS)]
        for name in names:
            device.adapters.push(name, built.package(name, 1))
        device.adapters.activate(names[0])
        x = built.samples(1).x[0]
        before = device.infer(data(x)).output
        with pytest.raises(DeviceError) as full:
            device.adapters.push("one-more", built.package("one-more", 1))
        assert full.value.status == -15 and "delete" in str(full.value.hint)
        assert device.infer(data(x)).output == before
        device.adapters.delete(names[3])
        device.adapters.push("one-more", built.package("one-more", 1))


def test_a_flash_without_a_slot_left(kept: Build) -> None:
    built = kept("plain", "stm32f4_discovery")
    with built.running("host") as device:
        slots = device.adapters.list().slots
        assert slots > ADAPTERS


def test_a_candidate_that_is_not_confirmed_is_given_up(kept: Build) -> None:
    built, x = kept("plain"), kept("plain").samples(1).x[0]
    with built.running("qemu") as device:
        device.adapters.push(NAME, built.package(NAME, 1, version=1))
        device.adapters.activate(NAME)
        device.adapters.confirm(NAME)
        device.adapters.push(NAME, built.package(NAME, 2, version=2))
        device.adapters.activate(NAME)
        for boots in range(3):
            assert device.infer(data(x)).output == built.output(built.trained(2), x), boots
            restart(device)
        restart(device)
        (entry,) = device.adapters.list().adapters
        assert (entry.confirmed, entry.candidate, entry.active) == (1, None, True)
        assert device.infer(data(x)).output == built.output(built.trained(1), x)

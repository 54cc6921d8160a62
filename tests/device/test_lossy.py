"""A stream that loses and damages bytes: everything is asked for again, but nothing that must not run twice."""

from __future__ import annotations

import random
import struct
import time

import cbor2
import pytest

from tinypeft.device import Device
from tinypeft.device.framing import Decoder, Message, encode
from tinypeft.device.link import Link, Lost
from tinypeft.device.protocol import Command
from tinypeft.emulators import EMULATORS
from tinypeft.errors import DeviceError


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    monkeypatch.setattr(Link, "ANSWER_LIMIT", 0.01)


class Noise:
    """The twin behind a stream on which about one byte of `period` is dropped, changed or doubled, either way."""

    def __init__(self, transport, seed: int, period: float):
        self.transport, self.random, self.period = transport, random.Random(seed), period
        self.received = b""
        self.faults = 0

    def _disturb(self, data: bytes) -> bytes:
        out = bytearray()
        for byte in data:
            if self.random.random() * self.period >= 1:
                out.append(byte)
                continue
            self.faults += 1
            out += [b"", bytes([byte ^ 1 << self.random.randrange(8)]), bytes([byte, byte])][self.random.randrange(3)]
        return bytes(out)

    def send(self, data: bytes) -> None:
        self.transport.send(self._disturb(data))
        try:
            self.received += self._disturb(self.transport.receive(0.0))
        except DeviceError:  # the twin did not answer
            pass

    def receive(self, timeout: float) -> bytes:
        if not self.received:
            time.sleep(timeout)
        received, self.received = self.received, b""
        return received


def work(device: Device) -> list[object]:
    """Every request that may run twice, and what it gives."""
    found: list[object] = [device.reset_adapter(5), device.stats().guards_intact]
    data = random.Random(1).randbytes(2048)
    device.write("staging", data)
    found += [device.read("staging"), device.read("adapter")]
    found += [device.infer(bytes(range(16)), trace=True, dump=3), device.infer(bytes([9] * 16))]
    package = device.export_adapter()
    device.reset_adapter(6, trace=True)
    device.load_adapter(package)
    found += [package, device.read("adapter"), device.requantize(trace=True)]
    return found


@pytest.mark.parametrize("seed", range(25))
def test_what_may_run_twice_is_asked_for_until_it_is_answered(twin_project, make_board, monkeypatch, seed):
    monkeypatch.setattr(Link, "ATTEMPTS", 30)  # every second long answer is damaged
    host = EMULATORS["host"]
    with host.open(twin_project(), make_board()) as exact, host.open(twin_project(), make_board()) as other:
        noise = Noise(other._link.transport, seed, period=3000)
        disturbed = Device(noise, timeout=5.0, lossy=True, sequence=seed)
        assert disturbed.info() == exact.info()
        assert work(disturbed) == work(exact)
        assert noise.faults > 0


@pytest.mark.parametrize("seed", range(25))
def test_a_training_step_runs_once_or_is_reported(twin_project, make_board, monkeypatch, seed):
    monkeypatch.setattr(Link, "ATTEMPTS", 30)  # of INFO, whose answer is long
    with EMULATORS["host"].open(twin_project(), make_board()) as exact:
        disturbed = Device(Noise(exact._link.transport, seed, period=700), timeout=5.0, lossy=True)
        done, failed = 0, 0
        for step in range(60):
            try:
                run = disturbed.train_step(bytes(16), step % 3, 1.0)
            except DeviceError as error:
                failed = 1
                assert "TRAIN_STEP(label=" in error.message and "must not run twice" in error.message
                assert error.hint.startswith("start again")
                break
            assert run.loss == 0.5 + step % 3
            done += 1
        steps = sum(struct.unpack("<10f", exact.read("training")))
        assert done <= steps <= done + failed
        assert exact.stats().guards_intact


class Script:
    """A device that answers each request with what `answer` gives."""

    def __init__(self, answer):
        self.answer, self.received, self.decoder, self.requests = answer, b"", Decoder(), []

    def send(self, data: bytes) -> None:
        for request in self.decoder.feed(data):
            self.requests.append(request)
            self.received += self.answer(request)

    def receive(self, timeout: float) -> bytes:
        if not self.received:
            time.sleep(timeout)
        received, self.received = self.received, b""
        return received


def final(request: Message, fields: dict[str, object] | None = None) -> bytes:
    return encode(Message(request.op + 1, request.command, request.sequence, cbor2.dumps(fields or {})))


INFO = {"protocol": 4, "payload": 512, "classes": 0, "samples": 0, "sample": 0, "name": "scripted"}
INFO |= {"input": 0, "output": 0, "logits": 0, "adapter": 8, "training": 0, "package": 64, "arena": 64, "target": 0}
INFO |= {"fingerprint": bytes(32)}


def commands(script: Script) -> list[Command]:
    return [Command(request.command) for request in script.requests]


def test_a_long_computation_is_waited_for():
    """Asked after while it lasts, answered when it is done; late answers to the questions do no harm."""
    waiting: list[Message] = []

    def answer(request: Message) -> bytes:
        waiting.append(request)
        if len(waiting) < 4:
            return b""
        return b"".join(final(r, INFO if r.command == Command.INFO else {"sane": True}) for r in waiting)

    script = Script(answer)
    device = Device(script, timeout=5.0, lossy=True)
    assert device.update(0.5).trace == []
    assert commands(script) == [Command.UPDATE, Command.INFO, Command.INFO, Command.INFO]


def test_a_device_that_is_done_without_an_answer_is_not_waited_for():
    script = Script(lambda request: final(request, INFO) if request.command == Command.INFO else b"")
    device, began = Device(script, timeout=60.0, lossy=True), time.monotonic()
    with pytest.raises(DeviceError, match="UPDATE.*the device is done, but its answer was lost; it may have run"):
        device.update(0.5)
    assert commands(script) == [Command.UPDATE, Command.INFO]
    with pytest.raises(Lost, match="REQUANTIZE"):
        device.requantize()
    assert commands(script).count(Command.REQUANTIZE) == Link.ATTEMPTS
    assert time.monotonic() - began < 5


def test_a_device_that_computes_for_too_long_is_given_up():
    device = Device(Script(lambda request: b""), timeout=0.1, lossy=True)
    with pytest.raises(DeviceError, match=r"UPDATE\(learning_rate=0.5\): no answer within 0.1 s; it may have run"):
        device.update(0.5)


def test_a_damaged_trace_of_a_training_step_is_not_taken_for_all_of_it():
    record = {"more": True, "trace": struct.pack("<3I", 0, 4, 0)}

    def answer(request: Message) -> bytes:
        if request.command == Command.INFO:
            return final(request, INFO)
        damaged = bytearray(final(request, record))
        damaged[12] ^= 1
        return bytes(damaged) + final(request, {"loss": 0.0, "sane": True})

    device = Device(Script(answer), timeout=1.0, lossy=True)
    assert device.train_step(None, 0, 0.1).loss == 0.0  # the final response is whole, and nothing else was asked for
    with pytest.raises(DeviceError, match="a part of the answer was damaged; it may have run"):
        device.train_step(None, 0, 0.1, trace=True)


def test_an_answer_behind_half_an_answer_is_found():
    """A packet that promises 4 KB does not swallow what follows."""

    def answer(request: Message) -> bytes:
        return b"\x06\x09EAAA\n\x04\x14AAAA\n" + final(request, {"stack": 4096, "stack_used": 100, "guards": True})

    device = Device(Script(answer), timeout=1.0, lossy=True)
    assert device.stats().stack_bytes == 4096


def test_without_loss_nothing_is_sent_twice():
    script = Script(lambda request: b"")
    with pytest.raises(DeviceError, match=r"STATS\(\): no answer within 0.05 s$"):
        Device(script, timeout=0.05).stats()
    assert commands(script) == [Command.STATS]

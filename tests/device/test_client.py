"""`Device` against the fake model's twin, and against devices that answer late, wrongly or not at all."""

import math
import struct

import cbor2
import numpy as np
import pytest

from tinypeft.device import Device, Dump, Run, Stats, TraceRecord, trace_crc32
from tinypeft.device.framing import READ_RESPONSE, Decoder, Message, encode
from tinypeft.errors import DeviceError

DUMPED, EMPTY = 3, 5
WIDE = (np.arange(600, dtype=np.int16) * 7 - 2000).astype(np.int16)


def expected_trace() -> list[TraceRecord]:
    """What the fake model's outputs are, by fake_model.c."""
    values: list[tuple[np.ndarray, int]] = [(np.array([i], np.int32), 0) for i in range(100)]
    values[DUMPED], values[EMPTY] = (WIDE, -7), (np.array([], np.int8), 0)
    return [TraceRecord(i, value.nbytes, trace_crc32(value, exponent)) for i, (value, exponent) in enumerate(values)]


def test_info(device):
    info = device.info()
    assert (info.name, info.protocol, info.max_payload) == ("fake", 4, 512)
    assert info.fingerprint == bytes([1, 2, 3]) + bytes(29)
    sizes = (info.input_bytes, info.output_bytes, info.logits_bytes, info.adapter_bytes)
    assert sizes == (16, 4, 12, 24)
    assert (info.training_bytes, info.package_bytes, info.arena_bytes, info.target_bytes) == (40, 28, 2048, 8)


def test_stats(device):
    assert device.stats() == Stats(stack_bytes=0, stack_high_water=0, guards_intact=True)
    device.infer(bytes([128]) + bytes(15))  # this input makes the fake write over its guard
    assert not device.stats().guards_intact


def test_objects_larger_than_a_payload(device):
    data = np.random.default_rng(0).bytes(2048)
    device.write("staging", data)
    assert device.read("staging") == data
    device.write("staging", b"middle", 1000)
    assert device.read("staging", 998, 10) == data[998:1000] + b"middle" + data[1006:1008]
    assert device.read("staging", 5, 0) == b""
    assert device.read("staging", 1) == (data[:1000] + b"middle" + data[1006:])[1:]


def test_infer(device):
    assert device.infer(bytes([10, 20, 30, 40] + [0] * 12)) == Run(output=bytes([5, 10, 15, 20]))
    assert struct.unpack("<3i", device.read("logits")) == (10, 0, 0)
    assert device.infer().output == bytes([5, 10, 15, 20])


RUNS = {
    "infer": lambda device, **options: device.infer(bytes(16), **options),
    "train_step": lambda device, **options: device.train_step(bytes(16), 1, 0.1, **options),
    "update": lambda device, **options: device.update(0.1, **options),
    "reset_adapter": lambda device, **options: device.reset_adapter(1, **options),
    "requantize": lambda device, **options: device.requantize(**options),
}


@pytest.mark.parametrize("run", RUNS)
def test_every_run_is_traced(device, run):
    assert RUNS[run](device).trace == []
    assert RUNS[run](device, trace=True).trace == expected_trace()
    assert RUNS[run](device, dump=DUMPED).dump == Dump(WIDE.tobytes(), -7)
    assert RUNS[run](device, dump=EMPTY).dump == Dump(b"", 0)
    both = RUNS[run](device, trace=True, dump=DUMPED)
    assert (both.trace, both.dump) == (expected_trace(), Dump(WIDE.tobytes(), -7))
    assert RUNS[run](device).dump is None
    with pytest.raises(DeviceError, match="no output has index 100"):
        RUNS[run](device, dump=100)


def test_training(device):
    assert device.train_step(bytes(16), 2, 0.25).loss == 2.5
    device.train_step(None, 0, 3.0)
    training = struct.unpack("<10f", device.read("training"))
    assert (training[0], training[2]) == (3.0, 0.25)
    device.requantize()
    assert device.read("adapter", 0, 4) == struct.pack("<i", 3)
    device.update(0.5)
    assert device.read("training", 36) == struct.pack("<f", 0.5)
    device.reset_adapter(77)
    assert device.read("adapter") == struct.pack("<6i", 0, 0, 0, 0, 0, 77)


def test_training_towards_a_vector(device):
    """The vector is written in front of the step, and stays for steps without one."""
    vector = struct.pack("<2i", 7, 3 << 16)
    assert device.train_step(bytes(16), vector, 0.25).loss == 3.5
    assert device.read("target") == vector
    assert device.train_step(None, None, 0.25).loss == 3.5
    device.write("target", struct.pack("<i", -1 << 15), 4)
    assert device.train_step(None, 0, 0.25).loss == 0.0


def test_adapter_packages(device):
    device.reset_adapter(5)
    package = device.export_adapter()
    assert len(package) == 28
    device.reset_adapter(6)
    device.load_adapter(package)
    assert device.read("adapter") == package[:24]
    device.reset_adapter(6)
    with pytest.raises(DeviceError, match=r"LOAD_ADAPTER\(bytes=28\): the device says: a checksum does not match"):
        device.load_adapter(package[:-1] + b"x")
    for size in (0, 27, 3000):
        with pytest.raises(DeviceError, match=rf"bytes={size}.*wrong size \(status -2\)"):
            device.load_adapter((package * 200)[:size])
    assert device.read("adapter") == struct.pack("<6i", 0, 0, 0, 0, 0, 6)


def test_latents(latent_device):
    """Kept on the device, for steps in any order."""
    assert [latent_device.encode(bytes([n] * 16), n).latent_bytes for n in (3, 19)] == [6, 6]
    assert latent_device.read("latents", 18, 6) == bytes([3] * 6) and latent_device.read("latents", 24, 1) == bytes(1)
    for sample, label in ((19, 1), (3, 0), (19, 1)):
        run = latent_device.train_latents(sample, label, 0.5)
        assert (run.loss, run.masters_sane) == (0.25 + label + sample, True)
    assert struct.unpack("<2f", latent_device.read("training", 0, 8)) == (0.5, 1.0)
    assert latent_device.encode(bytes(16), 0, trace=True).trace == expected_trace()
    step = latent_device.train_latents(3, 0, 0.5, trace=True, dump=DUMPED)
    assert (step.trace, step.dump) == (expected_trace(), Dump(WIDE.tobytes(), -7))
    assert latent_device.encode(bytes(16), 0, dump=EMPTY) == Run(latent_bytes=6, dump=Dump(b"", 0))


def test_errors_of_latents(device, latent_device):
    for call in (lambda: device.encode(bytes(16), 0), lambda: device.train_latents(0, 0, 0.1)):
        with pytest.raises(DeviceError, match="fake keeps no latents of a sample") as caught:
            call()
        assert "--latents" in caught.value.hint
    with pytest.raises(DeviceError, match=r"TRAIN_LATENTS\(sample=20, label=0, .*out of range"):
        latent_device.train_latents(20, 0, 0.1)
    with pytest.raises(DeviceError, match=r"ENCODE\(sample=20\): .*out of range"):
        latent_device.encode(bytes(16), 20)
    with pytest.raises(DeviceError, match=r"ENCODE\(sample=0\): the device says: not an adapter package"):
        latent_device.encode(bytes([0, 0, 99] + [0] * 13), 0)
    with pytest.raises(DeviceError, match="is the model's"):
        latent_device.read("latents")


ERRORS = {
    "label": (
        lambda device: device.train_step(None, 3, 0.1),
        r"TRAIN_STEP\(label=3, learning_rate=0.1\): .*\(status -1\)",
    ),
    "large label": (lambda device: device.train_step(None, 1 << 40, 0.1), "label 1099511627776 is not"),
    "learning rate": (lambda device: device.update(math.inf), r"UPDATE\(learning_rate=inf\): .*out of range"),
    "large learning rate": (lambda device: device.update(1e300), r"learning rate 1e\+300 is beyond float32"),
    "object": (lambda device: device.read("weights"), "no object 'weights'; there are input, output"),
    "read-only": (lambda device: device.write("output", b"x"), r"WRITE\(output, offset=0, bytes=1\)"),
    "range": (lambda device: device.read("adapter", 20, 5), r"READ\(adapter, offset=20, length=5\): .*out of range"),
    "offset": (lambda device: device.write("adapter", b"x", -1), "offset -1 is not an unsigned"),
    "input": (lambda device: device.infer(bytes(15)), "the input has 15 bytes, fake takes 16"),
    "target": (lambda device: device.train_step(None, bytes(4), 0.1), "the target has 4 bytes, fake takes 8"),
    "dump": (lambda device: device.infer(dump=-3), "no output has index -3"),
    "seed": (lambda device: device.reset_adapter(-1), "seed -1 is not an unsigned"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_command_numbers_and_status(device, case):
    call, message = ERRORS[case]
    with pytest.raises(DeviceError, match=message):
        call(device)
    assert device.stats().guards_intact


class Script:
    """A transport whose device answers each request with what `answer` gives."""

    def __init__(self, answer):
        self.answer = answer
        self.received = b""
        self.decoder = Decoder()

    def send(self, data: bytes) -> None:
        for request in self.decoder.feed(data):
            self.received += self.answer(request)

    def receive(self, timeout: float) -> bytes:
        received, self.received = self.received, b""
        return received


def answer_to(request: Message, fields: object) -> bytes:
    """The final answer to a request."""
    return encode(Message(request.op + 1, request.command, request.sequence, cbor2.dumps(fields)))


def info_response(request: Message, **changes: object) -> bytes:
    names = ("input", "output", "logits", "adapter", "training", "package", "arena", "target")
    fields = {"protocol": 4, "payload": 512, "classes": 0, "samples": 0, "sample": 0, **dict.fromkeys(names, 0)}
    fields |= {"name": "scripted", "fingerprint": bytes(32), **changes}
    return answer_to(request, {key: value for key, value in fields.items() if value is not None})


def test_a_silent_device_is_reported_with_its_last_output():
    device = Device(Script(lambda request: b"tinypeft x failed: \x06\x09oops\r\n"), timeout=0.01)
    with pytest.raises(DeviceError, match=r"STATS\(\): no answer within 0.01 s; its last output: 'tinypeft x failed:"):
        device.stats()
    with pytest.raises(DeviceError, match="no answer to INFO within 0.05 s; its last output"):
        device.wait_ready(0.05, retry=0.01)


def test_readiness_is_asked_for_again():
    requests: list[Message] = []

    def answer(request: Message) -> bytes:
        requests.append(request)
        return info_response(request) if len(requests) == 3 else b""

    assert Device(Script(answer)).wait_ready(5.0, retry=0.01).name == "scripted"


def test_late_answers_and_echoes_are_skipped():
    def answer(request: Message) -> bytes:
        late = Message(READ_RESPONSE, 10, (request.sequence - 1) % 256, b"late")
        other = Message(READ_RESPONSE, 9, request.sequence, b"other command")
        group = Message(READ_RESPONSE, request.command, request.sequence, b"other group", group=0)
        return b"text" + encode(request) + encode(late) + encode(other) + encode(group) + info_response(request)

    assert Device(Script(answer)).info().name == "scripted"


def test_sequence_numbers_wrap():
    device = Device(Script(lambda request: answer_to(request, {"stack": 1, "stack_used": 0, "guards": False})))
    for _ in range(300):
        assert device.stats() == Stats(1, 0, False)


def raw(payload: bytes):
    return lambda request: encode(Message(READ_RESPONSE, 0, request.sequence, payload))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda request: info_response(request, protocol=3), "the firmware speaks protocol 3, this tinypeft 4"),
        (lambda request: info_response(request, arena=None), r"INFO\(\): an answer without 'arena', it has protocol, "),
        (lambda request: info_response(request, name=b"x"), "an answer without 'name'"),
        (lambda request: info_response(request, samples=True), "an answer without 'samples'"),
        (lambda request: answer_to(request, {}), "protocol None"),
        (lambda request: answer_to(request, [1]), "an answer of 2 bytes that is no map"),
        (raw(b""), "an answer of 0 bytes that is no CBOR"),
        (raw(b"\xbf\x61"), "an answer of 2 bytes that is no CBOR"),
        (lambda request: answer_to(request, {"more": True, "odd": b"ab"}), "with the unknown keys more, odd"),
        (lambda request: answer_to(request, {"more": True, "trace": b"ab"}), "with the unknown keys more, trace"),
        (lambda request: answer_to(request, {"err": {"group": 64, "rc": 5}}), r"another base model \(status -5\)"),
        (lambda request: answer_to(request, {"err": {"group": 64, "rc": 99}}), r"unknown status \(status -99\)"),
        (lambda request: answer_to(request, {"err": {"group": 8, "rc": 5}}), "error 5 of group 8"),
        (lambda request: answer_to(request, {"rc": 3}), r"malformed or incomplete \(SMP error 3\)"),
    ],
)
def test_wrong_answers(answer, message):
    with pytest.raises(DeviceError, match=message):
        Device(Script(answer)).info()


@pytest.mark.parametrize("data", [b"", bytes(8)])
def test_a_read_of_a_wrong_length_is_reported(data):
    def answer(request: Message) -> bytes:
        return answer_to(request, {"off": 0, "data": data})

    with pytest.raises(DeviceError, match=rf"READ\(input, offset=0, length=7\) gave {len(data)} bytes"):
        Device(Script(answer)).read("input", 0, 7)

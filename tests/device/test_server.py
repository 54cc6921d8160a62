"""The server: every error path by its code, responses that are no requests, and random input under sanitizers."""

import binascii
import re
import subprocess
from pathlib import Path
from typing import Any

import cbor2
import pytest

from tinypeft.device.framing import OS_GROUP, READ, WRITE, Decoder, Message, encode
from tinypeft.device.protocol import PROTOCOL_VERSION, READS, Command, Object
from tinypeft.device.status import STATUS_TEXTS, status_text
from tinypeft.resources import resource_path

ARGUMENT, SIZE, CHECKSUM, FORMAT, COMMAND, UNSUPPORTED = -1, -2, -3, -4, -6, -7
#: MGMT_ERR_*: the same for every group
INVALID, TOO_LARGE, NOT_SUPPORTED, TOO_NEW = 3, 7, 8, 13
NAN, INFINITY = float("nan"), float("inf")
INCLUDE = resource_path("firmware", "include", "tinypeft")


def at(number: int, off: int, data: bytes = b"x") -> dict[str, Any]:
    return {"object": number, "off": off, "data": data}


def part(number: int, off: int, length: int) -> dict[str, Any]:
    return {"object": number, "off": off, "len": length}


def step(label: int, rate: float, **more: Any) -> dict[str, Any]:
    return {"label": label, "rate": rate, **more}


ERRORS: dict[str, tuple[int, int, Any, int]] = {
    "unknown command": (READ, 13, {}, NOT_SUPPORTED),
    "largest command": (WRITE, 255, {}, NOT_SUPPORTED),
    "info as a write": (WRITE, Command.INFO, {}, NOT_SUPPORTED),
    "infer as a read": (READ, Command.INFER, {}, NOT_SUPPORTED),
    "no map": (READ, Command.INFO, b"\x80", INVALID),
    "no CBOR": (READ, Command.INFO, b"x", INVALID),
    "truncated": (READ, Command.INFO, b"\xbf\x61a", INVALID),
    "trailing bytes": (READ, Command.INFO, b"\xa0\xa0", INVALID),
    "a key twice": (WRITE, Command.LOAD_ADAPTER, b"\xa2\x63len\x01\x63len\x01", INVALID),
    "another type": (WRITE, Command.LOAD_ADAPTER, {"len": "4"}, INVALID),
    "a negative length": (WRITE, Command.LOAD_ADAPTER, {"len": -1}, INVALID),
    "a length of 33 bits": (WRITE, Command.LOAD_ADAPTER, {"len": 1 << 32}, INVALID),
    "a label of 33 bits": (WRITE, Command.TRAIN_STEP, step(1 << 31, 0.1), INVALID),
    "an optional value of another type": (WRITE, Command.INFER, {"trace": 1}, INVALID),
    "write without an offset": (WRITE, Command.WRITE, {"object": 0, "data": b""}, INVALID),
    "write without data": (WRITE, Command.WRITE, {"object": 0, "off": 0}, INVALID),
    "read without an object": (READ, Command.READ, {"off": 0, "len": 0}, INVALID),
    "train step without a rate": (WRITE, Command.TRAIN_STEP, {"label": 0}, INVALID),
    "train step with a null rate": (WRITE, Command.TRAIN_STEP, {"rate": None}, INVALID),
    "reset without a seed": (WRITE, Command.RESET_ADAPTER, {}, ARGUMENT),
    "load without a size": (WRITE, Command.LOAD_ADAPTER, {}, INVALID),
    "fit without epochs": (WRITE, Command.FIT, {"samples": 1, "rate": 0.5}, INVALID),
    "write of an unknown object": (WRITE, Command.WRITE, at(8, 0), COMMAND),
    "write of the output": (WRITE, Command.WRITE, at(1, 0), ARGUMENT),
    "write of the logits": (WRITE, Command.WRITE, at(2, 0), ARGUMENT),
    "write behind the input": (WRITE, Command.WRITE, at(0, 16), ARGUMENT),
    "write over the end": (WRITE, Command.WRITE, at(0, 10, b"1234567"), ARGUMENT),
    "write at a huge offset": (WRITE, Command.WRITE, at(0, 0xFFFFFFFF), ARGUMENT),
    "write over the end of the target": (WRITE, Command.WRITE, at(6, 4, bytes(5)), ARGUMENT),
    "read of an unknown object": (READ, Command.READ, part(99, 0, 1), COMMAND),
    "read behind the adapter": (READ, Command.READ, part(3, 25, 0), ARGUMENT),
    "read over the end": (READ, Command.READ, part(3, 8, 17), ARGUMENT),
    "read that wraps around": (READ, Command.READ, part(3, 8, 0xFFFFFFFC), ARGUMENT),
    "infer with a short input": (WRITE, Command.INFER, {"input": bytes(15)}, SIZE),
    "train step with a long input": (WRITE, Command.TRAIN_STEP, step(0, 0.1, input=bytes(17)), SIZE),
    "evaluate with an empty input": (WRITE, Command.EVALUATE, {"input": b""}, SIZE),
    "label below 0": (WRITE, Command.TRAIN_STEP, step(-1, 0.1), ARGUMENT),
    "label above the logits": (WRITE, Command.TRAIN_STEP, step(3, 0.1), ARGUMENT),
    "evaluated label": (WRITE, Command.EVALUATE, {"label": 3}, ARGUMENT),
    "negative learning rate": (WRITE, Command.TRAIN_STEP, step(0, -0.1), ARGUMENT),
    "infinite learning rate": (WRITE, Command.TRAIN_STEP, step(0, INFINITY), ARGUMENT),
    "learning rate not a number": (WRITE, Command.TRAIN_STEP, step(0, NAN), ARGUMENT),
    "learning rate beyond float32": (WRITE, Command.TRAIN_STEP, step(0, 1e39), ARGUMENT),
    "update with an infinite rate": (WRITE, Command.UPDATE, {"rate": INFINITY}, ARGUMENT),
    "load of more than the arena": (WRITE, Command.LOAD_ADAPTER, {"len": 2049}, SIZE),
    "load of a wrong size": (WRITE, Command.LOAD_ADAPTER, {"len": 27}, SIZE),
    "fit of more than the store": (WRITE, Command.FIT, {"samples": 21, "epochs": 1, "rate": 0.5}, ARGUMENT),
}

LATENT_ERRORS: dict[str, tuple[int, int, Any, int]] = {
    "unknown command": (READ, 15, {}, NOT_SUPPORTED),
    "encode as a read": (READ, Command.ENCODE, {"sample": 0}, NOT_SUPPORTED),
    "encode without a sample": (WRITE, Command.ENCODE, {}, INVALID),
    "step without a rate": (WRITE, Command.TRAIN_LATENTS, {"sample": 0}, INVALID),
    "encode with a short input": (WRITE, Command.ENCODE, {"sample": 0, "input": b""}, SIZE),
    "encode without room": (WRITE, Command.ENCODE, {"sample": 20}, ARGUMENT),
    "step without room": (WRITE, Command.TRAIN_LATENTS, {"sample": 20, **step(0, 0.1)}, ARGUMENT),
    "label above the logits": (WRITE, Command.TRAIN_LATENTS, {"sample": 19, **step(3, 0.1)}, ARGUMENT),
    "negative learning rate": (WRITE, Command.TRAIN_LATENTS, {"sample": 0, **step(0, -0.1)}, ARGUMENT),
    "write over the end": (WRITE, Command.WRITE, at(8, 114, bytes(7)), ARGUMENT),
    "write of an unknown object": (WRITE, Command.WRITE, at(9, 0), COMMAND),
}

#: Of firmware without latents
NO_LATENT_ERRORS: dict[str, tuple[int, int, Any, int]] = {
    "encode": (WRITE, Command.ENCODE, {"sample": 0}, NOT_SUPPORTED),
    "step from latents": (WRITE, Command.TRAIN_LATENTS, {"sample": 0, "rate": 0.1}, NOT_SUPPORTED),
    "write of latents": (WRITE, Command.WRITE, at(8, 0), COMMAND),
    "read of latents": (READ, Command.READ, part(8, 0, 0), COMMAND),
}

INFERENCE_ONLY_ERRORS: dict[str, tuple[int, int, Any, int]] = {
    "train step": (WRITE, Command.TRAIN_STEP, step(0, 0.1), UNSUPPORTED),
    "update": (WRITE, Command.UPDATE, {"rate": 0.0}, UNSUPPORTED),
    "reset": (WRITE, Command.RESET_ADAPTER, {"seed": 0}, UNSUPPORTED),
    "requantize": (WRITE, Command.REQUANTIZE, {}, UNSUPPORTED),
    "export": (WRITE, Command.EXPORT_ADAPTER, {}, UNSUPPORTED),
    "load": (WRITE, Command.LOAD_ADAPTER, {"len": 4}, UNSUPPORTED),
    "trace": (WRITE, Command.INFER, {"trace": True}, UNSUPPORTED),
    "dump": (WRITE, Command.INFER, {"dump": 0}, UNSUPPORTED),
    "read of logits": (READ, Command.READ, part(2, 0, 1), UNSUPPORTED),
    "read of the adapter": (READ, Command.READ, part(3, 0, 0), UNSUPPORTED),
    "write of a target": (WRITE, Command.WRITE, at(6, 0), UNSUPPORTED),
    "write of the training state": (WRITE, Command.WRITE, at(4, 0), UNSUPPORTED),
}


def check(answer: Message, op: int, command: int, code: int) -> None:
    """`code`: a negative tp_status, or a positive error of any command."""
    assert (answer.op, answer.command, answer.flags, answer.version) == (op + 1, command, 0, 1)
    wanted = {"err": {"group": answer.group, "rc": -code}} if code < 0 else {"rc": code}
    assert cbor2.loads(answer.payload) == wanted


def check_alive(wire) -> None:
    found = wire.ask(READ, Command.STATS)
    assert (found["stack"], found["stack_used"], found["guards"]) == (0, 0, True)


@pytest.mark.parametrize("case", ERRORS)
def test_errors_of_requests(wire, case):
    op, command, payload, code = ERRORS[case]
    check(wire.request(op, command, payload), op, command, code)
    check_alive(wire)


@pytest.mark.parametrize("case", LATENT_ERRORS)
def test_errors_of_firmware_with_latents(latent_wire, case):
    op, command, payload, code = LATENT_ERRORS[case]
    check(latent_wire.request(op, command, payload), op, command, code)
    check_alive(latent_wire)


@pytest.mark.parametrize("case", NO_LATENT_ERRORS)
def test_errors_of_firmware_without_latents(wire, case):
    op, command, payload, code = NO_LATENT_ERRORS[case]
    check(wire.request(op, command, payload), op, command, code)
    check_alive(wire)


@pytest.mark.parametrize("case", INFERENCE_ONLY_ERRORS)
def test_errors_of_firmware_that_only_infers(inference_wire, case):
    op, command, payload, code = INFERENCE_ONLY_ERRORS[case]
    check(inference_wire.request(op, command, payload), op, command, code)
    check_alive(inference_wire)


def test_an_input_that_is_refused_is_not_written(wire):
    wire.ask(WRITE, Command.WRITE, at(0, 0, bytes(range(16))))
    for refused in (step(3, 0.1, input=bytes(16)), step(0, -0.1, input=bytes(16)), step(0, 0.1, input=bytes(15))):
        assert "err" in wire.ask(WRITE, Command.TRAIN_STEP, refused)
    assert wire.ask(READ, Command.READ, {"object": 0})["data"] == bytes(range(16))


def test_groups_that_there_are_not(wire):
    for group in (1, 8, 63, 65, 65535):
        check(wire.request(READ, Command.INFO, {}, group=group), READ, Command.INFO, NOT_SUPPORTED)


def test_a_client_of_version_1_gets_the_nearest_error_of_any_command(wire):
    for command, payload, rc in (
        (Command.LOAD_ADAPTER, {"len": 2049}, INVALID),
        (Command.WRITE, at(99, 0), NOT_SUPPORTED),
        (Command.LOAD_ADAPTER, {}, INVALID),
        (Command.INFER, {}, None),
    ):
        answer = wire.request(WRITE, command, payload, version=0)
        assert (answer.op, answer.version) == (WRITE + 1, 0)
        assert cbor2.loads(answer.payload).get("rc") == rc


def test_later_versions_are_told_so(wire):
    for version in (2, 3):
        answer = wire.request(READ, Command.INFO, {}, version=version)
        assert (answer.op, answer.version, cbor2.loads(answer.payload)) == (READ + 1, version, {"rc": TOO_NEW})


def test_a_payload_length_that_contradicts_the_packet(device, wire):
    transport = wire.transport
    lines = encode(Message(READ, Command.INFO, 1))
    header = bytes.fromhex("08 00 0005 0040 01 00")  # 5 bytes of payload, which there are not
    transport.send(encode_raw(header))
    answer = transport.receive(1.0)
    transport.send(lines)
    assert b"" != answer != transport.receive(1.0)
    check(Decoder().feed(answer)[0], READ, Command.INFO, INVALID)


def encode_raw(message: bytes) -> bytes:
    """The line of a short message, whatever its header says."""
    packet = (len(message) + 2).to_bytes(2, "big") + message + binascii.crc_hqx(message, 0).to_bytes(2, "big")
    return b"\x06\x09" + binascii.b2a_base64(packet)


def test_responses_are_not_answered(wire):
    assert wire.exchange(b"".join(encode(Message(op, 0, 1)) for op in (1, 3, 4, 7))) == []
    check_alive(wire)


def test_the_models_own_errors_come_through(wire):
    wire.request(WRITE, Command.WRITE, at(0, 0, bytes([127])))
    check(wire.request(WRITE, Command.INFER), WRITE, Command.INFER, FORMAT)
    check(wire.request(WRITE, Command.LOAD_ADAPTER, {"len": 28}), WRITE, Command.LOAD_ADAPTER, CHECKSUM)


def test_empty_reads_and_writes_at_the_very_end(wire):
    assert wire.ask(READ, Command.READ, part(0, 16, 0)) == {"off": 16, "data": b""}
    assert wire.ask(WRITE, Command.WRITE, at(0, 16, b"")) == {"off": 16}


def test_a_read_gives_what_fits_and_without_a_length_the_rest(wire):
    data = bytes(range(256)) * 8
    for begin in range(0, 2048, 256):
        wire.ask(WRITE, Command.WRITE, at(5, begin, data[begin : begin + 256]))
    first = wire.request(READ, Command.READ, {"object": 5})
    assert 512 - 8 <= len(first.payload) <= 512
    found = cbor2.loads(first.payload)
    assert found["off"] == 0 and len(found["data"]) > 480 and data.startswith(found["data"])
    assert wire.ask(READ, Command.READ, {"object": 5, "off": 2040}) == {"off": 2040, "data": data[2040:]}


def test_one_request_infers_and_one_trains(wire):
    """As an SMP client that knows nothing of this one does it; further keys are ignored."""
    assert wire.ask(WRITE, Command.INFER, {"input": bytes([10, 20, 30, 40] + [0] * 12), "why": [{}]}) == {
        "output": bytes([5, 10, 15, 20])
    }
    assert wire.ask(WRITE, Command.TRAIN_STEP, {"rate": 1, "label": 2, "input": bytes(16)}) == {
        "loss": 2.5,
        "sane": True,
    }
    assert wire.ask(WRITE, Command.EVALUATE, {"label": 2, "input": bytes(16)}) == {"loss": 0, "right": 1}


def test_the_messages_in_front_of_the_answer_say_so(wire):
    answers = wire.exchange(encode(Message(WRITE, Command.INFER, 9, cbor2.dumps({"dump": 5, "trace": True}))))
    *before, final = (cbor2.loads(answer.payload) for answer in answers)
    assert all(found["more"] is True for found in before) and "more" not in final
    assert {tuple(answer.__dict__.items())[:3:2] for answer in answers} == {(("op", 3), ("sequence", 9))}
    assert {key for found in before for key in found} == {"more", "trace", "dump", "exponent"}


# Group 0


def test_echo_and_parameters(wire):
    assert wire.ask(WRITE, 0, {"d": "grüezi"}, group=OS_GROUP) == {"r": "grüezi"}
    assert wire.ask(READ, 6, {}, group=OS_GROUP) == {"buf_size": 8 + 512 + 4, "buf_count": 1}
    check(wire.request(WRITE, 0, {}, group=OS_GROUP), WRITE, 0, INVALID)
    long = wire.request(WRITE, 0, {"d": "x" * 506}, group=OS_GROUP)
    assert cbor2.loads(long.payload) == {"rc": TOO_LARGE}


def test_application_information(wire):
    def info(**fields: str) -> Any:
        return wire.ask(READ, 7, fields, group=OS_GROUP)

    assert info() == info(format="s") == {"output": "fake"}
    assert info(format="a") == {"output": "fake unknown unknown unknown unknown host host host tinypeft"}
    assert info(format="om") == {"output": "host tinypeft"}
    assert info(format="sx") == {"err": {"group": 0, "rc": 2}}


def test_a_reset_starts_anew(wire):
    wire.ask(WRITE, Command.RESET_ADAPTER, {"seed": 7})
    assert wire.ask(READ, Command.READ, part(3, 20, 4))["data"] == bytes([7, 0, 0, 0])
    assert wire.ask(WRITE, 5, {}, group=OS_GROUP) == {}
    assert wire.ask(READ, Command.READ, part(3, 20, 4))["data"] == bytes(4)


# Both sides


def test_both_sides_number_commands_and_objects_alike():
    header = (INCLUDE / "tp_server.h").read_text()
    source = resource_path("firmware", "runtime", "tp_group_model.c").read_text()
    commands = re.search(r"typedef enum \{([^}]*)TP_COMMAND_COUNT", header)[1]
    objects = re.search(r"typedef enum \{([^}]*)\} tp_object", header)[1]
    assert re.findall(r"TP_COMMAND_(\w+)", commands) == [command.name for command in Command]
    assert re.findall(r"TP_OBJECT_(\w+)", objects) == [target.name for target in Object]
    assert f"TP_PROTOCOL_VERSION {PROTOCOL_VERSION}u" in header
    reads = re.findall(r"TP_OP_READ, TP_COMMAND_(\w+)", source)
    assert reads == [command.name for command in READS]


def test_both_sides_have_the_same_errors():
    table = re.findall(r'X\(TP_\w+, (-?\d+), "([^"]*)"\)', (INCLUDE / "tp_types.h").read_text())
    assert {int(value): text for value, text in table} == STATUS_TEXTS and len(table) > 10
    assert status_text(-2) == STATUS_TEXTS[-2] and status_text(-1000) == "unknown status"


@pytest.mark.parametrize("defines", [[], ["-DTP_LATENTS=1"]])
def test_random_input_leaves_the_server_alive(compile_c, twin_sources, tmp_path, defines):
    program = tmp_path / "fuzz"
    sanitizers = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    compile_c("gcc", *sanitizers, *defines, *twin_sources, Path(__file__).with_name("fuzz_server.c"), "-o", program)
    run = subprocess.run([str(program), "20000"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("compiler", ["gcc", "clang", "arm-none-eabi-gcc -mcpu=cortex-m0 -mthumb"])
@pytest.mark.parametrize("payload", [256, 4096])
def test_the_payload_size_is_a_choice(compiler, payload, compile_c, twin_sources, tmp_path):
    program, *flags = compiler.split()
    runtime = [source for source in twin_sources if source.parent.name == "runtime"]
    for source in [*runtime, resource_path("firmware", "runtime", "main.c")]:
        for latents in ([], ["-DTP_LATENTS=1"]):
            options = [*flags, *latents, f"-DTP_MAX_PAYLOAD={payload}", "-O2"]
            compile_c(program, *options, "-c", source, "-o", tmp_path / "object.o")

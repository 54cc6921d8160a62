"""The server: every error path by its status, responses that are no requests, and random input under sanitizers."""

import re
import struct
import subprocess
from pathlib import Path

import pytest

from tinypeft.device.crc import crc16_xmodem
from tinypeft.device.framing import READ, WRITE, Message, encode
from tinypeft.device.protocol import PROTOCOL_VERSION, READS, Command, Object
from tinypeft.resources import resource_path

ARGUMENT, SIZE, CHECKSUM, FORMAT, COMMAND, UNSUPPORTED = -1, -2, -3, -4, -6, -7
QUIET = struct.pack("<Ii", 0, -1)
BAD_DUMP = struct.pack("<Ii", 0, -2)
NAN, INFINITY = float("nan"), float("inf")


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def step(label: int, learning_rate: float, run: bytes = QUIET) -> bytes:
    return struct.pack("<if", label, learning_rate) + run


ERRORS = {
    "unknown command": (READ, 13, b"", COMMAND),
    "largest command": (WRITE, 255, b"", COMMAND),
    "info as a write": (WRITE, Command.INFO, b"", COMMAND),
    "infer as a read": (READ, Command.INFER, QUIET, COMMAND),
    "info with a payload": (READ, Command.INFO, b"x", SIZE),
    "write without an offset": (WRITE, Command.WRITE, words(0), SIZE),
    "read too short": (READ, Command.READ, words(0, 0), SIZE),
    "read too long": (READ, Command.READ, words(0, 0, 0, 0), SIZE),
    "infer without options": (WRITE, Command.INFER, b"", SIZE),
    "train step without options": (WRITE, Command.TRAIN_STEP, words(0, 0), SIZE),
    "load without a size": (WRITE, Command.LOAD_ADAPTER, b"", SIZE),
    "write of an unknown object": (WRITE, Command.WRITE, words(8, 0), COMMAND),
    "write of the output": (WRITE, Command.WRITE, words(1, 0) + b"x", ARGUMENT),
    "write of the logits": (WRITE, Command.WRITE, words(2, 0) + b"x", ARGUMENT),
    "write behind the input": (WRITE, Command.WRITE, words(0, 16) + b"x", ARGUMENT),
    "write over the end": (WRITE, Command.WRITE, words(0, 10) + b"1234567", ARGUMENT),
    "write at a huge offset": (WRITE, Command.WRITE, words(0, 0xFFFFFFFF) + b"x", ARGUMENT),
    "write over the end of the target": (WRITE, Command.WRITE, words(6, 4) + bytes(5), ARGUMENT),
    "read of an unknown object": (READ, Command.READ, words(99, 0, 1), COMMAND),
    "read behind the adapter": (READ, Command.READ, words(3, 25, 0), ARGUMENT),
    "read over the end": (READ, Command.READ, words(3, 8, 17), ARGUMENT),
    "read that wraps around": (READ, Command.READ, words(3, 8, 0xFFFFFFFC), ARGUMENT),
    "infer with a bad dump": (WRITE, Command.INFER, BAD_DUMP, ARGUMENT),
    "label below 0": (WRITE, Command.TRAIN_STEP, step(-1, 0.1), ARGUMENT),
    "label above the logits": (WRITE, Command.TRAIN_STEP, step(3, 0.1), ARGUMENT),
    "negative learning rate": (WRITE, Command.TRAIN_STEP, step(0, -0.1), ARGUMENT),
    "infinite learning rate": (WRITE, Command.TRAIN_STEP, step(0, INFINITY), ARGUMENT),
    "learning rate not a number": (WRITE, Command.TRAIN_STEP, step(0, NAN), ARGUMENT),
    "train step with a bad dump": (WRITE, Command.TRAIN_STEP, step(0, 0.1, BAD_DUMP), ARGUMENT),
    "update with an infinite rate": (WRITE, Command.UPDATE, struct.pack("<f", INFINITY) + QUIET, ARGUMENT),
    "update with a bad dump": (WRITE, Command.UPDATE, bytes(4) + BAD_DUMP, ARGUMENT),
    "reset with a bad dump": (WRITE, Command.RESET_ADAPTER, bytes(4) + BAD_DUMP, ARGUMENT),
    "requantize with a bad dump": (WRITE, Command.REQUANTIZE, BAD_DUMP, ARGUMENT),
    "load of more than the arena": (WRITE, Command.LOAD_ADAPTER, words(2049), SIZE),
    "load of a wrong size": (WRITE, Command.LOAD_ADAPTER, words(27), SIZE),
}

LATENT_ERRORS = {
    "unknown command": (READ, 15, b"", COMMAND),
    "encode as a read": (READ, Command.ENCODE, QUIET, COMMAND),
    "encode without options": (WRITE, Command.ENCODE, words(0), SIZE),
    "encode with a bad dump": (WRITE, Command.ENCODE, words(0) + BAD_DUMP, ARGUMENT),
    "step without options": (WRITE, Command.TRAIN_LATENTS, words(0, 0, 0), SIZE),
    "encode without room": (WRITE, Command.ENCODE, words(20) + QUIET, ARGUMENT),
    "step without room": (WRITE, Command.TRAIN_LATENTS, words(20) + step(0, 0.1), ARGUMENT),
    "label above the logits": (WRITE, Command.TRAIN_LATENTS, words(19) + step(3, 0.1), ARGUMENT),
    "negative learning rate": (WRITE, Command.TRAIN_LATENTS, words(0) + step(0, -0.1), ARGUMENT),
    "step with a bad dump": (WRITE, Command.TRAIN_LATENTS, words(0) + step(0, 0.1, BAD_DUMP), ARGUMENT),
    "write over the end": (WRITE, Command.WRITE, words(8, 114) + bytes(7), ARGUMENT),
    "write of an unknown object": (WRITE, Command.WRITE, words(9, 0), COMMAND),
}

#: Of firmware without latents
NO_LATENT_ERRORS = {
    "encode": (WRITE, Command.ENCODE, words(0) + QUIET, COMMAND),
    "step from latents": (WRITE, Command.TRAIN_LATENTS, words(0) + step(0, 0.1), COMMAND),
    "write of latents": (WRITE, Command.WRITE, words(8, 0), COMMAND),
    "read of latents": (READ, Command.READ, words(8, 0, 0), COMMAND),
}

INFERENCE_ONLY_ERRORS = {
    "train step": (WRITE, Command.TRAIN_STEP, step(0, 0.1), UNSUPPORTED),
    "update": (WRITE, Command.UPDATE, bytes(4) + QUIET, UNSUPPORTED),
    "reset": (WRITE, Command.RESET_ADAPTER, bytes(4) + QUIET, UNSUPPORTED),
    "requantize": (WRITE, Command.REQUANTIZE, QUIET, UNSUPPORTED),
    "export": (WRITE, Command.EXPORT_ADAPTER, b"", UNSUPPORTED),
    "load": (WRITE, Command.LOAD_ADAPTER, words(4), UNSUPPORTED),
    "trace": (WRITE, Command.INFER, struct.pack("<Ii", 1, -1), UNSUPPORTED),
    "dump": (WRITE, Command.INFER, struct.pack("<Ii", 0, 0), UNSUPPORTED),
    "read of logits": (READ, Command.READ, words(2, 0, 1), UNSUPPORTED),
    "read of the adapter": (READ, Command.READ, words(3, 0, 0), UNSUPPORTED),
    "write of a target": (WRITE, Command.WRITE, words(6, 0), UNSUPPORTED),
    "write of the training state": (WRITE, Command.WRITE, words(4, 0), UNSUPPORTED),
}


def check(answer: Message, op: int, command: int, status: int) -> None:
    assert (answer.op, answer.command, answer.flags) == (op + 1, command, 0)
    assert struct.unpack("<i", answer.payload[:4]) == (status,)
    texts = {ARGUMENT: b"an argument is out of range", COMMAND: b"unknown command or object"}
    assert answer.payload[4:] == texts.get(status, answer.payload[4:]) != b""


@pytest.mark.parametrize("case", ERRORS)
def test_errors_of_requests(wire, case):
    op, command, payload, status = ERRORS[case]
    check(wire.request(op, command, payload), op, command, status)
    check_alive(wire)


@pytest.mark.parametrize("case", LATENT_ERRORS)
def test_errors_of_firmware_with_latents(latent_wire, case):
    op, command, payload, status = LATENT_ERRORS[case]
    check(latent_wire.request(op, command, payload), op, command, status)
    check_alive(latent_wire)


@pytest.mark.parametrize("case", NO_LATENT_ERRORS)
def test_errors_of_firmware_without_latents(wire, case):
    op, command, payload, status = NO_LATENT_ERRORS[case]
    check(wire.request(op, command, payload), op, command, status)
    check_alive(wire)


@pytest.mark.parametrize("case", INFERENCE_ONLY_ERRORS)
def test_errors_of_firmware_that_only_infers(inference_wire, case):
    op, command, payload, status = INFERENCE_ONLY_ERRORS[case]
    check(inference_wire.request(op, command, payload), op, command, status)
    check_alive(inference_wire)


def check_alive(wire) -> None:
    assert wire.request(READ, Command.STATS).payload == words(0, 0, 0, 1)


def test_a_wrong_group_is_an_unknown_command(wire):
    check(wire.request(READ, Command.INFO, group=0), READ, Command.INFO, COMMAND)


def test_a_payload_length_that_contradicts_the_frame(wire):
    frame = bytearray(encode(Message(READ, Command.INFO, 1)))
    frame[7] = 5  # the header's payload length
    frame[-2:] = crc16_xmodem(bytes(frame[4:-2])).to_bytes(2, "big")
    check(wire.exchange(bytes(frame))[0], READ, Command.INFO, SIZE)


def test_responses_are_not_answered(wire):
    assert wire.exchange(b"".join(encode(Message(op, 0, 1)) for op in (1, 3, 4, 255))) == []
    check_alive(wire)


def test_the_models_own_errors_come_through(wire):
    wire.request(WRITE, Command.WRITE, words(0, 0) + bytes([127]))
    check(wire.request(WRITE, Command.INFER, QUIET), WRITE, Command.INFER, FORMAT)
    check(wire.request(WRITE, Command.LOAD_ADAPTER, words(28)), WRITE, Command.LOAD_ADAPTER, CHECKSUM)


def test_empty_reads_and_writes_at_the_very_end(wire):
    assert wire.request(READ, Command.READ, words(0, 16, 0)).payload == bytes(4)
    assert wire.request(WRITE, Command.WRITE, words(0, 16)).payload == bytes(4)


def test_both_sides_number_commands_and_objects_alike():
    header = resource_path("firmware", "include", "tinypeft", "tp_server.h").read_text()
    source = resource_path("firmware", "runtime", "tp_server.c").read_text()
    commands = re.search(r"typedef enum \{([^}]*)TP_COMMAND_COUNT", header)[1]
    objects = re.search(r"typedef enum \{([^}]*)\} tp_object", header)[1]
    assert re.findall(r"TP_COMMAND_(\w+)", commands) == [command.name for command in Command]
    assert re.findall(r"TP_OBJECT_(\w+)", objects) == [target.name for target in Object]
    assert f"TP_PROTOCOL_VERSION {PROTOCOL_VERSION}u" in header
    reads = re.findall(r"\[TP_COMMAND_(\w+)\] = \{\w+, TP_OP_READ,", source)
    assert reads == [command.name for command in READS]


@pytest.mark.parametrize("defines", [[], ["-DTP_LATENTS=1"]])
def test_random_input_leaves_the_server_alive(compile_c, twin_sources, tmp_path, defines):
    program = tmp_path / "fuzz"
    sanitizers = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    compile_c("gcc", *sanitizers, *defines, *twin_sources, Path(__file__).with_name("fuzz_server.c"), "-o", program)
    run = subprocess.run([str(program), "20000"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("compiler", ["gcc", "clang", "arm-none-eabi-gcc -mcpu=cortex-m0 -mthumb"])
@pytest.mark.parametrize("payload", [128, 4096])
def test_the_payload_size_is_a_choice(compiler, payload, compile_c, tmp_path):
    program, *flags = compiler.split()
    for name in (
        "tp_crc.c",
        "tp_fit.c",
        "tp_frame.c",
        "tp_response.c",
        "tp_server.c",
        "tp_server_fit.c",
        "host_twin.c",
        "main.c",
    ):
        source = resource_path("firmware", "runtime", name)
        for latents in ([], ["-DTP_LATENTS=1"]):
            options = [*flags, *latents, f"-DTP_MAX_PAYLOAD={payload}", "-O2"]
            compile_c(program, *options, "-c", source, "-o", tmp_path / "object.o")

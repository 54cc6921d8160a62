"""Framing in Python and in the device: any split of a stream, garbage, damaged, truncated and overlong packets."""

from __future__ import annotations

import base64
import binascii
import zlib

import cbor2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from smp import packet as reference

from tinypeft.device.crc import crc16_xmodem, trace_crc32
from tinypeft.device.framing import CONTINUE, LINE_MAX, MAX_PAYLOAD, READ, START, Decoder, Message, encode

BYTE = st.integers(0, 255)
MESSAGES = st.builds(
    Message, st.integers(0, 7), BYTE, BYTE, st.binary(max_size=600), BYTE, st.integers(0, 65535), st.integers(0, 3)
)
#: Bytes in which starts of lines, and whole lines of nothing, are frequent
GARBAGE = st.lists(
    st.sampled_from([START, CONTINUE, b"\x06", b"\x04", b"\n", b"AAAA", b"AA==\n", b"\r\n", b"\x06\x09AA8="])
    | st.binary(max_size=8)
).map(b"".join)
SLOW_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
ECHO = cbor2.dumps(
    {"d": "an echo that is long enough to take more than one line of the packet, whatever it begins with"}
)


def ended(garbage: bytes) -> bytes:
    """Without a half start at its end, which the byte behind it would make a whole one."""
    return garbage.rstrip(b"\x06\x04")


def test_checksums_have_their_published_check_values():
    assert crc16_xmodem(b"123456789") == 0x31C3
    mantissa = np.arange(4, dtype=np.int16)
    assert trace_crc32(mantissa, -7) == zlib.crc32(mantissa.tobytes() + b"\xf9\xff\xff\xff")
    assert trace_crc32(mantissa.astype(">i2"), -7) == trace_crc32(mantissa, -7)


def test_a_packet_byte_by_byte():
    lines = encode(Message(op=2, command=3, sequence=7, payload=b"ab"))
    message = bytes.fromhex("0a 00 0002 0040 07 03 6162")
    packet = bytes.fromhex("000c") + message + crc16_xmodem(message).to_bytes(2, "big")
    assert lines == b"\x06\x09" + base64.b64encode(packet) + b"\n"
    with pytest.raises(ValueError, match="4097 B exceeds 4096 B"):
        encode(Message(0, 0, 0, bytes(MAX_PAYLOAD + 1)))


@given(MESSAGES)
def test_the_lines_are_those_of_another_implementation(message):
    lines = encode(message)
    assert max(map(len, lines.splitlines(keepends=True))) <= LINE_MAX
    decoder = reference.decode()
    next(decoder)
    data = b""
    try:
        for line in lines.splitlines(keepends=True):
            decoder.send(line)
    except StopIteration as end:
        data = end.value
    assert lines == b"".join(reference.encode(data, line_length=LINE_MAX + 1))
    assert Decoder().feed(b"".join(reference.encode(data, line_length=40))) == [message]


@given(st.lists(MESSAGES, max_size=5), st.booleans(), st.data())
def test_any_split_of_a_stream_gives_the_messages(messages, returns, data):
    stream = b"".join(map(encode, messages))
    stream = stream.replace(b"\n", b"\r\n") if returns else stream
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    decoder, found = Decoder(), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += decoder.feed(stream[begin:end])
    assert found == messages
    assert (decoder.last_output, decoder.lost) == (b"", 0)


@given(GARBAGE, MESSAGES, GARBAGE)
def test_a_packet_between_garbage_is_found(before, message, after):
    decoder = Decoder()
    lines = encode(message)
    found = decoder.feed(before + lines + after + b"\n")
    assert message in found
    assert decoder.lost + len(decoder.last_output) >= len(before + after)


@given(MESSAGES, st.data())
def test_a_damaged_packet_is_dropped_and_the_next_one_found(message, data):
    lines = bytearray(encode(message))
    position = data.draw(st.integers(0, len(lines) - 1))
    lines[position] ^= 1 << data.draw(st.integers(0, 7))
    following = Message(1, 2, 3, b"next")
    found = Decoder().feed(bytes(lines) + encode(following))
    assert found[-1] == following
    # the unused bits of a last digit carry nothing; a line feed that becomes a carriage return is one more at the end
    assert message not in found or b"=" in lines or b"\r" in lines


@given(MESSAGES, st.data())
def test_a_truncated_packet_is_dropped_and_the_next_one_found(message, data):
    lines = encode(message)[: -data.draw(st.integers(2, 12))]
    following = Message(1, 2, 3, b"next")
    assert Decoder().feed(lines + encode(following)) == [following]


def test_text_between_lines_is_kept_for_the_reader():
    decoder = Decoder()
    decoder.feed(b"tinypeft fake ready\r\n" + encode(Message(1, 0, 0)) + b"oops\x06")
    assert decoder.last_output == b"tinypeft fake ready\r\noops\x06"
    decoder.feed(b"x" * 5000)
    assert decoder.last_output == b"x" * Decoder.SKIPPED_LIMIT
    first, second = encode(Message(1, 0, 0, bytes(100))).splitlines(keepends=True)
    assert decoder.feed(b"\n" + first + b"text\n" + second) == [Message(1, 0, 0, bytes(100))]


@SLOW_FIXTURE
@given(before=GARBAGE, between=GARBAGE, after=GARBAGE, sequence=BYTE)
def test_the_device_finds_a_request_between_garbage(wire, before, between, after, sequence):
    first, *others = encode(Message(2, 0, sequence, ECHO, group=0)).splitlines(keepends=True)
    text = between.replace(START, b"").replace(CONTINUE, b"").replace(START, b"").replace(CONTINUE, b"")
    answers = wire.exchange(before + first + ended(text) + b"".join(others) + after + b"\n")
    assert (3, sequence, {"r": cbor2.loads(ECHO)["d"]}) in [
        (answer.op, answer.sequence, cbor2.loads(answer.payload)) for answer in answers
    ]


@SLOW_FIXTURE
@given(data=st.data())
def test_the_device_drops_a_damaged_or_truncated_request(wire, data):
    request = encode(Message(2, 0, 9, ECHO, group=0))
    if data.draw(st.booleans()):
        request = request[: data.draw(st.integers(0, len(request) - 1))]
    else:
        position = data.draw(st.integers(0, len(request) - 1))
        request = request[:position] + bytes([request[position] ^ 0x20]) + request[position + 1 :]
    answers = wire.exchange(request + encode(Message(READ, 0, 1)))
    assert [(answer.command, answer.sequence) for answer in answers] == [(0, 1)]


@SLOW_FIXTURE
@given(message=st.binary(min_size=8, max_size=600), width=st.integers(1, 40))
def test_the_device_takes_lines_of_any_length(wire, message, width):
    """And of a message that is one byte too long for it nothing at all."""
    message = bytes([10, 0]) + (len(message) - 8).to_bytes(2, "big") + b"\0\0" + bytes([5, 99]) + message[8:]
    packet = (len(message) + 2).to_bytes(2, "big") + message + crc16_xmodem(message).to_bytes(2, "big")
    text, size = base64.b64encode(packet), 4 * min(width, 31)
    lines = b"".join(CONTINUE + text[i : i + size] + b"\r\n" for i in range(0, len(text), size))
    answers = wire.exchange(START + lines[2:])
    assert [answer.sequence for answer in answers] == ([5] if len(message) <= 8 + 512 else [])


BAD = {
    "a length that is too small": binascii.b2a_base64(b"\0\x09" + bytes(9)),
    "a length that is too large": binascii.b2a_base64(b"\x02\x0b" + bytes(20)),
    "a line of 128 bytes": encode(Message(READ, 0, 1, bytes(200))).splitlines()[0][2:] + b"AAAA\n",
    "a padded digit too many": b"AAo=A\n",
    "padding in front": b"=AAA\n",
    "padding of three": b"A===\n",
    "a half group": encode(Message(READ, 0, 1))[2:-2] + b"\n",
    "another character": encode(Message(READ, 0, 1))[2:].replace(b"A", b"-"),
    "more than it says": encode(Message(READ, 0, 1))[2:-1] + b"AAAA\n",
}


@pytest.mark.parametrize("bad", BAD)
def test_the_device_counts_what_it_drops(wire, bad):
    begin = cbor2.loads(wire.request(READ, 10).payload)
    answers = wire.exchange(START + BAD[bad] + encode(Message(READ, 10, 5)))
    assert [answer.sequence for answer in answers] == [5]
    after = cbor2.loads(answers[0].payload)
    assert (after["dropped"] - begin["dropped"], after["received"] - begin["received"]) == (1, 1)
    decoder = Decoder()
    assert decoder.feed(START + BAD[bad] + encode(Message(1, 2, 3))) == [Message(1, 2, 3)] and decoder.lost > 0

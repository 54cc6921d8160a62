"""Frames: round trips, resynchronisation, and the C receiver's agreement with the Python one."""

import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tinypeft.device.crc import crc16_xmodem, trace_crc32
from tinypeft.device.framing import FLUSH, MAX_PAYLOAD, READ, START, Decoder, Message, encode

BYTE = st.integers(0, 255)
MESSAGES = st.builds(Message, BYTE, BYTE, BYTE, st.binary(max_size=600), BYTE, st.integers(0, 65535))
#: Bytes in which false starts are frequent
GARBAGE = st.lists(st.one_of(st.just(START), st.just(b"\x06"), st.just(b"\x00\x20"), st.binary(max_size=8))).map(
    b"".join
)
SLOW_FIXTURE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def test_checksums_have_their_published_check_values():
    assert crc16_xmodem(b"123456789") == 0x31C3
    mantissa = np.arange(4, dtype=np.int16)
    assert trace_crc32(mantissa, -7) == zlib.crc32(mantissa.tobytes() + b"\xf9\xff\xff\xff")
    assert trace_crc32(mantissa.astype(">i2"), -7) == trace_crc32(mantissa, -7)


def test_a_frame_byte_by_byte():
    frame = encode(Message(op=2, command=3, sequence=7, payload=b"ab"))
    message = bytes.fromhex("02 00 0002 0040 07 03 6162")
    assert frame == bytes.fromhex("0609 000c") + message + crc16_xmodem(message).to_bytes(2, "big")
    with pytest.raises(ValueError, match="4097 B exceeds 4096 B"):
        encode(Message(0, 0, 0, bytes(MAX_PAYLOAD + 1)))


@given(st.lists(MESSAGES, max_size=5), st.data())
def test_any_split_of_a_stream_gives_the_messages(messages, data):
    stream = b"".join(map(encode, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    decoder, found = Decoder(), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += decoder.feed(stream[begin:end])
    assert found == messages
    assert decoder.last_output == b""


@given(GARBAGE, MESSAGES, GARBAGE)
def test_a_frame_between_garbage_is_found(before, message, after):
    assert message in Decoder().feed(before + encode(message) + after + FLUSH)


@given(MESSAGES, st.data())
def test_a_damaged_frame_is_dropped_and_the_next_one_found(message, data):
    frame = bytearray(encode(message))
    position = data.draw(st.integers(0, len(frame) - 1))
    frame[position] ^= 1 << data.draw(st.integers(0, 7))
    following = Message(1, 2, 3, b"next")
    found = Decoder().feed(bytes(frame) + encode(following) + FLUSH)
    assert following in found
    assert message not in found


@given(MESSAGES, st.data())
def test_a_truncated_frame_is_dropped_and_the_next_one_found(message, data):
    frame = encode(message)[: -data.draw(st.integers(1, 12))]
    following = Message(1, 2, 3, b"next")
    assume(not (frame + encode(following)).startswith(encode(message)))  # the next frame supplies what was cut off
    assert Decoder().feed(frame + encode(following) + FLUSH)[-1:] == [following]


def test_text_between_frames_is_kept_for_the_reader():
    decoder = Decoder()
    decoder.feed(b"tinypeft fake ready\r\n" + encode(Message(1, 0, 0)) + b"oops\x06")
    assert decoder.last_output == b"tinypeft fake ready\r\noops\x06"
    decoder.feed(b"x" * 5000)
    assert decoder.last_output == b"x" * Decoder.SKIPPED_LIMIT


@SLOW_FIXTURE
@given(before=GARBAGE, after=GARBAGE, sequence=BYTE)
def test_the_device_finds_a_request_between_garbage(wire, before, after, sequence):
    wire.exchange(FLUSH)
    answers = wire.exchange(before + encode(Message(READ, 0, sequence)) + after + FLUSH)
    assert [(answer.op, answer.sequence, answer.payload[:4]) for answer in answers] == [(1, sequence, bytes(4))]


@SLOW_FIXTURE
@given(data=st.data())
def test_the_device_drops_a_damaged_or_truncated_request(wire, data):
    request = encode(Message(READ, 2, 9, bytes(4) + bytes(4) + b"\x10\0\0\0"))
    if data.draw(st.booleans()):
        request = request[: data.draw(st.integers(0, len(request) - 1))]
    else:
        position = data.draw(st.integers(0, len(request) - 1))
        request = request[:position] + bytes([request[position] ^ 0x20]) + request[position + 1 :]
    answers = wire.exchange(request + encode(Message(READ, 0, 1)) + FLUSH)
    assert [(answer.command, answer.sequence) for answer in answers] == [(0, 1)]


def test_the_device_drops_an_oversized_length(wire):
    frame = START + b"\xff\xff" + bytes(20) + encode(Message(READ, 0, 5))
    assert [answer.sequence for answer in wire.exchange(frame)] == [5]


def test_several_requests_in_one_false_frame_are_all_answered(wire):
    swallowed = START + b"\x00\x40" + b"".join(encode(Message(READ, 10, i)) for i in range(3))
    assert [answer.sequence for answer in wire.exchange(swallowed + FLUSH)] == [0, 1, 2]

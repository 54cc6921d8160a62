"""Frames on a byte stream, as tp_frame.h describes them: messages in, bytes out, and back with resynchronisation."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tinypeft.device.crc import crc16_xmodem

START = b"\x06\x09"
GROUP = 64
FLAG_MORE = 1
READ, READ_RESPONSE, WRITE, WRITE_RESPONSE = range(4)
#: The largest payload a firmware may be built for; what a device takes is in its `Info`.
MAX_PAYLOAD = 4096

_HEADER = struct.Struct(">BBHHBB")
_U16 = struct.Struct(">H")
_PREFIX_BYTES = len(START) + _U16.size
_CRC_BYTES = _U16.size
#: Bytes to send so that a receiver stuck in a broken frame gives it up. Not zeros: their CRC is right.
FLUSH = b"\xff" * (_PREFIX_BYTES + _HEADER.size + MAX_PAYLOAD + _CRC_BYTES)


@dataclass(frozen=True)
class Message:
    """An SMP message: header fields and payload."""

    op: int
    command: int
    sequence: int
    payload: bytes = b""
    flags: int = 0
    group: int = GROUP


def encode(message: Message) -> bytes:
    """The frame of a message; ValueError above MAX_PAYLOAD bytes."""
    if len(message.payload) > MAX_PAYLOAD:
        raise ValueError(f"a payload of {len(message.payload)} B exceeds {MAX_PAYLOAD} B")
    body = message.payload
    header = _HEADER.pack(message.op, message.flags, len(body), message.group, message.sequence, message.command)
    data = header + body
    return START + _U16.pack(len(data) + _CRC_BYTES) + data + _U16.pack(crc16_xmodem(data))


class Decoder:
    """Finds messages in a byte stream, skipping text, broken frames and false starts.

    `skipped` keeps the last of the bytes that belong to no frame: what the device printed. `lost` counts all of them.
    """

    SKIPPED_LIMIT = 1000

    def __init__(self) -> None:
        self.skipped = b""
        self.lost = 0
        self._pending = b""

    @property
    def last_output(self) -> bytes:
        """The last bytes that are not part of a whole frame, an unfinished one included."""
        return (self.skipped + self._pending)[-self.SKIPPED_LIMIT :]

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes; the messages that they complete."""
        self._pending += data
        messages = []
        while self._pending:
            message, used = self._examine()
            if used == 0:
                break
            if message is None:
                self._skip(used)
            else:
                messages.append(message)
                self._pending = self._pending[used:]
        return messages

    def give_up(self) -> list[Message]:
        """Wait no longer for the rest of an unfinished frame; the messages that it turns out to hide."""
        messages = []
        while self._pending:
            self._skip(1)
            messages += self.feed(b"")
        return messages

    def _skip(self, count: int) -> None:
        self.skipped = (self.skipped + self._pending[:count])[-self.SKIPPED_LIMIT :]
        self.lost += count
        self._pending = self._pending[count:]

    def _examine(self) -> tuple[Message | None, int]:
        """What the pending bytes begin with: (message, its frame's length), (None, bytes to skip), (None, 0: wait)."""
        pending = self._pending
        if not pending.startswith(START):
            begin = pending.find(START)
            if begin < 0:
                begin = len(pending) - (1 if pending.endswith(START[:1]) else 0)
            return None, begin
        if len(pending) < _PREFIX_BYTES:
            return None, 0
        length = _U16.unpack_from(pending, len(START))[0] - _CRC_BYTES
        if not _HEADER.size <= length <= _HEADER.size + MAX_PAYLOAD:
            return None, len(START)
        end = _PREFIX_BYTES + length + _CRC_BYTES
        if len(pending) < end:
            return None, 0
        data = pending[_PREFIX_BYTES : _PREFIX_BYTES + length]
        if crc16_xmodem(data) != _U16.unpack_from(pending, end - _CRC_BYTES)[0]:
            return None, len(START)
        op, flags, payload_length, group, sequence, command = _HEADER.unpack_from(data)
        if payload_length != length - _HEADER.size:
            return None, len(START)
        return Message(op, command, sequence, data[_HEADER.size :], flags, group), end

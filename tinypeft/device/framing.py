"""SMP messages in lines of base64, as tp_frame.h describes them: messages in, bytes out, and back."""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass

from tinypeft.device.crc import crc16_xmodem

START, CONTINUE = b"\x06\x09", b"\x04\x14"
#: Bytes of a line, start bytes and line feed included, and of a packet in one
LINE_MAX = 127
_LINE_DATA = (LINE_MAX - 3) // 4 * 3
#: MCUmgr's OS management; the groups of the model's commands and of adapters, whose errors are tp_status
OS_GROUP, GROUP, ADAPTERS_GROUP = 0, 64, 65
OUR_GROUPS = (GROUP, ADAPTERS_GROUP)
READ, READ_RESPONSE, WRITE, WRITE_RESPONSE = range(4)
#: The largest payload a firmware may be built for; what a device takes is in its `Info`.
MAX_PAYLOAD = 4096
#: `version` of SMP version 2
VERSION_2 = 1

_HEADER = struct.Struct(">BBHHBB")
_U16 = struct.Struct(">H")
_CRC_BYTES = _U16.size


@dataclass(frozen=True)
class Message:
    """An SMP message: header fields and payload, a CBOR map. `op` is without the version."""

    op: int
    command: int
    sequence: int
    payload: bytes = b""
    flags: int = 0
    group: int = GROUP
    version: int = VERSION_2


def encode(message: Message) -> bytes:
    """The lines of a message; ValueError above MAX_PAYLOAD bytes."""
    body = message.payload
    if len(body) > MAX_PAYLOAD:
        raise ValueError(f"a payload of {len(body)} B exceeds {MAX_PAYLOAD} B")
    op = message.op | message.version << 3
    header = _HEADER.pack(op, message.flags, len(body), message.group, message.sequence, message.command)
    data = header + body
    packet = _U16.pack(len(data) + _CRC_BYTES) + data + _U16.pack(crc16_xmodem(data))
    parts = (packet[begin : begin + _LINE_DATA] for begin in range(0, len(packet), _LINE_DATA))
    return START + CONTINUE.join(map(binascii.b2a_base64, parts))


class Decoder:
    """Finds messages in a byte stream, skipping text and broken packets.

    `skipped` keeps the last of the bytes that belong to no message: what the device printed. `lost` counts all of them.
    """

    SKIPPED_LIMIT = 1000

    def __init__(self) -> None:
        self.skipped = b""
        self.lost = 0
        self._pending = b""
        self._lines = b""  # of the unfinished packet, and what they hold
        self._packet = b""

    @property
    def last_output(self) -> bytes:
        """The last bytes that are not part of a whole message, an unfinished one included."""
        return (self.skipped + self._lines + self._pending)[-self.SKIPPED_LIMIT :]

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes; the messages that they complete."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        if len(self._pending) > self.SKIPPED_LIMIT:
            self._skip(self._pending[: -LINE_MAX - 1])
            self._pending = self._pending[-LINE_MAX - 1 :]
        return [message for line in lines if (message := self._take(line + b"\n")) is not None]

    def _skip(self, data: bytes) -> None:
        self.skipped = (self.skipped + data)[-self.SKIPPED_LIMIT :]
        self.lost += len(data)

    def _give_up(self) -> None:
        """Forget the packet that is being received."""
        self._skip(self._lines)
        self._lines = self._packet = b""

    def _take(self, line: bytes) -> Message | None:
        """One line with its end; the message that it completes."""
        begin = max(line.rfind(START), line.rfind(CONTINUE))
        if begin < 0:
            self._skip(line)
            return None
        before, line = line[:begin], line[begin:]
        begins = line.startswith(START)
        if begins or START in before or CONTINUE in before:
            self._give_up()
        self._skip(before)
        if not begins and not self._lines:
            self._skip(line)
            return None
        self._lines += line
        text = line[len(START) :].rstrip(b"\r\n")
        try:
            if len(text) > LINE_MAX - 3:
                raise binascii.Error
            self._packet += binascii.a2b_base64(text, strict_mode=True)
        except binascii.Error:
            self._give_up()
            return None
        return self._whole()

    def _whole(self) -> Message | None:
        """The message, where its packet is whole; a packet that turns out false is given up."""
        packet = self._packet
        if len(packet) < _U16.size:
            return None
        length = _U16.unpack_from(packet)[0]
        end = _U16.size + length
        if not _HEADER.size + _CRC_BYTES <= length <= _HEADER.size + MAX_PAYLOAD + _CRC_BYTES or len(packet) > end:
            self._give_up()
            return None
        if len(packet) < end:
            return None
        data = packet[_U16.size : -_CRC_BYTES]
        op, flags, payload_length, group, sequence, command = _HEADER.unpack_from(data)
        right = crc16_xmodem(data) == _U16.unpack_from(packet, end - _CRC_BYTES)[0]
        if not right or payload_length != len(data) - _HEADER.size:
            self._give_up()
            return None
        self._lines = self._packet = b""
        return Message(op & 7, command, sequence, data[_HEADER.size :], flags, group, op >> 3)

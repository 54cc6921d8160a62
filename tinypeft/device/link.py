"""Requests and their answers on a byte stream: a command's payload in, the streams and the final payload out.

On a stream that loses bytes, a request that may run twice is sent again until it is answered.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from tinypeft.device import framing
from tinypeft.device.framing import Decoder, Message
from tinypeft.device.protocol import DATA, DUMP, ERR_COMMAND, FIT, READS, TRACE, Command, TraceRecord
from tinypeft.errors import DeviceError

_T = TypeVar("_T")

#: Commands that run no graph of the model, so that they are answered at once
_QUICK = (Command.INFO, Command.WRITE, Command.READ, Command.EXPORT_ADAPTER, Command.STATS)


class NotTaken(DeviceError):
    """The other end is there but takes no more bytes."""


class Lost(DeviceError):
    """The answer to a request did not arrive. `output` is what the device printed last, as a suffix of a message."""

    output = ""


class UnknownCommand(DeviceError):
    """The firmware knows no such command or object."""


class Silence(Lost):
    """No byte within the time limit."""

    def __init__(self, title: str, timeout: float, last_output: bytes):
        text = last_output.decode("ascii", errors="backslashreplace").strip()
        self.output = f"; its last output: {text!r}" if text else ""
        super().__init__(
            f"{title}: no answer within {timeout:g} s{self.output}",
            "check that the firmware was built for this board and is running",
        )


class Transport(Protocol):
    """A byte stream to a device."""

    def send(self, data: bytes) -> None:
        """Send all of `data`; DeviceError where the other end is gone, NotTaken where it takes no more."""

    def receive(self, timeout: float) -> bytes:
        """What has arrived, waiting up to `timeout` seconds; b"" for nothing; DeviceError where the end is gone."""


@dataclass
class Reply:
    """The streams of one request and its final payload, status removed."""

    data: bytearray = field(default_factory=bytearray)
    trace: list[TraceRecord] = field(default_factory=list)
    dump: bytearray | None = None
    dump_exponent: int = 0
    final: bytes = b""


class Link:
    """The server's end of a stream. `timeout`: seconds without a byte after which it counts as silent.

    `lossy`: bytes may be lost or damaged, as on a UART. `sequence`: the number before the first request's; another one
    in each session keeps an answer to an earlier one from counting.
    """

    #: How often a request is sent on a lossy stream before it is given up
    ATTEMPTS = 5
    #: Seconds of silence on a lossy stream after which an answer that needs no computing is lost, and a device that
    #: computes is asked whether it still does
    ANSWER_LIMIT = 2.0

    def __init__(self, transport: Transport, *, timeout: float, lossy: bool, sequence: int):
        self.transport, self.timeout, self.lossy = transport, timeout, lossy
        self._sequence = sequence
        self._decoder = Decoder()

    def repeat(self, action: Callable[[], _T]) -> _T:
        """`action`, which may run twice; on a lossy stream again until its answers arrive, Lost where they do not."""
        for _ in range(self.ATTEMPTS - 1 if self.lossy else 0):
            try:
                return action()
            except Lost:
                self.flush()
        return action()

    def flush(self) -> None:
        """Let a receiver that is stuck in a broken frame give it up."""
        with contextlib.suppress(NotTaken):
            self.transport.send(framing.FLUSH)

    def request(
        self,
        command: Command,
        payload: bytes,
        what: str,
        *,
        timeout: float | None = None,
        streams: bool = False,
        progress: Callable[[bytes], None] = lambda body: None,
    ) -> Reply:
        """Send one request and collect its answer; Lost where that does not arrive, or not all that it `streams`.

        `progress` is called with every frame of the stream FIT that arrives. DeviceError with the command, `what` and
        the status text where the device reports an error.
        """
        title = f"{command.name}({what})"
        sent, skipped = self._send(command, payload), self._decoder.lost
        limit = timeout or self.timeout
        if self.lossy and command in _QUICK:
            limit = min(limit, self.ANSWER_LIMIT)
        patience, ping = self.ANSWER_LIMIT if self.lossy else limit, None
        reply, heard = Reply(), time.monotonic()
        while True:
            data = self.transport.receive(max(heard + min(limit, patience) - time.monotonic(), 0.0))
            messages, silence = self._decoder.feed(data), 0.0
            if data:
                heard = time.monotonic()
            else:
                silence = time.monotonic() - heard
            if self.lossy and silence >= min(limit, patience):
                messages = self._decoder.give_up()
            for message in messages:
                if ping is not None and _answers(message, ping):
                    raise Lost(f"{title}: the device is done, but its answer was lost")
                if not _answers(message, sent):
                    continue  # late answer to an earlier request, or an echo
                if message.flags & framing.FLAG_MORE:
                    _collect(reply, message.payload, title, progress)
                    continue
                if self.lossy and streams and self._decoder.lost > skipped:
                    raise Lost(f"{title}: a part of the answer was damaged")
                reply.final = _check(message.payload, title)
                return reply
            if silence >= limit:
                raise Silence(title, limit, self._decoder.last_output)
            if self.lossy and silence >= patience:
                ping, patience = self._send(Command.INFO, b""), 2 * patience

    def _send(self, command: Command, payload: bytes) -> Message:
        """Send a request with the next sequence number."""
        self._sequence = (self._sequence + 1) % 256
        message = Message(framing.READ if command in READS else framing.WRITE, command, self._sequence, payload)
        self.transport.send(framing.encode(message))
        return message


def _answers(message: Message, request: Message) -> bool:
    """Whether `message` is of the answer to `request`."""
    sent = (request.op + 1, request.sequence, request.command)
    return (message.op, message.sequence, message.command) == sent


def _collect(reply: Reply, payload: bytes, title: str, progress: Callable[[bytes], None]) -> None:
    """Add one stream frame to the reply."""
    kind, body = int.from_bytes(payload[:4], "little"), payload[4:]
    if kind == DATA:
        reply.data += body
    elif kind == TRACE and len(body) % 12 == 0:
        reply.trace += [TraceRecord(*record) for record in struct.iter_unpack("<3I", body)]
    elif kind == DUMP:
        reply.dump_exponent = int.from_bytes(body[:4], "little", signed=True)
        reply.dump = (reply.dump or bytearray()) + body[4:]
    elif kind == FIT:
        progress(body)
    else:
        raise DeviceError(f"{title}: a stream frame of unknown kind {kind}, {len(body)} bytes")


def _check(payload: bytes, title: str) -> bytes:
    """The final payload after its status; DeviceError for any status but 0."""
    status = int.from_bytes(payload[:4], "little", signed=True)
    if status != 0:
        kind = UnknownCommand if status == ERR_COMMAND else DeviceError
        raise kind(f"{title}: the device says: {payload[4:].decode(errors='replace')} (status {status})")
    return payload[4:]

"""Requests and their answers on a byte stream: a command and its map in, what comes before the answer and its map out.

On a stream that loses bytes, a request that may run twice is sent again until it is answered.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol, TypeVar

import cbor2

from tinypeft.device import framing
from tinypeft.device.framing import Decoder, Message
from tinypeft.device.protocol import READS, Command, TraceRecord
from tinypeft.device.status import ERR_COMMAND, MGMT_UNSUPPORTED, hint_of, mgmt_text, status_text
from tinypeft.errors import DeviceError

_T = TypeVar("_T")

#: Commands that run no graph of the model, so that they are answered at once
_QUICK = (Command.INFO, Command.WRITE, Command.READ, Command.EXPORT_ADAPTER, Command.STATS)


class NotTaken(DeviceError):
    """The other end is there but takes no more bytes."""


class NoAnswer(DeviceError):
    """The other end has done what it was asked, and it answered nothing."""


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
    """The map that answers one request, and what came before it."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    trace: list[TraceRecord] = field(default_factory=list)
    dump: bytearray | None = None
    dump_exponent: int = 0


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
                continue
        return action()

    def request(
        self,
        command: IntEnum,
        fields: Mapping[str, Any],
        what: str,
        *,
        timeout: float | None = None,
        streams: bool = False,
        group: int = framing.GROUP,
        op: int | None = None,
        progress: Callable[[Mapping[str, Any]], None] = lambda fields: None,
    ) -> Reply:
        """Send one request and collect its answer; Lost where that does not arrive, or not all that it `streams`.

        A command of another group than the model's has its `op`. `progress` is called with what FIT tells now and
        then. DeviceError with the command, `what` and the status text where the device reports an error.
        """
        title = f"{command.name}({what})"
        sent, skipped = self._send(command, fields, group, op), self._decoder.lost
        limit = timeout or self.timeout
        if self.lossy and group == framing.GROUP and command in _QUICK:
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
            for message in messages:
                if ping is not None and _answers(message, ping):
                    raise Lost(f"{title}: the device is done, but its answer was lost")
                if not _answers(message, sent):
                    continue  # late answer to an earlier request, or an echo
                found = _loads(message.payload, title)
                if found.get("more"):
                    _collect(reply, found, title, progress)
                    continue
                if self.lossy and streams and self._decoder.lost > skipped:
                    raise Lost(f"{title}: a part of the answer was damaged")
                reply.fields = _check(found, title)
                return reply
            if silence >= limit:
                raise Silence(title, limit, self._decoder.last_output)
            if self.lossy and silence >= patience:
                ping, patience = self._send(Command.INFO, {}), 2 * patience

    def _send(
        self, command: IntEnum, fields: Mapping[str, Any], group: int = framing.GROUP, op: int | None = None
    ) -> Message:
        """Send a request with the next sequence number."""
        self._sequence = (self._sequence + 1) % 256
        if op is None:
            op = framing.READ if command in READS else framing.WRITE
        message = Message(op, command, self._sequence, cbor2.dumps(fields, canonical=True), group=group)
        self.transport.send(framing.encode(message))
        return message


def _answers(message: Message, request: Message) -> bool:
    """Whether `message` is of the answer to `request`."""
    sent = (request.op + 1, request.group, request.sequence, request.command)
    return (message.op, message.group, message.sequence, message.command) == sent


def _loads(payload: bytes, title: str) -> dict[str, Any]:
    """The map of a payload; DeviceError where it is none."""
    try:
        found = cbor2.loads(payload)
    except cbor2.CBORDecodeError as error:
        raise DeviceError(f"{title}: an answer of {len(payload)} bytes that is no CBOR: {error}") from error
    if not isinstance(found, dict):
        raise DeviceError(f"{title}: an answer of {len(payload)} bytes that is no map")
    return found


def _collect(reply: Reply, found: Mapping[str, Any], title: str, progress: Callable[[Mapping[str, Any]], None]) -> None:
    """Add what came before the answer to the reply."""
    trace, dump, fit = found.get("trace"), found.get("dump"), found.get("fit")
    if isinstance(trace, bytes) and len(trace) % 12 == 0:
        reply.trace += [TraceRecord(*record) for record in struct.iter_unpack("<3I", trace)]
    elif isinstance(dump, bytes) and isinstance(exponent := found.get("exponent"), int):
        reply.dump_exponent = exponent
        reply.dump = (reply.dump or bytearray()) + dump
    elif isinstance(fit, dict):
        progress(fit)
    else:
        raise DeviceError(f"{title}: a part of an answer with the unknown keys {', '.join(map(str, found))}")


def _check(found: dict[str, Any], title: str) -> dict[str, Any]:
    """The map of an answer; DeviceError where it is an error's."""
    error = found.get("err")
    if isinstance(error, dict):
        group, rc = error.get("group"), error.get("rc")
        if group in framing.OUR_GROUPS and isinstance(rc, int):
            kind = UnknownCommand if -rc == ERR_COMMAND else DeviceError
            refused = kind(f"{title}: the device says: {status_text(-rc)} (status {-rc})", hint_of(-rc))
            refused.status = -rc
            raise refused
        raise DeviceError(f"{title}: the device says: error {rc} of group {group}")
    rc = found.get("rc", 0)
    if rc != 0:
        kind = UnknownCommand if rc == MGMT_UNSUPPORTED else DeviceError
        raise kind(f"{title}: the device says: {mgmt_text(rc)} (SMP error {rc})")
    return found

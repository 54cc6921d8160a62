"""`Device`: every command of the firmware's server as a typed method. The payloads are described in tp_server.h."""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tinypeft.device import framing
from tinypeft.device.framing import Decoder, Message
from tinypeft.device.protocol import (
    DATA,
    DUMP,
    PROTOCOL_VERSION,
    READS,
    TRACE,
    Command,
    Dump,
    Info,
    Object,
    Run,
    Stats,
    TraceRecord,
)
from tinypeft.errors import DeviceError


class NotTaken(DeviceError):
    """The other end is there but takes no more bytes."""


class Transport(Protocol):
    """A byte stream to a device."""

    def send(self, data: bytes) -> None:
        """Send all of `data`; DeviceError where the other end is gone, NotTaken where it takes no more."""

    def receive(self, timeout: float) -> bytes:
        """What has arrived, waiting up to `timeout` seconds; b"" for nothing; DeviceError where the end is gone."""


@dataclass
class _Reply:
    """The streams of one request and its final payload, status removed."""

    data: bytearray = field(default_factory=bytearray)
    trace: list[TraceRecord] = field(default_factory=list)
    dump: bytearray | None = None
    dump_exponent: int = 0
    final: bytes = b""


class Device:
    """A device behind a transport. Errors are DeviceError with the command, its numbers and the status text.

    `timeout`: seconds without a byte after which a device counts as silent. `counter` gives the instructions of the
    last inference, training step or update; `counter_reason` says why there are none.
    """

    READ_CHUNK = 65536

    def __init__(
        self,
        transport: Transport,
        *,
        timeout: float = 60.0,
        counter: Callable[[], int | None] | None = None,
        counter_reason: str | None = None,
    ):
        self.timeout = timeout
        self.counter_reason = counter_reason
        self._transport = transport
        self._counter = counter
        self._decoder = Decoder()
        self._sequence = 0
        self._info: Info | None = None

    def wait_ready(self, limit: float, retry: float = 0.5) -> Info:
        """Ask INFO again and again until it is answered; DeviceError after `limit` seconds."""
        deadline = time.monotonic() + limit
        while True:
            try:
                return self._read_info(min(retry, max(deadline - time.monotonic(), 0.05)))
            except _Silence as silence:
                output, hint = silence.output, silence.hint
            except NotTaken as error:
                output, hint = "", error.hint
            if time.monotonic() >= deadline:
                raise DeviceError(f"no answer to INFO within {limit:g} s{output}", hint)
            with contextlib.suppress(NotTaken):
                self._transport.send(framing.FLUSH)

    def info(self) -> Info:
        """What the device is; asked once and remembered."""
        return self._info if self._info is not None else self._read_info(self.timeout)

    def write(self, target: str, data: bytes, offset: int = 0) -> None:
        """Write into an object ("input", "adapter", "training", "staging") from `offset` on."""
        number = _object(target)
        chunk = self.info().max_payload - 8
        for begin in range(0, len(data), chunk):
            part = data[begin : begin + chunk]
            payload = struct.pack("<II", number, _unsigned("offset", offset + begin)) + part
            self._request(Command.WRITE, payload, f"{target}, offset={offset + begin}, bytes={len(part)}")

    def read(self, target: str, offset: int = 0, length: int | None = None) -> bytes:
        """`length` bytes of an object from `offset` on; without a length, the rest of it."""
        number = _object(target)
        if length is None:
            info = self.info()
            size = info.arena_bytes if number is Object.STAGING else int(getattr(info, f"{target}_bytes"))
            length = max(size - offset, 0)
        data = bytearray()
        while True:
            part = min(length - len(data), self.READ_CHUNK)
            what = f"{target}, offset={offset + len(data)}, length={part}"
            payload = struct.pack("<III", number, _unsigned("offset", offset + len(data)), _unsigned("length", part))
            reply = self._request(Command.READ, payload, what)
            if len(reply.data) != part:
                raise DeviceError(f"READ({what}) gave {len(reply.data)} bytes")
            data += reply.data
            if len(data) == length:
                return bytes(data)

    def infer(self, data: bytes | None = None, *, trace: bool = False, dump: int | None = None) -> Run:
        """Infer `data`, or the input as it is; `output` holds the output's bytes."""
        self._write_input(data)
        run = self._run(Command.INFER, b"", "", trace, dump)
        run.output = self.read("output")
        return run

    def train_step(
        self, data: bytes | None, label: int, learning_rate: float, *, trace: bool = False, dump: int | None = None
    ) -> Run:
        """One training step with `data`, or the input as it is; `loss` is the sample's, of before the update."""
        self._write_input(data)
        what = f"label={label}, learning_rate={learning_rate:g}"
        return self._run(
            Command.TRAIN_STEP, _signed("label", label) + _float("learning rate", learning_rate), what, trace, dump
        )

    def update(self, learning_rate: float, *, trace: bool = False, dump: int | None = None) -> Run:
        """Apply the gradients summed since the last update."""
        payload = _float("learning rate", learning_rate)
        return self._run(Command.UPDATE, payload, f"learning_rate={learning_rate:g}", trace, dump)

    def reset_adapter(self, seed: int, *, trace: bool = False, dump: int | None = None) -> Run:
        """A fresh adapter, initialised from `seed`."""
        payload = struct.pack("<I", _unsigned("seed", seed))
        return self._run(Command.RESET_ADAPTER, payload, f"seed={seed}", trace, dump)

    def requantize(self, *, trace: bool = False, dump: int | None = None) -> Run:
        """Quantise the adapter again from the masters, after "training" was written."""
        return self._run(Command.REQUANTIZE, b"", "", trace, dump)

    def export_adapter(self) -> bytes:
        """The adapter package. Overwrites the arena."""
        (size,) = _fields("<I", self._request(Command.EXPORT_ADAPTER, b"", "").final, "EXPORT_ADAPTER()")
        return self.read("staging", 0, size)

    def load_adapter(self, package: bytes) -> None:
        """Let the device check a package and take it over: all of it or, on an error, nothing. Overwrites the arena."""
        if len(package) <= self.info().arena_bytes:  # else the device gives the error
            self.write("staging", package)
        self._request(Command.LOAD_ADAPTER, struct.pack("<I", len(package)), f"bytes={len(package)}")

    def stats(self) -> Stats:
        """Stack use and guard words."""
        size, high_water, guards = _fields("<III", self._request(Command.STATS, b"", "").final, "STATS()")
        return Stats(size, high_water, bool(guards))

    def instructions(self) -> int | None:
        """Exact instructions of the last inference, training step or update; None where nothing counts them."""
        return self._counter() if self._counter is not None else None

    def _write_input(self, data: bytes | None) -> None:
        if data is None:
            return
        size = self.info().input_bytes
        if len(data) != size:
            raise DeviceError(f"the input has {len(data)} bytes, {self.info().name} takes {size}")
        self.write("input", data)

    def _run(self, command: Command, payload: bytes, what: str, trace: bool, dump: int | None) -> Run:
        if dump is not None and not 0 <= dump < 1 << 31:
            raise DeviceError(f"{command.name}({what}): no output has index {dump}")
        options = struct.pack("<Ii", int(trace), -1 if dump is None else dump)
        reply = self._request(command, payload + options, what)
        if dump is not None and reply.dump is None:
            raise DeviceError(f"{command.name}({what}): no output has index {dump}", "trace lists the indices")
        return Run(
            loss=_fields("<f", reply.final, f"{command.name}({what})")[0] if command is Command.TRAIN_STEP else None,
            trace=reply.trace,
            dump=None if reply.dump is None else Dump(bytes(reply.dump), reply.dump_exponent),
        )

    def _read_info(self, timeout: float) -> Info:
        payload = self._request(Command.INFO, b"", "", timeout).final
        protocol = int.from_bytes(payload[:4], "little")
        if protocol != PROTOCOL_VERSION:
            raise DeviceError(
                f"the firmware speaks protocol {protocol}, this tinypeft {PROTOCOL_VERSION}", "build the firmware again"
            )
        sizes = _fields("<8I", payload[4:36], "INFO()")
        self._info = Info(payload[68:].decode(errors="replace"), payload[36:68], protocol, *sizes)
        return self._info

    def _request(self, command: Command, payload: bytes, what: str, timeout: float | None = None) -> _Reply:
        """Send one request and collect its answer."""
        title = f"{command.name}({what})"
        self._sequence = (self._sequence + 1) % 256
        op = framing.READ if command in READS else framing.WRITE
        self._transport.send(framing.encode(Message(op, command, self._sequence, payload)))
        reply = _Reply()
        silent_after = time.monotonic() + (timeout or self.timeout)
        while True:
            data = self._transport.receive(max(silent_after - time.monotonic(), 0.0))
            if data:
                silent_after = time.monotonic() + (timeout or self.timeout)
            elif time.monotonic() >= silent_after:
                raise _Silence(title, timeout or self.timeout, self._decoder.last_output)
            for message in self._decoder.feed(data):
                if message.op != op + 1 or message.sequence != self._sequence or message.command != command:
                    continue  # late answer to an earlier request, or an echo
                if message.flags & framing.FLAG_MORE:
                    _collect(reply, message.payload, title)
                else:
                    reply.final = _check(message.payload, title)
                    return reply


class _Silence(DeviceError):
    """No byte within the time limit."""

    def __init__(self, title: str, timeout: float, last_output: bytes):
        text = last_output.decode("ascii", errors="backslashreplace").strip()
        self.output = f"; its last output: {text!r}" if text else ""
        super().__init__(
            f"{title}: no answer within {timeout:g} s{self.output}",
            "check that the firmware was built for this board and is running",
        )


def _object(target: str) -> Object:
    try:
        return Object[target.upper()]
    except KeyError:
        raise DeviceError(f"no object {target!r}; there are {', '.join(o.name.lower() for o in Object)}") from None


def _unsigned(what: str, value: int) -> int:
    if not 0 <= value < 1 << 32:
        raise DeviceError(f"{what} {value} is not an unsigned 32-bit number")
    return value


def _signed(what: str, value: int) -> bytes:
    if not -(1 << 31) <= value < 1 << 31:
        raise DeviceError(f"{what} {value} is not a signed 32-bit number")
    return struct.pack("<i", value)


def _float(what: str, value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:
        raise DeviceError(f"{what} {value:g} is beyond float32") from None


def _fields(layout: str, payload: bytes, title: str) -> tuple[Any, ...]:
    try:
        return struct.unpack(layout, payload)
    except struct.error:
        raise DeviceError(f"{title}: an answer of {len(payload)} bytes, not {struct.calcsize(layout)}") from None


def _collect(reply: _Reply, payload: bytes, title: str) -> None:
    """Add one stream frame to the reply."""
    kind, body = int.from_bytes(payload[:4], "little"), payload[4:]
    if kind == DATA:
        reply.data += body
    elif kind == TRACE and len(body) % 12 == 0:
        reply.trace += [TraceRecord(*record) for record in struct.iter_unpack("<3I", body)]
    elif kind == DUMP:
        reply.dump_exponent = int.from_bytes(body[:4], "little", signed=True)
        reply.dump = (reply.dump or bytearray()) + body[4:]
    else:
        raise DeviceError(f"{title}: a stream frame of unknown kind {kind}, {len(body)} bytes")


def _check(payload: bytes, title: str) -> bytes:
    """The final payload after its status; DeviceError for any status but 0."""
    status = int.from_bytes(payload[:4], "little", signed=True)
    if status != 0:
        raise DeviceError(f"{title}: the device says: {payload[4:].decode(errors='replace')} (status {status})")
    return payload[4:]

"""`Device`: every command of the firmware's server as a typed method. The payloads are described in tp_server.h."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import Any

from tinypeft.device.fit import FitProgress, FitRequest, FitResult
from tinypeft.device.link import Link, Lost, NotTaken, Reply, Transport, UnknownCommand
from tinypeft.device.protocol import PROTOCOL_VERSION, Command, Dump, Info, Object, Run, Stats
from tinypeft.errors import DeviceError

#: Commands that change the state in another way when they run twice
_ONCE = (Command.TRAIN_STEP, Command.UPDATE, Command.FIT, Command.TRAIN_LATENTS)
_STEPS = (Command.TRAIN_STEP, Command.TRAIN_LATENTS)
#: What follows the status of those commands that run the model and answer with numbers
_ANSWERS = {
    Command.TRAIN_STEP: "<fI",
    Command.TRAIN_LATENTS: "<fI",
    Command.UPDATE: "<I",
    Command.EVALUATE: "<ii",
    Command.ENCODE: "<I",
}


class Unanswered(DeviceError):
    """Nothing on the stream answers as the firmware does."""


class Device:
    """A device behind a transport. Errors are DeviceError with the command, its numbers and the status text.

    `timeout`: seconds without a byte after which a device counts as silent. `counter` gives the instructions of the
    last inference, training step, encoding or update; `counter_reason` says why there are none. `lossy`, `sequence`:
    see `Link`. What is lost on a lossy stream is asked for again, but for training steps, updates and fits: they may
    have run, so that is an error.
    """

    READ_CHUNK = 65536

    def __init__(
        self,
        transport: Transport,
        *,
        timeout: float = 60.0,
        counter: Callable[[], int | None] | None = None,
        counter_reason: str | None = None,
        lossy: bool = False,
        sequence: int = 0,
    ):
        self.counter_reason = counter_reason
        self._counter = counter
        self._link = Link(transport, timeout=timeout, lossy=lossy, sequence=sequence)
        self._info: Info | None = None

    def wait_ready(self, limit: float, retry: float = 0.5) -> Info:
        """Ask INFO again and again until it is answered; Unanswered after `limit` seconds."""
        deadline = time.monotonic() + limit
        while True:
            try:
                return self._read_info(min(retry, max(deadline - time.monotonic(), 0.05)))
            except Lost as lost:
                output, hint = lost.output, lost.hint
            except NotTaken as error:
                output, hint = "", error.hint
            if time.monotonic() >= deadline:
                raise Unanswered(f"no answer to INFO within {limit:g} s{output}", hint)
            self._link.flush()
            retry *= 2  # a slow stream must carry what was sent before more is sent

    def info(self) -> Info:
        """What the device is; asked once and remembered."""
        return self._info if self._info is not None else self._link.repeat(self._read_info)

    def write(self, target: str, data: bytes, offset: int = 0) -> None:
        """Write into an object from `offset` on: any of `Object` but "output" and "logits"."""
        number = _object(target)
        chunk = self.info().max_payload - 8
        for begin in range(0, len(data), chunk):
            part = data[begin : begin + chunk]
            payload = struct.pack("<II", number, _unsigned("offset", offset + begin)) + part
            self._ask(Command.WRITE, payload, f"{target}, offset={offset + begin}, bytes={len(part)}")

    def read(self, target: str, offset: int = 0, length: int | None = None) -> bytes:
        """`length` bytes of an object from `offset` on; without a length, the rest of it."""
        number = _object(target)
        if length is None:
            if number is Object.LATENTS:
                raise DeviceError("how many bytes of latents there are is the model's", "give the length")
            info = self.info()
            size = info.arena_bytes if number is Object.STAGING else int(getattr(info, f"{target}_bytes"))
            length = max(size - offset, 0)
        data = bytearray()
        while True:
            part = min(length - len(data), self.READ_CHUNK)
            what = f"{target}, offset={offset + len(data)}, length={part}"
            payload = struct.pack("<III", number, _unsigned("offset", offset + len(data)), _unsigned("length", part))
            data += self._ask(Command.READ, payload, what, part).data
            if len(data) == length:
                return bytes(data)

    def infer(self, data: bytes | None = None, *, trace: bool = False, dump: int | None = None) -> Run:
        """Infer `data`, or the input as it is; `output` holds the output's bytes."""

        def infer() -> Run:
            self._write_input(data)  # an inference overwrites it
            return self._run(Command.INFER, b"", "", trace, dump)

        run = infer() if data is None else self._link.repeat(infer)
        run.output = self.read("output")
        return run

    def train_step(
        self,
        data: bytes | None,
        target: int | bytes | None,
        learning_rate: float,
        *,
        trace: bool = False,
        dump: int | None = None,
    ) -> Run:
        """One training step with `data`, or the input as it is; `loss` is the sample's, of before the update.

        `target` is a label, a vector (little-endian int32 in Q16.16), or None where the model takes none or where a
        vector was written before.
        """
        self._write_input(data)
        self._write_target(target)
        label = target if isinstance(target, int) else 0
        what = f"label={label}, learning_rate={learning_rate:g}"
        return self._run(
            Command.TRAIN_STEP, _signed("label", label) + _float("learning rate", learning_rate), what, trace, dump
        )

    def encode(self, data: bytes | None, sample: int, *, trace: bool = False, dump: int | None = None) -> Run:
        """Keep what lies in front of the first adapter gives for `data`, or the input as it is, as that of `sample`.

        It stays the same while adapters learn, as "latents" `sample * latent_bytes`. DeviceError where the firmware
        keeps none, or has no room for that many.
        """
        payload = struct.pack("<I", _unsigned("sample", sample))

        def encode() -> Run:
            self._write_input(data)
            return self._run(Command.ENCODE, payload, f"sample={sample}", trace, dump)

        try:
            return encode() if data is None else self._link.repeat(encode)
        except UnknownCommand as unknown:
            raise self._no_latents() from unknown

    def train_latents(
        self,
        sample: int,
        target: int | bytes | None,
        learning_rate: float,
        *,
        trace: bool = False,
        dump: int | None = None,
    ) -> Run:
        """The same step as `train_step` with what was encoded as `sample`, from there on."""
        self._write_target(target)
        label = target if isinstance(target, int) else 0
        payload = struct.pack("<I", _unsigned("sample", sample)) + _signed("label", label)
        what = f"sample={sample}, label={label}, learning_rate={learning_rate:g}"
        try:
            return self._run(Command.TRAIN_LATENTS, payload + _float("learning rate", learning_rate), what, trace, dump)
        except UnknownCommand as unknown:
            raise self._no_latents() from unknown

    def update(self, learning_rate: float, *, trace: bool = False, dump: int | None = None) -> Run:
        """Apply the gradients summed since the last update."""
        payload = _float("learning rate", learning_rate)
        return self._run(Command.UPDATE, payload, f"learning_rate={learning_rate:g}", trace, dump)

    def evaluate(
        self, data: bytes | None, target: int | bytes | None, *, trace: bool = False, dump: int | None = None
    ) -> Run:
        """Loss and right decisions of `data`, or the input as it is, without learning from it; as `train_step`."""

        def evaluate() -> Run:
            self._write_input(data)
            self._write_target(target)
            label = target if isinstance(target, int) else 0
            return self._run(Command.EVALUATE, _signed("label", label), f"label={label}", trace, dump)

        return evaluate() if data is None else self._link.repeat(evaluate)

    def store_sample(self, index: int, data: bytes, target: int | bytes | None) -> None:
        """Put a sample into the store that `fit` learns from: its input, and its label or target vector if any."""
        info = self.check_room(index + 1)
        if len(data) != info.input_bytes:
            raise DeviceError(f"the input has {len(data)} bytes, {info.name} takes {info.input_bytes}")
        wanted = (4 if info.classes else 0) + info.target_bytes
        label = target if isinstance(target, bytes) else _signed("label", target or 0)[: 4 if info.classes else 0]
        if len(label) != wanted:
            raise DeviceError(f"the target has {len(label)} bytes, {info.name} takes {wanted}")
        self.write("samples", label + data, index * info.sample_bytes)

    def fit(self, request: FitRequest, progress: Callable[[FitProgress], None] = lambda progress: None) -> FitResult:
        """Let the device learn from the first samples of its store by itself; `progress` hears of it now and then.

        DeviceError where it has no store, or not so many samples. It starts from the adapter as it is.
        """
        self.check_room(request.samples)
        what = f"samples={request.samples}, epochs={request.epochs}, learning_rate={request.learning_rate:g}"
        payload = request.pack()
        try:
            reply = self._link.request(
                Command.FIT, payload, what, progress=lambda body: progress(FitProgress.unpack(body))
            )
        except Lost as lost:
            raise self._not_twice(lost) from lost
        return FitResult.unpack(reply.final)

    def check_room(self, samples: int) -> Info:
        """The device's information; DeviceError where its store has no room for so many samples, or there is none."""
        info = self.info()
        if not info.samples:
            raise DeviceError(
                f"{info.name} has no store of samples to learn from by itself",
                "generate the project with --samples N, or let the host drive the training",
            )
        if samples > info.samples:
            raise DeviceError(
                f"{samples} samples are more than the {info.samples} that {info.name} has room for",
                f"use fewer samples, or generate the project with --samples {samples}",
            )
        return info

    def reset_adapter(self, seed: int, *, trace: bool = False, dump: int | None = None) -> Run:
        """A fresh adapter, initialised from `seed`."""
        payload = struct.pack("<I", _unsigned("seed", seed))
        return self._link.repeat(lambda: self._run(Command.RESET_ADAPTER, payload, f"seed={seed}", trace, dump))

    def requantize(self, *, trace: bool = False, dump: int | None = None) -> Run:
        """Quantise the adapter again from the masters, after "training" was written."""
        return self._link.repeat(lambda: self._run(Command.REQUANTIZE, b"", "", trace, dump))

    def export_adapter(self) -> bytes:
        """The adapter package. Overwrites the arena."""
        (size,) = _fields("<I", self._ask(Command.EXPORT_ADAPTER, b"", "").final, "EXPORT_ADAPTER()")
        return self.read("staging", 0, size)

    def load_adapter(self, package: bytes) -> None:
        """Let the device check a package and take it over: all of it or, on an error, nothing. Overwrites the arena."""

        def load() -> None:
            if len(package) <= self.info().arena_bytes:  # else the device gives the error
                self.write("staging", package)
            self._link.request(Command.LOAD_ADAPTER, struct.pack("<I", len(package)), f"bytes={len(package)}")

        self._link.repeat(load)

    def stats(self) -> Stats:
        """Stack use and guard words."""
        size, high_water, guards = _fields("<III", self._ask(Command.STATS, b"", "").final, "STATS()")
        return Stats(size, high_water, bool(guards))

    def instructions(self) -> int | None:
        """Exact instructions of the last inference, training step, encoding or update; None without a counter."""
        return self._counter() if self._counter is not None else None

    def _write_input(self, data: bytes | None) -> None:
        if data is None:
            return
        size = self.info().input_bytes
        if len(data) != size:
            raise DeviceError(f"the input has {len(data)} bytes, {self.info().name} takes {size}")
        self.write("input", data)

    def _write_target(self, target: int | bytes | None) -> None:
        if not isinstance(target, bytes):
            return
        info = self.info()
        if len(target) != info.target_bytes:
            raise DeviceError(f"the target has {len(target)} bytes, {info.name} takes {info.target_bytes}")
        self.write("target", target)

    def _run(self, command: Command, payload: bytes, what: str, trace: bool, dump: int | None) -> Run:
        if dump is not None and not 0 <= dump < 1 << 31:
            raise DeviceError(f"{command.name}({what}): no output has index {dump}")
        options = struct.pack("<Ii", int(trace), -1 if dump is None else dump)
        try:
            reply = self._link.request(command, payload + options, what, streams=trace or dump is not None)
        except Lost as lost:
            if command not in _ONCE:
                raise
            raise self._not_twice(lost) from lost
        if dump is not None and reply.dump is None:
            raise DeviceError(f"{command.name}({what}): no output has index {dump}", "trace lists the indices")
        numbers = _fields(_ANSWERS.get(command, "<"), reply.final, f"{command.name}({what})")
        return Run(
            loss=numbers[0] if command in _STEPS else None,
            masters_sane=bool(numbers[-1]) if command in _ONCE else True,
            evaluated=(numbers[0], numbers[1]) if command is Command.EVALUATE else None,
            trace=reply.trace,
            dump=None if reply.dump is None else Dump(bytes(reply.dump), reply.dump_exponent),
            latent_bytes=numbers[0] if command is Command.ENCODE else 0,
        )

    def _no_latents(self) -> DeviceError:
        """What to raise where the firmware does not know them."""
        return DeviceError(
            f"{self.info().name} keeps no latents of a sample",
            "generate the project with --latents, or train from the input",
        )

    def _not_twice(self, lost: Lost) -> DeviceError:
        """What to raise where the answer to a command of _ONCE is lost."""
        if not self._link.lossy:
            return lost
        return DeviceError(
            f"{lost.message}; it may have run, and it must not run twice",
            "start again; a shorter cable or a lower baud rate loses less",
        )

    def _ask(self, command: Command, payload: bytes, what: str, data_bytes: int | None = None) -> Reply:
        """One request that may run twice; DeviceError unless it streams `data_bytes` bytes, if given."""

        def ask() -> Reply:
            reply = self._link.request(command, payload, what, streams=data_bytes is not None)
            if data_bytes is not None and len(reply.data) != data_bytes:
                raise Lost(f"{command.name}({what}) gave {len(reply.data)} bytes")
            return reply

        return self._link.repeat(ask)

    def _read_info(self, timeout: float | None = None) -> Info:
        payload = self._link.request(Command.INFO, b"", "", timeout=timeout).final
        protocol = int.from_bytes(payload[:4], "little")
        if protocol != PROTOCOL_VERSION:
            raise DeviceError(
                f"the firmware speaks protocol {protocol}, this tinypeft {PROTOCOL_VERSION}", "build the firmware again"
            )
        sizes = _fields("<12I", payload[4:52], "INFO()")
        self._info = Info(payload[84:].decode(errors="replace"), payload[52:84], protocol, *sizes)
        return self._info


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

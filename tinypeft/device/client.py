"""`Device`: every command of the firmware's server as a typed method. The maps are described in tp_server.h."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from tinypeft.device.adapters import DeviceAdapters
from tinypeft.device.fit import FitProgress, FitRequest, FitResult
from tinypeft.device.link import Lost, Transport, UnknownCommand
from tinypeft.device.protocol import Command, Dump, Run, Stats
from tinypeft.device.session import Session
from tinypeft.device.values import float32, label_of, number_of, signed, step_of, unsigned, value_of
from tinypeft.errors import DeviceError

#: Commands that change the state in another way when they run twice
_ONCE = (Command.TRAIN_STEP, Command.UPDATE, Command.FIT, Command.TRAIN_LATENTS)
_STEPS = (Command.TRAIN_STEP, Command.TRAIN_LATENTS)


class Device(Session):
    """A device behind a transport. Errors are DeviceError with the command, its numbers and the status text.

    `timeout`: seconds without a byte after which a device counts as silent. `counter` gives the instructions of the
    last inference, training step, encoding or update; `counter_reason` says why there are none. `lossy`, `sequence`:
    see `Link`. What is lost on a lossy stream is asked for again, but for training steps, updates and fits: they may
    have run, so that is an error.
    """

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
        super().__init__(transport, timeout=timeout, lossy=lossy, sequence=sequence)

    @property
    def adapters(self) -> DeviceAdapters:
        """The adapters that the device keeps on its flash."""
        return DeviceAdapters(self._link, self.info().max_payload)

    def infer(self, data: bytes | None = None, *, trace: bool = False, dump: int | None = None) -> Run:
        """Infer `data`, or the input as it is; `output` holds the output's bytes."""

        def infer() -> tuple[Run, Mapping[str, Any]]:
            return self._run(Command.INFER, self._input(data), "", trace, dump)  # which overwrites it

        run, found = infer() if data is None else self._link.repeat(infer)
        output = found.get("output")
        run.output = output if isinstance(output, bytes) else self.read("output")
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
        self._write_target(target)
        fields = self._input(data) | step_of(target, learning_rate)
        what = f"label={fields['label']}, learning_rate={learning_rate:g}"
        return self._trained(Command.TRAIN_STEP, fields, what, trace, dump)

    def encode(self, data: bytes | None, sample: int, *, trace: bool = False, dump: int | None = None) -> Run:
        """Keep what lies in front of the first adapter gives for `data`, or the input as it is, as that of `sample`.

        It stays the same while adapters learn, as "latents" `sample * latent_bytes`. DeviceError where the firmware
        keeps none, or has no room for that many.
        """
        number, title = {"sample": unsigned("sample", sample)}, f"sample={sample}"

        def encode() -> Run:
            run, found = self._run(Command.ENCODE, self._input(data) | number, title, trace, dump)
            run.latent_bytes = number_of(found, "len", f"ENCODE({title})")
            return run

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
        fields = {"sample": unsigned("sample", sample)} | step_of(target, learning_rate)
        what = f"sample={sample}, label={fields['label']}, learning_rate={learning_rate:g}"
        try:
            return self._trained(Command.TRAIN_LATENTS, fields, what, trace, dump)
        except UnknownCommand as unknown:
            raise self._no_latents() from unknown

    def update(self, learning_rate: float, *, trace: bool = False, dump: int | None = None) -> Run:
        """Apply the gradients summed since the last update."""
        fields = {"rate": float32("learning rate", learning_rate)}
        return self._trained(Command.UPDATE, fields, f"learning_rate={learning_rate:g}", trace, dump)

    def evaluate(
        self, data: bytes | None, target: int | bytes | None, *, trace: bool = False, dump: int | None = None
    ) -> Run:
        """Loss and right decisions of `data`, or the input as it is, without learning from it; as `train_step`."""

        def evaluate() -> Run:
            self._write_target(target)
            label, title = label_of(target), f"label={target if isinstance(target, int) else 0}"
            run, found = self._run(Command.EVALUATE, self._input(data) | label, title, trace, dump)
            loss, right = (number_of(found, key, f"EVALUATE({title})") for key in ("loss", "right"))
            run.evaluated = (loss, right)
            return run

        return evaluate() if data is None else self._link.repeat(evaluate)

    def store_sample(self, index: int, data: bytes, target: int | bytes | None) -> None:
        """Put a sample into the store that `fit` learns from: its input, and its label or target vector if any."""
        info = self.check_room(index + 1)
        if len(data) != info.input_bytes:
            raise DeviceError(f"the input has {len(data)} bytes, {info.name} takes {info.input_bytes}")
        wanted = (4 if info.classes else 0) + info.target_bytes
        number = struct.pack("<i", signed("label", target or 0)) if not isinstance(target, bytes) else target
        label = number if isinstance(target, bytes) or info.classes else b""
        if len(label) != wanted:
            raise DeviceError(f"the target has {len(label)} bytes, {info.name} takes {wanted}")
        self.write("samples", label + data, index * info.sample_bytes)

    def fit(self, request: FitRequest, progress: Callable[[FitProgress], None] = lambda progress: None) -> FitResult:
        """Let the device learn from the first samples of its store by itself; `progress` hears of it now and then.

        DeviceError where it has no store, or not so many samples. It starts from the adapter as it is.
        """
        self.check_room(request.samples)
        what = f"samples={request.samples}, epochs={request.epochs}, learning_rate={request.learning_rate:g}"
        fields = request.fields()
        try:
            reply = self._link.request(
                Command.FIT, fields, what, progress=lambda found: progress(FitProgress.of(found))
            )
        except Lost as lost:
            raise self._not_twice(lost) from lost
        return FitResult.of(reply.fields)

    def reset_adapter(self, seed: int, *, trace: bool = False, dump: int | None = None) -> Run:
        """A fresh adapter, initialised from `seed`."""
        fields = {"seed": unsigned("seed", seed)}
        return self._link.repeat(lambda: self._run(Command.RESET_ADAPTER, fields, f"seed={seed}", trace, dump))[0]

    def requantize(self, *, trace: bool = False, dump: int | None = None) -> Run:
        """Quantise the adapter again from the masters, after "training" was written."""
        return self._link.repeat(lambda: self._run(Command.REQUANTIZE, {}, "", trace, dump))[0]

    def merge(self) -> None:
        """Let inference read weights with the adapter in them, until the adapter is changed."""
        self._ask(Command.MERGE, {}, "")

    def unmerge(self) -> None:
        """Let inference read the adapter again."""
        self._ask(Command.UNMERGE, {}, "")

    def export_adapter(self) -> bytes:
        """The adapter package. Overwrites the arena."""
        found = self._ask(Command.EXPORT_ADAPTER, {}, "").fields
        return self.read("staging", 0, number_of(found, "len", "EXPORT_ADAPTER()"))

    def load_adapter(self, package: bytes) -> None:
        """Let the device check a package and take it over: all of it or, on an error, nothing. Overwrites the arena."""

        def load() -> None:
            if len(package) <= self.info().arena_bytes:  # else the device gives the error
                self.write("staging", package)
            self._link.request(Command.LOAD_ADAPTER, {"len": len(package)}, f"bytes={len(package)}")

        self._link.repeat(load)

    def stats(self) -> Stats:
        """Stack use and guard words."""
        found = self._ask(Command.STATS, {}, "").fields
        stack, used = (number_of(found, key, "STATS()") for key in ("stack", "stack_used"))
        return Stats(stack, used, value_of(found, "guards", bool, "STATS()"))

    def instructions(self) -> int | None:
        """Exact instructions of the last inference, training step, encoding or update; None without a counter."""
        return self._counter() if self._counter is not None else None

    def _run(
        self, command: Command, fields: Mapping[str, Any], what: str, trace: bool, dump: int | None
    ) -> tuple[Run, Mapping[str, Any]]:
        """What a command that runs the model gave back, and its answer."""
        if dump is not None and not 0 <= dump < 1 << 31:
            raise DeviceError(f"{command.name}({what}): no output has index {dump}")
        options: dict[str, Any] = {"trace": True} if trace else {}
        options |= {"dump": dump} if dump is not None else {}
        try:
            reply = self._link.request(command, {**fields, **options}, what, streams=trace or dump is not None)
        except Lost as lost:
            if command not in _ONCE:
                raise
            raise self._not_twice(lost) from lost
        if dump is not None and reply.dump is None:
            raise DeviceError(f"{command.name}({what}): no output has index {dump}", "trace lists the indices")
        found = None if reply.dump is None else Dump(bytes(reply.dump), reply.dump_exponent)
        return Run(trace=reply.trace, dump=found), reply.fields

    def _trained(self, command: Command, fields: Mapping[str, Any], what: str, trace: bool, dump: int | None) -> Run:
        """What a command of _ONCE gave back."""
        run, found = self._run(command, fields, what, trace, dump)
        if command in _STEPS:
            run.loss = value_of(found, "loss", float, f"{command.name}({what})")
        run.masters_sane = value_of(found, "sane", bool, f"{command.name}({what})")
        return run

    def _no_latents(self) -> DeviceError:
        """What to raise where the firmware does not know them."""
        return DeviceError(
            f"{self.info().name} keeps no latents of a sample",
            "generate the project with --latents, or train from the input",
        )

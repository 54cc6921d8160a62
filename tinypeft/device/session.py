"""A session with a device: what it is, its memories, and how its answers are asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import cbor2

from tinypeft.device.link import Link, Lost, NotTaken, Reply, Transport
from tinypeft.device.protocol import PROTOCOL_VERSION, Command, Info, Object
from tinypeft.device.values import number_of, unsigned, value_of
from tinypeft.errors import DeviceError

#: INFO's keys of numbers -> fields of Info
_INFO = {
    "protocol": "protocol",
    "payload": "max_payload",
    **{name: f"{name}_bytes" for name in ("input", "output", "logits", "adapter", "training", "package", "arena")},
    "target": "target_bytes",
    "classes": "classes",
    "samples": "samples",
    "sample": "sample_bytes",
}
#: More than a request holds beside the input that it carries
_BESIDE_INPUT = 80


class Unanswered(DeviceError):
    """Nothing on the stream answers as the firmware does."""


class Session:
    """The link to a device and its information. `timeout`, `lossy`, `sequence`: see `Link`."""

    def __init__(self, transport: Transport, *, timeout: float, lossy: bool, sequence: int):
        self._link = Link(transport, timeout=timeout, lossy=lossy, sequence=sequence)
        self._info: Info | None = None

    @property
    def transport(self) -> Transport:
        """The byte stream to the device."""
        return self._link.transport

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
            retry *= 2  # a slow stream must carry what was sent before more is sent

    def info(self) -> Info:
        """What the device is; asked once and remembered."""
        return self._info if self._info is not None else self._link.repeat(self._read_info)

    def write(self, target: str, data: bytes, offset: int = 0) -> None:
        """Write into an object from `offset` on: any of `Object` but "output" and "logits"."""
        fields: dict[str, Any] = {"object": _object(target), "off": (1 << 32) - 1, "data": bytes(256)}
        chunk = self.info().max_payload + 256 - len(cbor2.dumps(fields))
        for begin in range(0, len(data), chunk):
            part = data[begin : begin + chunk]
            fields |= {"off": unsigned("offset", offset + begin), "data": part}
            self._ask(Command.WRITE, fields, f"{target}, offset={offset + begin}, bytes={len(part)}")

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
            at, left = offset + len(data), length - len(data)
            fields = {"object": number, "off": unsigned("offset", at), "len": unsigned("length", left)}
            data += self._ask_data(fields, f"{target}, offset={at}, length={left}", left)
            if len(data) == length:
                return bytes(data)

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

    def _input(self, data: bytes | None) -> dict[str, Any]:
        """What a request is to hold so that it runs with `data`; writes it first where that does not fit."""
        if data is None:
            return {}
        info = self.info()
        if len(data) != info.input_bytes:
            raise DeviceError(f"the input has {len(data)} bytes, {info.name} takes {info.input_bytes}")
        if len(data) + _BESIDE_INPUT <= info.max_payload:
            return {"input": data}
        self.write("input", data)
        return {}

    def _write_target(self, target: int | bytes | None) -> None:
        if not isinstance(target, bytes):
            return
        info = self.info()
        if len(target) != info.target_bytes:
            raise DeviceError(f"the target has {len(target)} bytes, {info.name} takes {info.target_bytes}")
        self.write("target", target)

    def _not_twice(self, lost: Lost) -> DeviceError:
        """What to raise where the answer to a command of _ONCE is lost."""
        if not self._link.lossy:
            return lost
        return DeviceError(
            f"{lost.message}; it may have run, and it must not run twice",
            "start again; a shorter cable or a lower baud rate loses less",
        )

    def _ask(self, command: Command, fields: Mapping[str, Any], what: str) -> Reply:
        """One request that may run twice."""
        return self._link.repeat(lambda: self._link.request(command, fields, what))

    def _ask_data(self, fields: Mapping[str, Any], what: str, wanted: int) -> bytes:
        """One READ; DeviceError where it gives nothing of the bytes `wanted`, or more than them."""
        data = value_of(self._ask(Command.READ, fields, what).fields, "data", bytes, f"READ({what})")
        if not min(wanted, 1) <= len(data) <= wanted:
            raise DeviceError(f"READ({what}) gave {len(data)} bytes")
        return data

    def _read_info(self, timeout: float | None = None) -> Info:
        found = self._link.request(Command.INFO, {}, "", timeout=timeout).fields
        protocol = found.get("protocol")
        if protocol != PROTOCOL_VERSION:
            raise DeviceError(
                f"the firmware speaks protocol {protocol}, this tinypeft {PROTOCOL_VERSION}", "build the firmware again"
            )
        numbers = {field: number_of(found, key, "INFO()") for key, field in _INFO.items()}
        name, fingerprint = value_of(found, "name", str, "INFO()"), value_of(found, "fingerprint", bytes, "INFO()")
        self._info = Info(name=name, fingerprint=fingerprint, **numbers)
        return self._info


def _object(target: str) -> Object:
    try:
        return Object[target.upper()]
    except KeyError:
        raise DeviceError(f"no object {target!r}; there are {', '.join(o.name.lower() for o in Object)}") from None

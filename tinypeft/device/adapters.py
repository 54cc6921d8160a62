"""The adapters that a device keeps: listed, pushed, pulled, switched; requests as tp_group_adapters.h has them."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import cbor2

from tinypeft.device import framing
from tinypeft.device.link import Link, Lost, UnknownCommand
from tinypeft.device.values import number_of, unsigned, value_of
from tinypeft.errors import DeviceError

#: TP_GROUP_FILES
FILES = 8
#: (bytes that have arrived, bytes in all)
Progress = Callable[[int, int], None]


class AdapterCommand(IntEnum):
    """tp_adapters_command."""

    LIST = 0
    ACTIVATE = 1
    DEACTIVATE = 2
    CONFIRM = 3
    REVERT = 4
    DELETE = 5
    SAVE = 6
    CHECKPOINT = 7
    RESUME = 8
    UPLOAD = 9
    UPLOADING = 10
    DESCRIBE = 11
    COLLECT = 12
    COMBINE = 13


class FileCommand(IntEnum):
    """MCUmgr's FS_MGMT_ID_*."""

    FILE = 0
    HASH = 2


#: tp_adapters_method
_METHODS = ("linear", "cat")
#: Commands that are an error when they run twice
_ONCE = (AdapterCommand.CONFIRM, AdapterCommand.REVERT, AdapterCommand.DELETE)
_READS = (AdapterCommand.LIST, AdapterCommand.UPLOADING, AdapterCommand.DESCRIBE)


@dataclass(frozen=True)
class StoredAdapter:
    """An adapter that a device knows.

    confirmed, candidate, checkpoint  the versions of both packages, and the step of its training; None: not there
    counter      the highest security counter that was confirmed
    on_test      the candidate was activated, `boots` starts ago
    active       it serves after a reset
    resident     it is in RAM; `changed`: trained there since it was loaded
    """

    id: str
    confirmed: int | None
    candidate: int | None
    checkpoint: int | None
    counter: int
    on_test: bool
    boots: int
    active: bool
    resident: bool
    changed: bool


@dataclass(frozen=True)
class AdapterList:
    """`serving` is the id of the adapter in use, empty for one without a name; `base`: the base model is instead."""

    serving: str
    base: bool
    slots: int
    unused: int
    adapters: tuple[StoredAdapter, ...]


@dataclass(frozen=True)
class StoredPackage:
    """What a stored package says of itself; `sha256` is the digest in it, not that of the file."""

    version: int
    counter: int
    method: int
    rank: int
    size: int
    sha256: bytes
    candidate: bool


class DeviceAdapters:
    """The adapters behind a link whose requests hold at most `max_payload` bytes. Errors are DeviceError."""

    #: How often an upload whose answers are lost is taken up again
    ATTEMPTS = 5

    def __init__(self, link: Link, max_payload: int):
        self._link, self._max_payload = link, max_payload

    def list(self) -> AdapterList:
        """All of them, and what serves."""
        entries: list[StoredAdapter] = []
        while True:
            found = self._ask(AdapterCommand.LIST, {"from": len(entries)}, "")
            part = value_of(found, "adapters", list, "LIST()")
            entries += map(_stored, part)
            if len(entries) >= number_of(found, "count", "LIST()"):
                break
            if not part:
                raise DeviceError("LIST(): an answer with no adapter", "build the firmware again")
        slots, unused = (number_of(found, key, "LIST()") for key in ("slots", "unused"))
        serving, base = value_of(found, "serving", str, "LIST()"), value_of(found, "base", bool, "LIST()")
        return AdapterList(serving, base, slots, unused, tuple(entries))

    def activate(self, name: str, *, keep: bool = True) -> None:
        """Let it serve: its candidate, then on test, or what is confirmed. `keep`: after a reset, too."""
        self._ask(AdapterCommand.ACTIVATE, {"id": name, "keep": keep}, name)

    def deactivate(self, *, keep: bool = True) -> None:
        """Let the base model serve."""
        self._ask(AdapterCommand.DEACTIVATE, {"keep": keep}, "")

    def confirm(self, name: str) -> None:
        """The candidate on test takes the place of what was confirmed."""
        self._ask(AdapterCommand.CONFIRM, {"id": name}, name)

    def revert(self, name: str) -> None:
        """Give up the candidate."""
        self._ask(AdapterCommand.REVERT, {"id": name}, name)

    def delete(self, name: str) -> None:
        """Give up all of it, but its security counter."""
        self._ask(AdapterCommand.DELETE, {"id": name}, name)

    def save(self, name: str, version: int) -> None:
        """What serves, such as an adapter that was trained, becomes the candidate of `name`."""
        self._ask(AdapterCommand.SAVE, {"id": name, "version": unsigned("version", version)}, f"{name}, {version}")

    def checkpoint(self, name: str, step: int) -> None:
        """Keep the state of training after `step` steps, to go on from there after a reset."""
        self._ask(AdapterCommand.CHECKPOINT, {"id": name, "step": unsigned("step", step)}, f"{name}, step={step}")

    def resume(self, name: str) -> int:
        """Go on from the checkpoint of `name`; returns after how many steps it was made."""
        return number_of(self._ask(AdapterCommand.RESUME, {"id": name}, name), "step", f"RESUME({name})")

    def combine(self, names: Sequence[str], weights: Sequence[float], method: str = "linear") -> None:
        """The weighted sum of up to 8 adapters, by the method linear or cat, serves then, without a name."""
        fields = {
            "ids": ",".join(names),
            "weights": struct.pack(f"<{len(weights)}f", *weights),
            "method": _METHODS.index(method),
        }
        self._ask(AdapterCommand.COMBINE, fields, f"{fields['ids']}, {method}")

    def collect(self) -> None:
        """Erase what can be erased, so that the next uploads need not wait for it."""
        self._ask(AdapterCommand.COLLECT, {}, "")

    def describe(self, name: str) -> StoredPackage:
        """The candidate of `name` or, without one, what is confirmed."""
        found, title = self._ask(AdapterCommand.DESCRIBE, {"id": name}, name), f"DESCRIBE({name})"
        numbers = {key: number_of(found, key, title) for key in ("version", "counter", "method", "rank")}
        size, digest = number_of(found, "len", title), value_of(found, "sha", bytes, title)
        return StoredPackage(**numbers, size=size, sha256=digest, candidate=value_of(found, "candidate", bool, title))

    def push(self, name: str, package: bytes, progress: Progress = lambda done, of: None) -> None:
        """Upload a package, or a delta, which becomes the candidate of `name`.

        Goes on where an earlier attempt at the same bytes broke off.
        """
        attempts = self.ATTEMPTS if self._link.lossy else 1
        for attempt in range(attempts):
            try:
                begin = self._arrived(name, package)
                if attempt and begin == 0 and self._has(name, package):
                    return progress(len(package), len(package))
                return self._push(name, package, begin, progress)
            except Lost:
                if attempt + 1 == attempts:
                    raise

    def pull(self, name: str, progress: Progress = lambda done, of: None) -> bytes:
        """The package that `describe` describes."""
        path, data, size = f"/adapter/{name}", bytearray(), self.describe(name).size
        while len(data) < size:
            fields = {"name": path, "off": len(data)}
            found = self._file(framing.READ, FileCommand.FILE, fields, f"{path}, off={len(data)}")
            part = value_of(found, "data", bytes, f"FILE({path})")
            if not part or len(data) + len(part) > size:
                raise DeviceError(f"FILE({path}): {len(part)} bytes behind {len(data)} of {size}", "pull it again")
            data += part
            progress(len(data), size)
        return bytes(data)

    def _push(self, name: str, package: bytes, done: int, progress: Progress) -> None:
        while done < len(package) or not package:
            fields: dict[str, Any] = {"id": name, "off": done, "data": b""} | ({} if done else {"len": len(package)})
            room = self._max_payload - len(cbor2.dumps(fields)) - 2  # of the longer head of the data
            fields["data"] = package[done : done + room]
            title = f"{name}, off={done}, bytes={len(fields['data'])}"
            try:
                found = self._link.request(
                    AdapterCommand.UPLOAD, fields, title, group=framing.ADAPTERS_GROUP, op=framing.WRITE
                ).fields
            except UnknownCommand as unknown:
                raise _no_store(unknown) from unknown
            done = number_of(found, "off", f"UPLOAD({title})")
            progress(done, len(package))

    def _arrived(self, name: str, package: bytes) -> int:
        """How many bytes of this package a broken upload has left there."""
        found = self._ask(AdapterCommand.UPLOADING, {}, "")
        off, size = int(found.get("off", 0)), found.get("len")
        same = found.get("id") == name and size == len(package) and zlib.crc32(package[:off]) == found.get("crc")
        return off if same else 0

    def _has(self, name: str, package: bytes) -> bool:
        """Whether `package` is that of `name`: nothing but the last answer to its upload got lost."""
        if all(entry.id != name for entry in self.list().adapters):
            return False
        found = self._file(framing.READ, FileCommand.HASH, {"name": f"/adapter/{name}"}, name)
        return value_of(found, "output", bytes, f"HASH({name})") == hashlib.sha256(package).digest()

    def _ask(self, command: AdapterCommand, fields: Mapping[str, Any], what: str) -> Mapping[str, Any]:
        op = framing.READ if command in _READS else framing.WRITE

        def ask() -> Mapping[str, Any]:
            return self._link.request(command, fields, what, group=framing.ADAPTERS_GROUP, op=op).fields

        try:
            return ask() if command in _ONCE else self._link.repeat(ask)
        except UnknownCommand as unknown:
            raise _no_store(unknown) from unknown

    def _file(self, op: int, command: FileCommand, fields: Mapping[str, Any], what: str) -> Mapping[str, Any]:
        try:
            return self._link.repeat(lambda: self._link.request(command, fields, what, group=FILES, op=op).fields)
        except UnknownCommand as unknown:
            raise _no_store(unknown) from unknown


def _stored(found: Mapping[str, Any]) -> StoredAdapter:
    return StoredAdapter(
        value_of(found, "id", str, "LIST()"),
        found.get("confirmed"),
        found.get("candidate"),
        found.get("checkpoint"),
        number_of(found, "counter", "LIST()"),
        bool(found.get("on_test", False)),
        int(found.get("boots", 0)),
        *(value_of(found, key, bool, "LIST()") for key in ("active", "resident", "changed")),
    )


def _no_store(unknown: UnknownCommand) -> DeviceError:
    return DeviceError(
        "this firmware keeps no adapters on its flash", "generate the project with --adapters 4, then flash it"
    )

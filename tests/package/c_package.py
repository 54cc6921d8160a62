"""tp_package.c, tp_sha256.c and tp_delta.c in a shared library, called through ctypes: undefined behaviour stops it."""

from __future__ import annotations

import ctypes
import functools
import re
import subprocess
import tempfile
from collections.abc import Callable

from tinypeft.package.delta import HEADER_BYTES
from tinypeft.package.format import Identity
from tinypeft.package.info import PackageInfo
from tinypeft.resources import resource_path

WARNINGS = "-std=c11 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror".split()
SANITIZE = ["-fsanitize=undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
SOURCES = ("runtime/tp_crc.c", "runtime/tp_id.c", "runtime/tp_package.c", "runtime/tp_sha256.c", "store/tp_delta.c")
READER = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint8), ctypes.c_uint32
)
SINK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint8), ctypes.c_uint32)
VERIFY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint8), ctypes.POINTER(ctypes.c_uint8))


def statuses() -> dict[str, int]:
    """Name -> value of the table in tp_types.h."""
    text = resource_path("firmware", "include", "tinypeft", "tp_types.h").read_text()
    return {name: int(value) for name, value in re.findall(r"X\((TP_\w+), (-?\d+),", text)}


STATUS = statuses()
NAMES = {value: name for name, value in STATUS.items()}


class _Tensor(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("outer", "rank", "inner")),
        *((name, ctypes.c_uint8) for name in ("ranked", "fixed")),
    ]


class _Info(ctypes.Structure):
    _fields_ = [
        ("fingerprint", ctypes.c_char_p),
        *((name, ctypes.c_uint32) for name in ("layout", "payload_bytes")),
        *((name, ctypes.c_uint16) for name in ("method", "rank")),
        ("tensors", ctypes.POINTER(_Tensor)),
        ("tensor_count", ctypes.c_uint32),
    ]


class _Identity(ctypes.Structure):
    _fields_ = [("id", ctypes.c_uint8 * 16), ("version", ctypes.c_uint32), ("counter", ctypes.c_uint32)]


class Header(ctypes.Structure):
    """tp_package_header."""

    _fields_ = [
        ("magic", ctypes.c_uint8 * 4),
        *((name, ctypes.c_uint16) for name in ("format", "header_bytes")),
        ("payload_bytes", ctypes.c_uint32),
        ("fingerprint", ctypes.c_uint8 * 32),
        ("layout", ctypes.c_uint32),
        ("identity", _Identity),
        *((name, ctypes.c_uint16) for name in ("method", "rank", "flags", "reserved")),
        ("package_bytes", ctypes.c_uint32),
    ]


class _Security(ctypes.Structure):
    _fields_ = [
        ("context", ctypes.c_void_p),
        ("verify_sig", VERIFY),
        *((name, ctypes.c_void_p) for name in ("entropy", "monotonic_counter", "key_derive")),
    ]


@functools.cache
def library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        include = f"-I{resource_path('firmware', 'include')}"
        sources = [str(resource_path("firmware", name)) for name in SOURCES]
        command = ["gcc", *WARNINGS, *SANITIZE, include, "-fPIC", "-shared", *sources, "-o", f"{folder}/package.so"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, run.stderr
        return ctypes.CDLL(f"{folder}/package.so")


def c_info(info: PackageInfo) -> _Info:
    rows = [(t.outer, t.rank, t.inner, t.ranked, t.fixed) for t in info.tensors]
    table = (_Tensor * len(rows))(*rows)
    return _Info(info.fingerprint, info.layout, info.payload_bytes, info.method, info.rank, table, len(rows))


def c_identity(identity: Identity) -> _Identity:
    return _Identity((ctypes.c_uint8 * 16)(*identity.id.encode()), identity.version, identity.counter)


def reader(data: bytes, longest: list[int] | None = None, fails_at: int | None = None) -> Callable:
    """A tp_package_reader of `data` that allows nothing outside it, and notes the longest read."""

    def read(_: int, offset: int, into: ctypes.Array, length: int) -> int:
        if fails_at is not None and offset <= fails_at < offset + length:
            return STATUS["TP_ERR_FLASH"]
        assert offset + length <= len(data), f"{length} bytes at {offset} of {len(data)} were read"
        if longest is not None:
            longest.append(length)
        ctypes.memmove(into, data[offset : offset + length], length)
        return 0

    return READER(read)


def verify(
    info: PackageInfo, package: bytes, signature: Callable[[bytes, bytes], int] | None = None, **options: object
) -> tuple[str, Header]:
    """(name of the status, header) that tp_package_verify gives."""
    header, read = Header(), reader(package, **options)
    security = _Security()
    if signature is not None:
        check = lambda _, digest, given: signature(bytes(digest[:32]), bytes(given[:64]))  # noqa: E731
        security.verify_sig = VERIFY(check)
    status = library().tp_package_verify(
        ctypes.byref(c_info(info)), read, None, len(package), ctypes.byref(security), ctypes.byref(header)
    )
    return NAMES[status], header


def load(info: PackageInfo, package: bytes, header: Header, **options: object) -> tuple[str, bytes]:
    """(name of the status, the adapter struct) of tp_package_load; guard bytes around it are checked."""
    guard, read = b"\xa5" * 16, reader(package, **options)
    memory = ctypes.create_string_buffer(guard + b"\x5a" * info.payload_bytes + guard)
    at = ctypes.addressof(memory) + len(guard)
    status = library().tp_package_load(
        ctypes.byref(c_info(info)), read, None, ctypes.byref(header), ctypes.c_void_p(at)
    )
    assert memory.raw[:16] == guard and memory.raw[16 + info.payload_bytes : -1] == guard
    return NAMES[status], memory.raw[16 : 16 + info.payload_bytes]


def write(info: PackageInfo, identity: Identity | None, payload: bytes, capacity: int) -> tuple[str, bytes]:
    """(name of the status, what tp_package_write wrote)."""
    package = ctypes.create_string_buffer(capacity)
    given = None if identity is None else ctypes.byref(c_identity(identity))
    status = library().tp_package_write(ctypes.byref(c_info(info)), given, payload, package, capacity)
    return NAMES[status], package.raw


def sha256(*pieces: bytes) -> bytes:
    """What tp_sha256 makes of pieces."""
    context, digest = ctypes.create_string_buffer(128), ctypes.create_string_buffer(32)
    library().tp_sha256_begin(context)
    for piece in pieces:
        library().tp_sha256_update(context, piece, len(piece))
    library().tp_sha256_finish(context, digest)
    return digest.raw


def hmac_sha256(key: bytes, first: bytes, second: bytes | None) -> bytes:
    mac = ctypes.create_string_buffer(32)
    library().tp_hmac_sha256(key, len(key), first, len(first), second, len(second or b""), mac)
    return mac.raw


def apply_delta(
    old: bytes, delta: bytes, piece: int = 7, sink_fails_at: int | None = None, old_fails_at: int | None = None
) -> tuple[str, bytes]:
    """(name of the status, the new bytes) of tp_delta, given the delta in pieces of `piece` bytes."""
    header, state, new = ctypes.create_string_buffer(64), ctypes.create_string_buffer(1024), bytearray()
    status = library().tp_delta_parse(delta[:HEADER_BYTES], header)
    if status != 0:
        return NAMES[status], b""

    def take(_: int, data: ctypes.Array, length: int) -> int:
        assert 0 < length <= 32
        new.extend(data[:length])
        return STATUS["TP_ERR_FLASH"] if sink_fails_at is not None and len(new) > sink_fails_at else 0

    read, sink = reader(old, fails_at=old_fails_at), SINK(take)
    status = library().tp_delta_begin(state, header, read, None, len(old), sink, None)
    for at in range(HEADER_BYTES, len(delta), piece):
        if status != 0:
            break
        part = delta[at : at + piece]
        status = library().tp_delta_push(state, part, len(part))
    if status == 0:
        status = library().tp_delta_finish(state)
    return NAMES[status], bytes(new)

"""The bytes of an adapter package (firmware/STORAGE.md): header and payload in, package out, and back."""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from dataclasses import dataclass, replace

from tinypeft.errors import AdapterError

FORMAT = 2
MAGIC = b"TPAD"
_HEADER = struct.Struct("<4sHHI32sI16sIIHHHH")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size
DIGEST_BYTES = 32
SIGNATURE_BYTES = 64
#: what is around the payload of a package without a signature
OVERHEAD_BYTES = HEADER_BYTES + _CRC.size + DIGEST_BYTES
#: the only flag there is
SIGNED = 1
_ID = re.compile(r"[a-z0-9._-]{1,15}")
_U32_MAX = 0xFFFFFFFF


@dataclass(frozen=True)
class Identity:
    """Who an adapter is: `id` of 1 to 15 characters, and two numbers of 32 bits.

    A device refuses a package whose `counter` is below that of one it has confirmed. AdapterError for others.
    """

    id: str = "adapter"
    version: int = 0
    counter: int = 0

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise AdapterError(
                f"{self.id!r} is no adapter id: 1 to 15 characters of a-z 0-9 . _ -", "try a name such as wake-word.2"
            )
        for name, value in (("version", self.version), ("security counter", self.counter)):
            if not 0 <= value <= _U32_MAX:
                raise AdapterError(f"the {name} is {value}, the limits are 0 and {_U32_MAX}", "try a smaller number")


@dataclass(frozen=True)
class PackageHeader:
    """What a header says beside the sizes.

    fingerprint  SHA-256 of the base model
    layout       CRC-32 of the list of adapter tensors
    method       the bits of the kinds in it (AdapterKind.method)
    rank         no layer has more; 0 where no kind has a rank
    """

    identity: Identity
    fingerprint: bytes
    layout: int
    method: int
    rank: int


@dataclass(frozen=True)
class Package:
    """A package whose checksums are right. `digest`: its SHA-256 field; `signature` is empty where there is none."""

    header: PackageHeader
    payload: bytes
    digest: bytes
    signature: bytes = b""


def pack(header: PackageHeader, payload: bytes) -> bytes:
    """An unsigned package; the same arguments give the same bytes."""
    covered = _covered(header, payload, 0)
    return covered + hashlib.sha256(covered).digest()


def to_be_signed(package: bytes) -> bytes:
    """A package, marked as signed, as far as its signature; a signature is of the last 32 bytes.

    A signature that the package has is left out. AdapterError: as of `parse`.
    """
    parsed = parse(package)
    covered = _covered(parsed.header, parsed.payload, SIGNED)
    return covered + hashlib.sha256(covered).digest()


def with_identity(package: bytes, identity: Identity) -> bytes:
    """The same adapter, unsigned, under another identity. AdapterError: as of `parse`."""
    parsed = parse(package)
    return pack(replace(parsed.header, identity=identity), parsed.payload)


def _covered(header: PackageHeader, payload: bytes, flags: int) -> bytes:
    """Header, payload and CRC-32."""
    who = header.identity
    head = _HEADER.pack(
        *(MAGIC, FORMAT, HEADER_BYTES, len(payload), header.fingerprint, header.layout, who.id.encode()),
        *(who.version, who.counter, header.method, header.rank, flags, 0),
    )
    return head + payload + _CRC.pack(zlib.crc32(head + payload))


def parse(package: bytes) -> Package:
    """Take a package apart; AdapterError, as the device's checks, where it is none or damaged."""
    if package[:4] != MAGIC[: len(package)] or not package:
        raise AdapterError(f"these {len(package)} bytes are no adapter package", "give the file adapter.bin")
    if len(package) < HEADER_BYTES:
        raise AdapterError(
            f"the adapter package is incomplete: it has {len(package)} bytes, its header alone {HEADER_BYTES}",
            "copy it again",
        )
    fields = _HEADER.unpack_from(package)
    _, version, header_bytes, size, fingerprint, layout, name, number, counter, method, rank, flags, reserved = fields
    if (version, header_bytes) != (FORMAT, HEADER_BYTES):
        raise AdapterError(
            f"the adapter package has format {version} with a header of {header_bytes} bytes, this tinypeft reads "
            f"format {FORMAT} with {HEADER_BYTES}",
            "make it again with `tinypeft adapter pack`",
        )
    if flags & ~SIGNED or reserved:
        raise AdapterError(
            f"the adapter package has flags {flags:#x} and {reserved:#x} in a reserved field; known is {SIGNED:#x}",
            "copy it again, or read it with the tinypeft that wrote it",
        )
    identity = Identity(_id(name), number, counter)
    expected = size + OVERHEAD_BYTES + (SIGNATURE_BYTES if flags & SIGNED else 0)
    if len(package) != expected:
        what = "incomplete" if len(package) < expected else "followed by other bytes"
        raise AdapterError(
            f"the adapter package is {what}: it has {len(package)} bytes, its header says {expected}", "copy it again"
        )
    end = HEADER_BYTES + size
    if _CRC.unpack_from(package, end)[0] != zlib.crc32(package[:end]):
        raise AdapterError("the adapter package is damaged: its checksum does not match", "copy it again")
    digest = package[end + _CRC.size :][:DIGEST_BYTES]
    if digest != hashlib.sha256(package[: end + _CRC.size]).digest():
        raise AdapterError("the adapter package is damaged: its SHA-256 does not match", "copy it again")
    header = PackageHeader(identity, fingerprint, layout, method, rank)
    return Package(header, package[HEADER_BYTES:end], digest, package[end + _CRC.size + DIGEST_BYTES :])


def _id(field: bytes) -> str:
    """The id in a header's 16 bytes."""
    text = field.rstrip(b"\0").decode("latin-1")
    if not _ID.fullmatch(text):
        raise AdapterError(
            f"the adapter package has the id {text!r}, one is 1 to 15 characters of a-z 0-9 . _ -", "copy it again"
        )
    return text

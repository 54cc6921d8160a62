"""Deltas: an old and a new adapter package in, the file that makes the new one of the old one out, and back.

What is coded is the bytewise difference (firmware/STORAGE.md); the device's decoder is tp_delta.c.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Any

from tinypeft.errors import AdapterError
from tinypeft.package.format import parse
from tinypeft.package.range_coder import BitModel, RangeDecoder, RangeEncoder

FORMAT = 1
MAGIC = b"TPDL"
_DIGEST_BYTES = 8
_HEADER = struct.Struct(f"<4sHHII{_DIGEST_BYTES}s")
HEADER_BYTES = _HEADER.size
#: whether each of the last two bytes was changed
_CONTEXTS = 4
#: for each byte of a delta at most so many bytes come out of it, a good deal more than its models allow
_EXPANSION = 512


@dataclass(frozen=True)
class DeltaHeader:
    """Sizes of both packages in bytes, and how the SHA-256 of all of the old one begins."""

    old_bytes: int
    new_bytes: int
    old_digest: bytes


class _Models:
    """The models of a difference: whether a byte changed, and a tree of the 8 bits of its change."""

    def __init__(self) -> None:
        self.changed = [BitModel() for _ in range(_CONTEXTS)]
        self.tree = [BitModel() for _ in range(256)]


def diff(old: bytes, new: bytes) -> bytes:
    """The delta that makes the package `new` of the package `old`; the same packages give the same bytes.

    AdapterError where one is no package or damaged, or where the delta is no smaller than the new package.
    """
    parse(old)
    parse(new)
    delta = encode_delta(old, new)
    if len(delta) >= len(new):
        raise AdapterError(
            f"the delta has {len(delta):,} B, the new package itself {len(new):,} B: the two have little in common",
            "send the new package",
        )
    return delta


def encode_delta(old: bytes, new: bytes) -> bytes:
    """The delta between any two sequences of bytes, of which the new one has some."""
    header = _HEADER.pack(MAGIC, FORMAT, HEADER_BYTES, len(old), len(new), _digest(old))
    models, encoder, history = _Models(), RangeEncoder(), 0
    padded = old.ljust(len(new), b"\0")
    for before, after in zip(padded[: len(new)], new, strict=True):
        change = (after - before) & 0xFF
        encoder.encode(models.changed[history], change != 0)
        history = (history << 1 | (change != 0)) % _CONTEXTS
        if change:
            _encode_change(encoder, models.tree, change)
    return header + encoder.finish()


def _encode_change(encoder: RangeEncoder, tree: list[BitModel], change: int) -> None:
    """+1, -1, +2, -2, … as 0, 1, 2, 3, …, from the highest bit on."""
    value = 2 * (change - 1) if change < 128 else 2 * (256 - change) - 1
    node = 1
    for place in range(7, -1, -1):
        bit = value >> place & 1
        encoder.encode(tree[node], bit)
        node = node << 1 | bit


def apply_delta(old: bytes, delta: bytes) -> bytes:
    """The new package; AdapterError where the delta is damaged or made for another old one.

    A delta has no checksum: its package has.
    """
    header = parse_delta(delta)
    if len(old) != header.old_bytes or _digest(old) != header.old_digest:
        raise AdapterError(
            f"the delta is for a package of {header.old_bytes:,} B whose SHA-256 begins with "
            f"{header.old_digest.hex()}; this one has {len(old):,} B and {_digest(old).hex()}",
            "give the package that the delta was made from, or send the new one whole",
        )
    new = decode_delta(old, delta, header)
    try:
        parse(new)
    except AdapterError as error:
        raise AdapterError(f"the delta is damaged: of what it makes, {error.message}", "copy it again") from error
    return new


def decode_delta(old: bytes, delta: bytes, header: DeltaHeader) -> bytes:
    """What the coded difference makes of `old`, as the device decodes it; AdapterError where it has another length."""
    data = iter(delta[HEADER_BYTES:])
    models, decoder, history = _Models(), RangeDecoder(data), 0
    new = bytearray(old[: header.new_bytes].ljust(header.new_bytes, b"\0"))
    try:
        for at in range(header.new_bytes):
            changed = decoder.decode(models.changed[history])
            history = (history << 1 | changed) % _CONTEXTS
            if changed:
                node = 1
                while node < 256:
                    node = node << 1 | decoder.decode(models.tree[node])
                magnitude = ((node & 0xFF) >> 1) + 1
                new[at] = new[at] + (-magnitude if node & 1 else magnitude) & 0xFF
    except StopIteration:
        raise AdapterError(f"the delta is incomplete: it ends after {len(delta)} bytes", "copy it again") from None
    if next(data, None) is not None:
        raise AdapterError("the delta is followed by other bytes", "copy it again")
    return bytes(new)


def is_delta(data: bytes) -> bool:
    """Whether a file begins as a delta does."""
    return data[:4] == MAGIC


def parse_delta(delta: bytes) -> DeltaHeader:
    """A delta's header; AdapterError where it has none."""
    if not is_delta(delta) or len(delta) < HEADER_BYTES:
        raise AdapterError(f"these {len(delta)} bytes are no delta", "make one with `tinypeft adapter diff`")
    _, version, size, old_bytes, new_bytes, old_digest = _HEADER.unpack_from(delta)
    if (version, size) != (FORMAT, HEADER_BYTES):
        raise AdapterError(
            f"the delta has format {version} with a header of {size} bytes, this tinypeft reads format {FORMAT} with "
            f"{HEADER_BYTES}",
            "make it again with `tinypeft adapter diff`",
        )
    if not 0 < new_bytes <= (len(delta) - HEADER_BYTES) * _EXPANSION:
        raise AdapterError(f"the delta of {len(delta)} bytes claims to make {new_bytes:,}", "copy it again")
    return DeltaHeader(old_bytes, new_bytes, old_digest)


def describe_delta(delta: bytes) -> dict[str, Any]:
    """Every field of a delta's header, and its size."""
    header = parse_delta(delta)
    return {
        "kind": "delta",
        "format": FORMAT,
        "old_bytes": header.old_bytes,
        "new_bytes": header.new_bytes,
        "old_sha256": header.old_digest.hex(),
        "delta_bytes": len(delta),
    }


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_DIGEST_BYTES]

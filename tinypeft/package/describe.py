"""What a file holds, for `tinypeft adapter inspect`: a package in, its header as plain values out."""

from __future__ import annotations

from typing import Any

from tinypeft.adapters import ADAPTERS
from tinypeft.package.format import FORMAT, parse


def describe_package(package: bytes) -> dict[str, Any]:
    """Every field of a package's header, and its sizes; AdapterError where it is none or is damaged."""
    parsed = parse(package)
    header, identity = parsed.header, parsed.header.identity
    return {
        "kind": "package",
        "format": FORMAT,
        "id": identity.id,
        "version": identity.version,
        "security_counter": identity.counter,
        "fingerprint": header.fingerprint.hex(),
        "layout_crc": header.layout,
        "method": header.method,
        "adapters": methods(header.method),
        "rank": header.rank,
        "payload_bytes": len(parsed.payload),
        "package_bytes": len(package),
        "sha256": parsed.digest.hex(),
        "signed": bool(parsed.signature),
    }


def methods(bits: int) -> list[str]:
    """The names of the kinds that a header's method names, and what no kind has as a number."""
    known = [name for name, kind in sorted(ADAPTERS.items()) if bits & kind.method]
    rest = bits & ~sum(ADAPTERS[name].method for name in known)
    return [*known, *([f"{rest:#06x}"] if rest else [])]

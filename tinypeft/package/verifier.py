"""What lets firmware check signatures: the file of a public key in, that key and C sources out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tinypeft.package.monocypher import monocypher_files
from tinypeft.package.signing import public_key_bytes
from tinypeft.resources import resource_path

_SOURCE = "runtime-optional/tp_verify_ed25519.c"


@dataclass(frozen=True)
class Verifier:
    """`key`: the 32 bytes of an Ed25519 public key; `files`: path under firmware/ -> content."""

    key: bytes
    files: dict[str, bytes]


def load_verifier(key: Path | str, monocypher: Path | str | None = None) -> Verifier:
    """The verifier of a PEM file's key, with Monocypher from a folder, or from the package registry.

    Raises AdapterError for a file without such a key, ToolError where cryptography or Monocypher is missing.
    """
    public = public_key_bytes(key)
    files = {f"monocypher/{name}": data for name, data in monocypher_files(monocypher).items()}
    return Verifier(public, {_SOURCE: resource_path("firmware", _SOURCE).read_bytes(), **files})

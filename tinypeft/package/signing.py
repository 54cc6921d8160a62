"""Ed25519 signatures of packages: PEM files of keys and packages in, signed packages and verdicts out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tinypeft.errors import AdapterError, ToolError
from tinypeft.package.format import parse, to_be_signed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_MAKE_KEY = "openssl genpkey -algorithm ed25519 -out key.pem"
_MAKE_PUBLIC = "openssl pkey -in key.pem -pubout -out pub.pem"


def sign(package: bytes, key: Path | str) -> bytes:
    """`package` signed with the private key in a PEM file; a signature that it has is replaced.

    The same package and key give the same bytes. AdapterError: no package, no such key; ToolError: no cryptography.
    """
    private = _private_key(Path(key))
    signed = to_be_signed(package)
    return signed + private.sign(signed[-32:])


def check_signature(package: bytes, key: Path | str) -> None:
    """Raise AdapterError where a package has no signature of the public key in a PEM file. ToolError: as `sign`."""
    public, parsed = _public_key(Path(key)), parse(package)
    if not parsed.signature:
        raise AdapterError("the adapter package has no signature", "sign it: tinypeft adapter sign --help")
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(parsed.signature, parsed.digest)
    except InvalidSignature:
        raise AdapterError(
            f"the signature of the adapter package is not one of {key}", "give the key that belongs to who signed it"
        ) from None


def public_key_bytes(key: Path | str) -> bytes:
    """The 32 bytes of the public key in a PEM file. AdapterError: none is in it; ToolError: as `sign`."""
    return _public_key(Path(key)).public_bytes_raw()


def _private_key(file: Path) -> Ed25519PrivateKey:
    data = _read(file)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(data, None)
    except TypeError:
        raise AdapterError(
            f"the key in {file} is encrypted", f"decrypt it: openssl pkey -in {file} -out plain.pem"
        ) from None
    except Exception as error:  # the library has no common class for what it cannot read
        raise AdapterError(f"{file} holds no private key in PEM", f"make one: {_MAKE_KEY}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise AdapterError(f"the key in {file} is no Ed25519 key", f"make one: {_MAKE_KEY}")
    return key


def _public_key(file: Path) -> Ed25519PublicKey:
    data = _read(file)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(data)
    except Exception as error:  # the library has no common class for what it cannot read
        raise AdapterError(
            f"{file} holds no public key in PEM", f"make one of a private key: {_MAKE_PUBLIC}"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise AdapterError(f"the key in {file} is no Ed25519 key", f"make one: {_MAKE_KEY}")
    return key


def _read(file: Path) -> bytes:
    """A key's file; ToolError where nothing can be made of it."""
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise ToolError(
            "signatures need the package cryptography, which is not installed", "pip install 'tinypeft[ota]'"
        ) from error
    try:
        return file.read_bytes()
    except OSError as error:
        raise AdapterError(f"cannot read the key {file}: {error.strerror}", f"make one: {_MAKE_KEY}") from error

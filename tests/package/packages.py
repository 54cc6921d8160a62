"""A small firmware's idea of packages, and packages for it: ranked tensors, one without, one in 4 bits."""

from __future__ import annotations

import hashlib
import struct
import zlib

import numpy as np

from tinypeft.ir import Purpose, Tensor
from tinypeft.package.format import HEADER_BYTES, Identity, PackageHeader, pack
from tinypeft.package.info import PackageInfo, package_info

FINGERPRINT = hashlib.sha256(b"base").digest()
METHOD = 0x0081


def weight(name: str, shape: tuple[int, ...], dtype: str = "int8", rank_axis: int | None = None) -> Tensor:
    return Tensor(name, shape, dtype, Purpose.ADAPTER_WEIGHT, rank_axis=rank_axis)


def tensors(rank: int) -> list[Tensor]:
    """Of a firmware of that rank: a dense layer, a convolution of at most rank 2, and a bias."""
    small = min(rank, 2)
    return [
        weight("bias", (3,), "int32"),
        weight("dense_lora_A", (rank, 5), rank_axis=0),
        weight("dense_lora_B", (7, rank), rank_axis=1),
        weight("conv_lora_A", (small, 3, 3, 11), rank_axis=0),
        weight("conv_lora_B", (4, small), rank_axis=1),
        weight("shift", (7,)),
    ]


def info(rank: int = 4) -> PackageInfo:
    return package_info(FINGERPRINT, tensors(rank), METHOD)


def int4_info(rank: int = 3) -> PackageInfo:
    """One whose ranks share bytes."""
    described = [weight("lora_A", (rank, 5), "int4", 0), weight("multiplier", (rank,), rank_axis=0)]
    return package_info(FINGERPRINT, described, METHOD)


def package_for(of: PackageInfo, rank: int | None = None, seed: int = 0, identity: Identity | None = None) -> bytes:
    """A package of random weights that firmware of `of` takes."""
    chosen = of.rank if rank is None else rank
    payload = np.random.default_rng(seed).bytes(of.payload_at(chosen))
    header = PackageHeader(identity or Identity("wake-word", 3, 7), of.fingerprint, of.layout, of.method, chosen)
    return pack(header, payload)


def sealed(package: bytes, length: int | None = None) -> bytes:
    """`package` with a checksum and a SHA-256 that match, over what is in front of them."""
    end = (len(package) if length is None else length) - 36
    covered = package[:end] + struct.pack("<I", zlib.crc32(package[:end]))
    return covered + hashlib.sha256(covered).digest()


def changed(package: bytes, offset: int, data: bytes) -> bytes:
    """`package` with other bytes at `offset`, sealed again."""
    return sealed(package[:offset] + data + package[offset + len(data) :])


#: (what is wrong, how it is made, the device's code, what the host says)
DAMAGES: list[tuple[str, str, str]] = [
    ("magic", "TP_ERR_FORMAT", "are no adapter package"),
    ("version", "TP_ERR_FORMAT", "has format 3 with a header of 80 bytes, this tinypeft reads format 2"),
    ("header size", "TP_ERR_FORMAT", "format 2 with a header of 84 bytes"),
    ("unknown flag", "TP_ERR_FORMAT", "has flags 0x4"),
    ("reserved", "TP_ERR_FORMAT", "0x1 in a reserved field"),
    ("huge", "TP_ERR_FORMAT", "incomplete"),
    ("no id", "TP_ERR_ID", "has the id ''"),
    ("id in capitals", "TP_ERR_ID", "has the id 'Wake'"),
    ("id with a hole", "TP_ERR_ID", "has the id 'a"),
    ("id of 16", "TP_ERR_ID", "has the id 'aaaaaaaaaaaaaaaa'"),
    ("fingerprint", "TP_ERR_FINGERPRINT", "belongs to base model"),
    ("layout", "TP_ERR_LAYOUT", "other layers or another kind"),
    ("method", "TP_ERR_LAYOUT", "method 0x80, the project's are"),
    ("rank above", "TP_ERR_RANK", "has rank 5, the project takes up to 4"),
    ("rank 0", "TP_ERR_RANK", "has rank 0, the project rank 4"),
    ("payload", "TP_ERR_SIZE", "at rank 2 the project's has"),
    ("truncated", "TP_ERR_TRUNCATED", "is incomplete"),
    ("header alone", "TP_ERR_TRUNCATED", "its header alone 80"),
    ("longer", "TP_ERR_SIZE", "followed by other bytes"),
    ("signature lost", "TP_ERR_TRUNCATED", "is incomplete"),
    ("checksum", "TP_ERR_CHECKSUM", "its checksum does not match"),
    ("digest", "TP_ERR_HASH", "its SHA-256 does not match"),
]


def damaged(package: bytes, what: str) -> bytes:
    """A package of `info()` with one thing wrong, all else as it should be."""
    name = lambda text: text.ljust(16, b"\0")  # noqa: E731
    made = {
        "magic": lambda: changed(package, 0, b"TPAX"),
        "version": lambda: changed(package, 4, b"\x03"),
        "header size": lambda: changed(package, 6, b"\x54"),
        "unknown flag": lambda: changed(package, 76, b"\x04"),
        "reserved": lambda: changed(package, 78, b"\x01"),
        "huge": lambda: changed(package, 8, struct.pack("<I", 0xFFFFFFF0)),
        "no id": lambda: changed(package, 48, name(b"")),
        "id in capitals": lambda: changed(package, 48, name(b"Wake")),
        "id with a hole": lambda: changed(package, 48, name(b"a\0b")),
        "id of 16": lambda: changed(package, 48, b"a" * 16),
        "fingerprint": lambda: changed(package, 12, bytes([package[12] ^ 1])),
        "layout": lambda: changed(package, 44, bytes([package[44] ^ 1])),
        "method": lambda: changed(package, 72, b"\x80"),
        "rank above": lambda: changed(package, 74, b"\x05"),
        "rank 0": lambda: changed(package, 74, b"\x00"),
        "payload": lambda: changed(package, 74, b"\x02"),
        "truncated": lambda: package[:-1],
        "header alone": lambda: package[: HEADER_BYTES - 1],
        "longer": lambda: package + b"\0",
        "signature lost": lambda: changed(package, 76, b"\x01"),
        "checksum": lambda: package[:90] + bytes([package[90] ^ 1]) + package[91:],
        "digest": lambda: package[:-1] + bytes([package[-1] ^ 1]),
    }
    return made[what]()

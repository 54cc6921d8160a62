"""Which packages a firmware takes: the adapter tensors of a model in, tp_package_info's numbers and its checks out."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from tinypeft.errors import AdapterError
from tinypeft.ir import Tensor
from tinypeft.package.format import Package, PackageHeader


@dataclass(frozen=True)
class PackageTensor:
    """An adapter tensor in a package, as tp_package_tensor: `outer` times `rank` times `inner` bytes.

    ranked  it has the rank as an axis, of which a smaller package has the first; else outer and rank are 1
    fixed   a package has all of `rank`, since two ranks share a byte; `inner` are all bytes
    """

    outer: int
    rank: int
    inner: int
    ranked: bool
    fixed: bool

    @property
    def nbytes(self) -> int:
        """Of the whole tensor."""
        return self.inner if self.fixed else self.outer * self.rank * self.inner

    def bytes_at(self, rank: int) -> int:
        """Of what a package of `rank` has of it."""
        return self.outer * min(self.rank, rank) * self.inner if self.ranked and not self.fixed else self.nbytes


@dataclass(frozen=True)
class PackageInfo:
    """What a firmware takes, as tp_package_info; `rank` is the largest."""

    fingerprint: bytes
    layout: int
    method: int
    rank: int
    tensors: tuple[PackageTensor, ...]

    @property
    def payload_bytes(self) -> int:
        """At the largest rank: the size of the adapter in memory."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def payload_at(self, rank: int) -> int:
        """Size of the payload of a package of `rank`."""
        return sum(tensor.bytes_at(rank) for tensor in self.tensors)


def package_info(fingerprint: bytes, tensors: Sequence[Tensor], method: int) -> PackageInfo:
    """The info of firmware with these adapter tensors, in their order."""
    rank = max((rank_of(t) or 0 for t in tensors), default=0)
    described = tuple(_described(tensor) for tensor in tensors)
    return PackageInfo(fingerprint, layout_crc(tensors, rank), method, rank, described)


def rank_of(tensor: Tensor) -> int | None:
    """How many ranks a tensor has; None for one that has no such axis."""
    return None if tensor.rank_axis is None else tensor.shape[tensor.rank_axis]


def layout_crc(tensors: Sequence[Tensor], largest: int) -> int:
    """CRC-32 of the tensors' names, types and shapes.

    A rank that is the model's `largest` is written as r, a smaller one of a layer as r<=rank: it is the same for every
    rank of the model, and packages in which it is the same have the same layout.
    """
    return zlib.crc32(";".join(f"{t.name} {t.dtype} {_shape(t, largest)}" for t in tensors).encode())


def _shape(tensor: Tensor, largest: int) -> str:
    rank = rank_of(tensor)
    written = "r" if rank == largest else f"r<={rank}"
    return ",".join(written if axis == tensor.rank_axis else str(size) for axis, size in enumerate(tensor.shape))


def _described(tensor: Tensor) -> PackageTensor:
    rank, axis = rank_of(tensor), tensor.rank_axis
    if rank is None or axis is None:
        return PackageTensor(1, 1, tensor.nbytes, False, False)
    if tensor.packed:
        return PackageTensor(1, rank, tensor.nbytes, True, True)
    outer = 1
    for size in tensor.shape[:axis]:
        outer *= size
    return PackageTensor(outer, rank, tensor.nbytes // (outer * rank), True, False)


def check_fits(info: PackageInfo, package: Package) -> None:
    """Raise AdapterError where firmware of `info` cannot use a package: the device's checks, in their order."""
    header = package.header
    if header.fingerprint != info.fingerprint:
        raise AdapterError(
            f"the adapter belongs to base model {header.fingerprint.hex()[:12]}, this one is "
            f"{info.fingerprint.hex()[:12]}",
            "train an adapter for this model",
        )
    hint = "generate the project with the adapter's configuration"
    if header.layout != info.layout or header.method != info.method:
        raise AdapterError(
            f"the adapter has other layers or another kind: layout {header.layout:08x} and method {header.method:#x}, "
            f"the project's are {info.layout:08x} and {info.method:#x}",
            hint,
        )
    _check_rank(info, header)
    expected = info.payload_at(header.rank)
    if len(package.payload) != expected:
        raise AdapterError(
            f"the adapter has {len(package.payload):,} B of weights, at rank {header.rank} the project's has "
            f"{expected:,} B",
            hint,
        )


def _check_rank(info: PackageInfo, header: PackageHeader) -> None:
    fixed = max((tensor.rank for tensor in info.tensors if tensor.fixed), default=0)
    if header.rank > info.rank:
        raise AdapterError(
            f"the adapter has rank {header.rank}, the project takes up to {info.rank}",
            f"generate the project with --r {header.rank}",
        )
    if header.rank < fixed or (header.rank == 0) != (info.rank == 0):
        why = ", and 4-bit weights have no room for zeros" if header.rank < fixed else ""
        raise AdapterError(
            f"the adapter has rank {header.rank}, the project rank {info.rank}{why}",
            f"generate the project with --r {max(header.rank, 1)}",
        )


def expand(info: PackageInfo, payload: bytes, rank: int) -> bytes:
    """The payload of a package of `rank` at the largest rank: where ranks are missing there are zeros."""
    expanded, offset = [], 0
    for tensor in info.tensors:
        data = payload[offset : offset + tensor.bytes_at(rank)]
        offset += len(data)
        if len(data) < tensor.nbytes:
            given, whole = len(data) // tensor.outer, tensor.nbytes // tensor.outer
            rows = (data[row * given : (row + 1) * given] for row in range(tensor.outer))
            data = b"".join(row.ljust(whole, b"\0") for row in rows)
        expanded.append(data)
    return b"".join(expanded)

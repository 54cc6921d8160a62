"""The persistent tensors of a model as bytes: the structs in the device's memory, and the adapter package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinypeft.compiler import CompiledModel
from tinypeft.ir import DTYPES, Tensor
from tinypeft.package.format import Identity, PackageHeader, pack, parse
from tinypeft.package.info import check_fits, expand

_UNNAMED = Identity()


def pack_tensors(tensors: Sequence[Tensor], state: dict[str, np.ndarray]) -> bytes:
    """The values of `tensors` one after the other, little-endian: a struct of the generated code without its tail."""
    return b"".join(_little(state[t.name]).tobytes() for t in tensors)


def unpack_tensors(tensors: Sequence[Tensor], data: bytes) -> dict[str, np.ndarray]:
    """The reverse of `pack_tensors`."""
    state: dict[str, np.ndarray] = {}
    offset = 0
    for tensor in tensors:
        dtype: Any = np.dtype(DTYPES[tensor.dtype]).newbyteorder("<")
        count = tensor.nbytes // dtype.itemsize
        values: np.ndarray = np.frombuffer(data, dtype, count, offset).astype(DTYPES[tensor.dtype])
        state[tensor.name] = values if tensor.packed else values.reshape(tensor.shape)
        offset += tensor.nbytes
    return state


def pack_adapter(model: CompiledModel, state: dict[str, np.ndarray], identity: Identity = _UNNAMED) -> bytes:
    """The unsigned package of the adapter in `state`, as the device exports it."""
    info = model.package_info
    header = PackageHeader(identity, info.fingerprint, info.layout, info.method, info.rank)
    return pack(header, pack_tensors(model.adapter_weights, state))


def unpack_adapter(model: CompiledModel, package: bytes) -> dict[str, np.ndarray]:
    """The adapter weights in a package; where its rank is smaller than the model's, zeros fill the tensors.

    AdapterError: damaged, of another model or configuration, of a rank above the model's. Signatures are not checked.
    """
    info, parsed = model.package_info, parse(package)
    check_fits(info, parsed)
    return unpack_tensors(model.adapter_weights, expand(info, parsed.payload, parsed.header.rank))


def pad_package(model: CompiledModel, package: bytes) -> bytes:
    """The same adapter in a package of the model's own rank, unsigned. AdapterError: as of `unpack_adapter`."""
    return pack_adapter(model, unpack_adapter(model, package), parse(package).header.identity)


def _little(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"))

"""The persistent tensors of a model as bytes: the structs in the device's memory, and the adapter package."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinypeft.codegen.sources import layout_crc
from tinypeft.compiler import PACKAGE_OVERHEAD, CompiledModel
from tinypeft.errors import AdapterError
from tinypeft.ir import DTYPES, Tensor

_HEADER = struct.Struct("<4sHHI32sII")
_MAGIC, _VERSION = b"TPAD", 1


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


def pack_adapter(model: CompiledModel, state: dict[str, np.ndarray]) -> bytes:
    """The adapter package of `state` (its bytes: tinypeft/tp_package.h)."""
    payload = pack_tensors(model.adapter_weights, state)
    layout = layout_crc(model.adapter_weights)
    header = _HEADER.pack(_MAGIC, _VERSION, _HEADER.size, len(payload), model.fingerprint, layout, 0)
    covered = header + payload
    return covered + struct.pack("<I", zlib.crc32(covered))


def describe_package(path: Path) -> dict[str, Any]:
    """What a package's header says, of any model; AdapterError where the file is none or is damaged."""
    try:
        package = path.read_bytes()
    except OSError as error:
        raise AdapterError(f"cannot read {path}: {error.strerror}", "give an adapter's folder or package") from error
    fingerprint, layout = _check(package)
    size = len(package) - PACKAGE_OVERHEAD
    return {"format": _VERSION, "fingerprint": fingerprint.hex(), "layout_crc": layout, "payload_bytes": size}


def unpack_adapter(model: CompiledModel, package: bytes) -> dict[str, np.ndarray]:
    """The adapter weights in a package; raises AdapterError where it is damaged or belongs to another model."""
    fingerprint, layout = _check(package)
    if fingerprint != model.fingerprint:
        raise AdapterError(
            f"the adapter belongs to base model {fingerprint.hex()[:12]}, this one is {model.fingerprint.hex()[:12]}",
            "train an adapter for this model",
        )
    if layout != layout_crc(model.adapter_weights):
        found, expected = len(package) - PACKAGE_OVERHEAD, model.adapter_bytes
        raise AdapterError(
            f"the adapter has other layers or another rank: {found:,} B of weights, the project's has {expected:,} B",
            "generate the project with the adapter's configuration",
        )
    return unpack_tensors(model.adapter_weights, package[_HEADER.size : -4])


def _check(package: bytes) -> tuple[bytes, int]:
    """(fingerprint, CRC of the layout) of a package; AdapterError where it is damaged."""
    if len(package) < PACKAGE_OVERHEAD or package[:4] != _MAGIC:
        raise AdapterError(f"these {len(package)} bytes are no adapter package", "give the file adapter.bin")
    _, version, header, size, fingerprint, layout, _ = _HEADER.unpack_from(package)
    if version != _VERSION or header != _HEADER.size or size != len(package) - PACKAGE_OVERHEAD:
        raise AdapterError(f"the adapter package has format {version} and {len(package)} bytes, its header says {size}")
    if struct.unpack("<I", package[-4:])[0] != zlib.crc32(package[:-4]):
        raise AdapterError("the adapter package is damaged: its checksum does not match", "copy it again")
    return fingerprint, layout


def _little(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"))

"""The values of requests and answers, checked."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, TypeVar

from tinypeft.errors import DeviceError

_T = TypeVar("_T")


def unsigned(what: str, value: int) -> int:
    """The value; DeviceError unless it has 32 bits."""
    if not 0 <= value < 1 << 32:
        raise DeviceError(f"{what} {value} is not an unsigned 32-bit number")
    return value


def signed(what: str, value: int) -> int:
    """The value; DeviceError unless it has 32 bits with its sign."""
    if not -(1 << 31) <= value < 1 << 31:
        raise DeviceError(f"{what} {value} is not a signed 32-bit number")
    return value


def float32(what: str, value: float) -> float:
    """The nearest float32; DeviceError beyond the largest."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        raise DeviceError(f"{what} {value:g} is beyond float32") from None


def label_of(target: int | bytes | None) -> dict[str, Any]:
    """What a request holds of a target; 0 where that is no label."""
    return {"label": signed("label", target) if isinstance(target, int) else 0}


def step_of(target: int | bytes | None, learning_rate: float) -> dict[str, Any]:
    """What a request of a training step holds."""
    return label_of(target) | {"rate": float32("learning rate", learning_rate)}


def value_of(found: Mapping[str, Any], key: str, kind: type[_T], title: str) -> _T:
    """A value of an answer; DeviceError where it is absent or of another type."""
    value = found.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        keys = ", ".join(map(str, found)) or "nothing"
        raise DeviceError(f"{title}: an answer without {key!r}, it has {keys}", "build the firmware again")
    return value


def number_of(found: Mapping[str, Any], key: str, title: str) -> int:
    """An integer of an answer; DeviceError without."""
    return value_of(found, key, int, title)

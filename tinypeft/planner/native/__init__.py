"""The exact search in C, built from `search.c` on first use: the results of `exact.search`, some fifty times sooner."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from tinypeft.host_library import build_library
from tinypeft.planner.exact import Outcome, Rule, Verdict
from tinypeft.planner.packing import Packing

_SOURCE = Path(__file__).resolve().parent / "search.c"
_VERDICTS = (Verdict.FOUND, Verdict.IMPOSSIBLE, Verdict.UNDECIDED)
_Stop = ctypes.CFUNCTYPE(ctypes.c_int)
_Int32s, _Int64s = ctypes.POINTER(ctypes.c_int32), ctypes.POINTER(ctypes.c_int64)


class _NativePacking(ctypes.Structure):
    _fields_ = [
        ("count", ctypes.c_int32),
        ("sections", ctypes.c_int32),
        ("sizes", _Int64s),
        ("pins", _Int64s),
        ("first", _Int32s),
        ("last", _Int32s),
        ("order", _Int32s),
        ("totals", _Int64s),
        ("member_starts", _Int32s),
        ("members", _Int32s),
        ("neighbour_starts", _Int32s),
        ("neighbours", _Int32s),
    ]


@functools.cache
def _library() -> tuple[ctypes.CDLL | None, str | None]:
    path, reason = build_library(_SOURCE, purpose="packing search")
    if path is None:
        return None, reason
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return None, f"the packing search could not be loaded: {error}"
    library.tp_search.argtypes = [
        ctypes.POINTER(_NativePacking),
        ctypes.c_int64,
        _Int32s,
        ctypes.c_int,
        ctypes.c_int64,
        _Stop,
        _Int64s,
        _Int64s,
    ]
    return library, None


def why_not_native() -> str | None:
    """Why the search can't run in C here; None where it can."""
    return _library()[1]


def search(
    packing: Packing,
    capacity: int,
    rank: Sequence[int],
    rule: Rule,
    limit: int,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """As `exact.search`, which says what goes in; only where `why_not_native()` is None."""
    library, reason = _library()
    assert library is not None, reason
    count = len(packing.sizes)
    offsets, nodes = (ctypes.c_int64 * count)(), ctypes.c_int64(0)
    raised: list[BaseException] = []

    def asked() -> int:
        try:
            return int(stop())
        except BaseException as error:  # Ctrl-C arrives here, and can't pass through C
            raised.append(error)
            return 1

    verdict = library.tp_search(
        ctypes.byref(_native(packing)),
        capacity,
        _int32s(rank),
        rule.value,
        limit,
        _Stop(asked),
        offsets,
        ctypes.byref(nodes),
    )
    if raised:
        raise raised[0]
    if verdict >= len(_VERDICTS):
        raise MemoryError
    found = _VERDICTS[verdict] is Verdict.FOUND
    return Outcome(_VERDICTS[verdict], list(offsets) if found else [], nodes.value)


@functools.lru_cache(maxsize=4)
def _native(packing: Packing) -> _NativePacking:
    return _NativePacking(
        len(packing.sizes),
        len(packing.totals),
        _int64s(packing.sizes),
        _int64s(packing.pins),
        _int32s(packing.first),
        _int32s(packing.last),
        _int32s(packing.order),
        _int64s(packing.totals),
        *_flat(packing.members),
        *_flat(packing.neighbours),
    )


def _flat(lists: Sequence[Sequence[int]]) -> tuple[ctypes.Array, ctypes.Array]:
    starts = [0]
    for values in lists:
        starts.append(starts[-1] + len(values))
    return _int32s(starts), _int32s([value for values in lists for value in values])


def _int32s(values: Sequence[int]) -> ctypes.Array:
    return (ctypes.c_int32 * len(values))(*values)


def _int64s(values: Sequence[int]) -> ctypes.Array:
    return (ctypes.c_int64 * len(values))(*values)

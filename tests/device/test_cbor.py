"""The device's CBOR: the reader against cbor2, floats against NumPy, requests against their rules."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinypeft.resources import resource_path

RUNTIME = resource_path("firmware", "runtime")
SANITIZERS = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
KEYS = dict(
    re.findall(
        r'X\(\w+, "(\w+)", (\w+)\)',
        resource_path("firmware", "include", "tinypeft", "tp_request.h").read_text(),
    )
)
DEPTH = 8
Reader = Callable[[list[bytes]], list[str]]


@pytest.fixture(scope="module")
def read(compile_c, tmp_path_factory) -> Reader:
    """documents -> what cbor_program.c prints of each."""
    program = tmp_path_factory.mktemp("cbor") / "program"
    sources = [RUNTIME / "tp_cbor.c", RUNTIME / "tp_request.c", Path(__file__).with_name("cbor_program.c")]
    compile_c("gcc", *SANITIZERS, *sources, "-o", program)

    def run(documents: list[bytes]) -> list[str]:
        stdin = b"".join(len(document).to_bytes(2, "little") + document for document in documents)
        result = subprocess.run([program], input=stdin, capture_output=True, timeout=60)
        assert result.returncode == 0, result.stderr.decode()
        lines = result.stdout.decode().splitlines()
        assert len(lines) == len(documents)
        return lines

    return run


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 64), (1 << 64) - 1)
    | st.floats()
    | st.binary(max_size=20)
    | st.text(max_size=10)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def encoded(value: Any, indefinite: bool) -> bytes:
    """As cbor2, or with every array, map and string of indefinite length."""
    if not indefinite or not isinstance(value, list | dict | bytes | str):
        return cbor2.dumps(value)
    if isinstance(value, list):
        return b"\x9f" + b"".join(encoded(v, True) for v in value) + b"\xff"
    if isinstance(value, dict):
        return b"\xbf" + b"".join(encoded(k, True) + encoded(v, True) for k, v in value.items()) + b"\xff"
    cut = len(value) // 2
    first = b"\x5f" if isinstance(value, bytes) else b"\x7f"
    return first + cbor2.dumps(value[:cut]) + cbor2.dumps(value[cut:]) + b"\xff"


def nesting(value: Any) -> int:
    inner = value if isinstance(value, list) else [*value.values()] if isinstance(value, dict) else None
    return 0 if inner is None else 1 + max(map(nesting, inner), default=0)


@settings(deadline=None, max_examples=60)
@given(values=st.lists(st.tuples(VALUES, st.booleans()), min_size=1, max_size=30))
def test_whole_documents_are_read_to_their_end(read, values):
    documents = [encoded(value, indefinite) for value, indefinite in values]
    for (value, _), document, line in zip(values, documents, read(documents), strict=True):
        assert line.startswith(f"w{int(nesting(value) <= DEPTH)}"), document.hex()
    cut = [document[:-1] for document in documents]
    assert all(line.startswith("w0") for line in read(cut))
    assert all(line.startswith("w0") for line in read([document + b"\0" for document in documents]))


@settings(deadline=None, max_examples=60)
@given(documents=st.lists(st.binary(max_size=40), min_size=1, max_size=60))
def test_what_cbor2_takes_is_taken(read, documents):
    for document, line in zip(documents, read(documents), strict=True):
        try:
            value = cbor2.loads(document)
        except Exception:  # of form, of a tag's content, or of a text
            continue
        whole = consumed(document) == len(document) and nesting(value) <= DEPTH
        assert line.startswith("w1") or not whole, (document.hex(), line)


def consumed(document: bytes) -> int:
    """How many bytes cbor2 takes of it."""
    for length in range(1, len(document) + 1):
        try:
            cbor2.loads(document[:length])
        except Exception:
            continue
        return length
    return 0


def test_what_is_not_well_formed(read):
    documents = [
        bytes.fromhex(text)
        for text in (
            *"1c 1d 1e 1f 3c 3f 5c 7e 9d be dc df fc fd fe ff 18 19 1a000000 41 61 5a000001 81 9f bf 5f c0".split(),
            *"8200 a100 a2000000 9f00 bf00ff bf000000ff 5f00ff 5f6161ff 5f5f40ffff 7f4161ff c0ff 9fc0ffff f800".split(),
            *"f81f 9bffffffffffffffff bb7fffffffffffffff 5bffffffffffffffff 0000 f9 f900 fa000000 fb00".split(),
            *"1b00000000000000 7b0000000000000001 9f8200ff 81ff a1ff00 a100ff 6301ff".split(),
        )
    ]
    for document, line in zip(documents, read(documents), strict=True):
        assert line.startswith("w0"), document.hex()
        with pytest.raises(Exception):  # noqa: B017 - cbor2 has many
            assert consumed(document) == len(document)


def test_nesting_is_bounded(read):
    depths = range(1, 20)
    lists = [b"\x81" * (depth - 1) + b"\x80" for depth in depths]
    maps = [b"\xbf\x00" * (depth - 1) + b"\xa0" + b"\xff" * (depth - 1) for depth in depths]
    tags = [b"\xc1" * 30 + b"\x00"]
    for documents in (lists, maps):
        assert [line[:2] for line in read(documents)] == ["w1" if depth <= DEPTH else "w0" for depth in depths]
    assert read(tags)[0].startswith("w1")


def bits_of(line: str) -> int:
    found = re.search(r" f([0-9a-f]{8})", line)
    assert found, line
    return int(found[1], 16)


def check_floats(read: Reader, documents: list[bytes], values: list[float]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = np.array(values, np.float64).astype(np.float32)
    found = np.array([bits_of(line) for line in read(documents)], np.uint32).view(np.float32)
    same = (wanted.view(np.uint32) == found.view(np.uint32)) | (np.isnan(wanted) & np.isnan(found))
    assert same.all(), [(documents[i].hex(), wanted[i], found[i]) for i in np.flatnonzero(~same)[:5]]


def test_every_half_float(read):
    halves = np.arange(1 << 16, dtype=np.uint16)
    check_floats(
        read, [b"\xf9" + int(h).to_bytes(2, "big") for h in halves], halves.view(np.float16).astype(float).tolist()
    )


def test_doubles_at_every_edge(read):
    """Ties, the largest, the smallest and their halves, and random bits around all exponents of float32."""
    rng = np.random.default_rng(0)
    exact = rng.integers(0, 0x7F800000, 4000).astype(np.uint32)
    exact = np.concatenate([exact, [0, 1, 2, 0x7FFFFF, 0x800000, 0x800001, 0x7F7FFFFE, 0x7F7FFFFF]]).astype(np.uint32)
    low = exact.view(np.float32).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        high = np.nextafter(exact.view(np.float32), np.float32(np.inf)).astype(np.float64)
        tie = np.where(np.isfinite(high), (low + high) / 2, 2.0**128 - 2.0**103)
    values = np.concatenate([low, tie, np.nextafter(tie, 0), np.nextafter(tie, np.inf)])
    wide = rng.integers(0, 1 << 64, 4000, dtype=np.uint64).view(np.float64)
    tiny = [2.0**-149, 2.0**-150, np.nextafter(2.0**-150, 1), 2.0**-151, 2.0**-1074, 5e-324, 2.0**-1022, 0.0]
    values = np.concatenate([values, -values, wide, tiny, [np.inf, -np.inf, np.nan, -0.0, 1e39, 3.4028235677973366e38]])
    check_floats(read, [b"\xfb" + struct.pack(">d", value) for value in values], values.tolist())
    singles = [*exact.view(np.float32).tolist(), float("nan"), float("inf"), -0.0]
    check_floats(read, [b"\xfa" + struct.pack(">f", value) for value in singles], singles)


def test_integers_as_floats(read):
    numbers = [0, 1, -1, 23, 24, 255, 1 << 24, (1 << 24) + 1, (1 << 24) + 3, (1 << 25) + 2, (1 << 25) + 6]
    numbers += [-(1 << 24) - 1, (1 << 63) - 1, (1 << 64) - 1, -(1 << 63), -(1 << 64), (1 << 64) - (1 << 39)]
    documents = [cbor2.dumps(number) for number in numbers]
    found = np.array([bits_of(line) for line in read(documents)], np.uint32).view(np.float32)
    assert found.tolist() == [float(nearest(number)) for number in numbers]


def nearest(number: int) -> int:
    """The nearest multiple of a float32's last place, ties to even."""
    size = abs(number)
    unit = 1 << max(size.bit_length() - 24, 0)
    quotient, rest = divmod(size, unit)
    quotient += 2 * rest > unit or (2 * rest == unit and quotient % 2)
    return quotient * unit * (-1 if number < 0 else 1)


# Requests

OF_TYPE = {
    "U32": st.integers(0, (1 << 32) - 1),
    "S32": st.integers(-(1 << 31), (1 << 31) - 1),
    "FLOAT": st.floats(width=32, allow_nan=False),
    "BOOL": st.booleans(),
    "BYTES": st.binary(max_size=30),
    "TEXT": st.text(max_size=10),
}


def printed(value: Any, kind: str) -> str:
    if kind == "FLOAT":
        return struct.pack(">f", value).hex()
    if kind in ("BYTES", "TEXT"):
        return (value if kind == "BYTES" else value.encode()).hex()
    return str(int(value))


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(st.sampled_from(sorted(KEYS)), unique=True))
    known = {name: draw(OF_TYPE[KEYS[name]]) for name in names}
    unknown = draw(st.dictionaries(st.text(max_size=4).filter(lambda key: key not in KEYS), VALUES, max_size=3))
    items = [*known.items(), *((key, value) for key, value in unknown.items() if nesting(value) <= DEPTH)]
    return dict(draw(st.permutations(items)))


@settings(deadline=None, max_examples=100)
@given(found=st.lists(requests(), min_size=1, max_size=20), indefinite=st.booleans(), canonical=st.booleans())
def test_requests_in_any_order_with_unknown_keys(read, found, indefinite, canonical):
    documents = [cbor2.dumps(request, canonical=canonical) for request in found]
    if indefinite:
        documents = [
            b"\xbf" + b"".join(cbor2.dumps(k) + cbor2.dumps(v) for k, v in request.items()) + b"\xff"
            for request in found
        ]
    for request, line in zip(found, read(documents), strict=True):
        pairs = [f" {name}={printed(request[name], kind)}" for name, kind in KEYS.items() if name in request]
        assert line.endswith(" r1" + "".join(pairs)), (request, line)
    cut = [document[:-1] for document in documents if len(document) > 1]
    assert all(" r0" in line for line in read(cut))


WRONG: dict[str, list[Any]] = {
    "U32": [-1, 1 << 32, 1.0, True, "1", b"1", [1], {}],
    "S32": [1 << 31, -(1 << 31) - 1, 1.0, False, "", b""],
    "FLOAT": [True, "1.0", b"", [1.0]],
    "BOOL": [0, 1, 0.0, "", cbor2.undefined],
    "BYTES": ["text", 1, [1]],
    "TEXT": [b"bytes", 1, {"a": 1}],
}


def test_wrong_types_double_keys_and_null(read):
    for name, kind in KEYS.items():
        wrong = [cbor2.dumps({name: value}) for value in WRONG[kind]]
        wrong.append(cbor2.dumps({name: cbor2.CBORTag(99, 1)}))
        wrong.append(b"\xa2" + 2 * (cbor2.dumps(name) + cbor2.dumps(None)))
        wrong.append(b"\xa1" + cbor2.dumps(name) + b"\x5f\x40\xff")
        assert all(line.endswith(" r0") for line in read(wrong)), name
        assert read([cbor2.dumps({name: None})]) == ["w1 r1"]


def test_a_request_is_one_map(read):
    documents = [
        b"",
        b"\xa0",
        b"\xbf\xff",
        b"\xa1\x00\x00",
        b"\xa1\x80\xa0",
        b"\x80",
        b"\x00",
        b"\xa0\xa0",
        b"\xbf\xff\x00",
    ]
    documents += [b"\xa1\x7f\x61a\xff\x00", b"\xa1\xff\x00", b"\xbf\x61a\xff", b"\xc1\xa0", b"\xf6"]
    valid = [line.split()[-1] for line in read(documents)]
    assert valid == ["r1"] * 5 + ["r0"] * 4 + ["r1"] + ["r0"] * 4

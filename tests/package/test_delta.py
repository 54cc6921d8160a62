"""Deltas: host and device decode the same, small changes cost little, nothing that arrives leads them astray."""

from __future__ import annotations

import struct

import c_package
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packages import info, package_for

from tinypeft.errors import AdapterError
from tinypeft.package.delta import (
    HEADER_BYTES,
    apply_delta,
    decode_delta,
    describe_delta,
    diff,
    encode_delta,
    parse_delta,
)
from tinypeft.package.format import Identity, PackageHeader, pack, parse

_BYTES = st.binary(max_size=400)


def changed_package(package: bytes, share: float, most: int, seed: int = 0, version: int = 4) -> bytes:
    """The same adapter after training: a share of its values moved by up to `most`, as the next version."""
    rng, parsed = np.random.default_rng(seed), parse(package)
    values = np.frombuffer(parsed.payload, np.int8).astype(np.int64)
    moved = rng.choice(values.size, int(values.size * share), replace=False)
    values[moved] += rng.integers(1, most + 1, moved.size) * rng.choice([-1, 1], moved.size)
    header = parsed.header
    newer = PackageHeader(
        Identity(header.identity.id, version, 7), header.fingerprint, header.layout, header.method, header.rank
    )
    return pack(newer, (values & 0xFF).astype(np.uint8).tobytes())


def package_of(payload_bytes: int, seed: int = 0) -> bytes:
    """A package of int8 values, bell-shaped as trained ones are."""
    values = np.clip(np.random.default_rng(seed).normal(0, 35, payload_bytes), -127, 127).astype(np.int8)
    return pack(PackageHeader(Identity("wake-word", 3, 7), bytes(range(32)), 1, 1, 4), values.tobytes())


@given(_BYTES, st.binary(min_size=1, max_size=400), st.integers(1, 500))
@settings(max_examples=150, deadline=None)
def test_any_pair(old: bytes, new: bytes, piece: int) -> None:
    delta = encode_delta(old, new)
    assert decode_delta(old, delta, parse_delta(delta)) == new
    assert c_package.apply_delta(old, delta, piece) == ("TP_OK", new)


@given(st.binary(min_size=1, max_size=600), st.data())
@settings(max_examples=100, deadline=None)
def test_pairs_that_have_much_in_common(old: bytes, data: st.DataObject) -> None:
    new = bytearray(old)
    for _ in range(data.draw(st.integers(0, 8))):
        new[data.draw(st.integers(0, len(new) - 1))] = data.draw(st.integers(0, 255))
    new = bytes(new) + data.draw(st.binary(max_size=40))
    delta = encode_delta(old, new)
    assert decode_delta(old, delta, parse_delta(delta)) == new
    assert c_package.apply_delta(old, delta) == ("TP_OK", new)


@given(_BYTES, st.integers(1, 500), st.binary(max_size=200), st.integers(1, 60))
@settings(max_examples=150, deadline=None)
def test_any_bytes_are_decoded_alike_and_end(old: bytes, new_bytes: int, coded: bytes, piece: int) -> None:
    """The same bytes come out of both, or both say that there are too few, or too many."""
    honest = encode_delta(old, b"x")
    delta = honest[:12] + struct.pack("<I", new_bytes) + honest[16:HEADER_BYTES] + coded
    status, new = c_package.apply_delta(old, delta, piece)
    assert len(new) <= new_bytes
    try:
        assert decode_delta(old, delta, parse_delta(delta)) == new and status == "TP_OK"
    except AdapterError as error:
        if "claims to make" not in error.message:
            expected = "TP_ERR_TRUNCATED" if "incomplete" in error.message else "TP_ERR_SIZE"
            assert status == expected and "the delta is" in error.message


@pytest.mark.parametrize(("most", "limit"), [(1, 400), (2, 450), (4, 500)])
def test_a_tenth_of_an_adapter_of_4096_bytes(most: int, limit: int) -> None:
    old = package_of(4096)
    for seed in range(3):
        delta = diff(old, changed_package(old, 0.1, most, seed))
        assert len(delta) <= limit, f"{len(delta)} bytes"


def test_the_same_packages_give_the_same_small_delta() -> None:
    old = package_for(info())
    new = changed_package(old, 0.02, 3)
    delta = diff(old, new)
    assert delta == diff(old, new) and len(delta) < len(new)
    assert apply_delta(old, delta) == new and c_package.apply_delta(old, delta) == ("TP_OK", new)
    assert len(diff(old, old)) < HEADER_BYTES + 16
    described = describe_delta(delta)
    assert (described["old_bytes"], described["new_bytes"]) == (len(old), len(new))
    assert described["old_sha256"] == parse_delta(delta).old_digest.hex() and described["delta_bytes"] == len(delta)


def test_what_has_nothing_in_common_is_refused() -> None:
    old, new = (
        pack(PackageHeader(Identity(), bytes(32), 1, 1, 4), np.random.default_rng(n).bytes(3000)) for n in (1, 2)
    )
    with pytest.raises(AdapterError, match=r"the delta has [0-9,]+ B, the new package itself 3,116 B") as error:
        diff(old, new)
    assert error.value.hint == "send the new package"
    with pytest.raises(AdapterError, match="are no adapter package"):
        diff(old, b"nothing")
    with pytest.raises(AdapterError, match="are no adapter package"):
        diff(b"nothing", new)


def test_another_old_package_is_refused() -> None:
    old = package_of(300)
    delta = diff(old, changed_package(old, 0.1, 2))
    for other in (package_of(300, 1), old + b"\0", old[:-1]):
        assert c_package.apply_delta(other, delta) == ("TP_ERR_DELTA", b"")
        with pytest.raises(AdapterError, match="is for a package of 416 B whose SHA-256 begins with"):
            apply_delta(other, delta)


def test_cut_and_prolonged_deltas() -> None:
    old = package_of(300)
    new = changed_package(old, 0.1, 2)
    delta = diff(old, new)
    for length in range(HEADER_BYTES, len(delta)):
        assert c_package.apply_delta(old, delta[:length])[0] == "TP_ERR_TRUNCATED", length
    with pytest.raises(AdapterError, match="the delta is incomplete"):
        apply_delta(old, delta[:-1])
    assert c_package.apply_delta(old, delta + b"\0") == ("TP_ERR_SIZE", new)
    with pytest.raises(AdapterError, match="followed by other bytes"):
        apply_delta(old, delta + b"\0")


def test_headers_that_are_none() -> None:
    old = package_of(300)
    delta = diff(old, changed_package(old, 0.1, 2))
    wrong = {
        "are no delta": b"TPDX" + delta[4:],
        "has format 2": delta[:4] + b"\x02" + delta[5:],
        "with a header of 33 bytes": delta[:6] + b"\x21" + delta[7:],
        "claims to make 0": delta[:12] + bytes(4) + delta[16:],
    }
    for text, data in wrong.items():
        assert c_package.apply_delta(old, data)[0] == "TP_ERR_FORMAT", text
        with pytest.raises(AdapterError, match=text) as error:
            apply_delta(old, data)
        assert error.value.hint
    with pytest.raises(AdapterError, match="claims to make 4,294,967,295"):
        apply_delta(old, delta[:12] + b"\xff" * 4 + delta[16:])
    with pytest.raises(AdapterError, match="are no delta"):
        apply_delta(old, delta[: HEADER_BYTES - 1])


def test_a_flipped_bit_gives_the_new_package_or_none() -> None:
    """A delta has no checksum: the package that it makes has. Its last bits may be more than are needed."""
    old = package_for(info())
    new = changed_package(old, 0.1, 2)
    delta, harmless = diff(old, new), 0
    for position in range(HEADER_BYTES, len(delta)):
        damaged = delta[:position] + bytes([delta[position] ^ 1 << position % 8]) + delta[position + 1 :]
        status, made = c_package.apply_delta(old, damaged)
        if status == "TP_OK" and c_package.verify(info(), made)[0] == "TP_OK":
            assert made == new == apply_delta(old, damaged)
            harmless += 1
            continue
        with pytest.raises(AdapterError):
            apply_delta(old, damaged)
    assert harmless <= 4


def test_failing_flash_is_passed_on() -> None:
    old = package_of(300)
    delta = diff(old, changed_package(old, 0.1, 2))
    status, made = c_package.apply_delta(old, delta, sink_fails_at=100)
    assert status == "TP_ERR_FLASH" and len(made) == 128
    assert c_package.apply_delta(old, delta, old_fails_at=200)[0] == "TP_ERR_FLASH"

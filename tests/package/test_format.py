"""The package's bytes: device and host write the same, and give the same reason where they refuse one."""

from __future__ import annotations

import hashlib
import hmac
import re

import c_package
import packages
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packages import DAMAGES, changed, damaged, info, int4_info, package_for

from tinypeft.adapters import ADAPTERS
from tinypeft.errors import AdapterError
from tinypeft.package.describe import describe_package
from tinypeft.package.format import (
    HEADER_BYTES,
    OVERHEAD_BYTES,
    SIGNATURE_BYTES,
    Identity,
    parse,
    to_be_signed,
    with_identity,
)
from tinypeft.package.info import check_fits
from tinypeft.resources import resource_path


@given(st.lists(st.binary(max_size=200), max_size=4))
@settings(max_examples=60, deadline=None)
def test_sha256(pieces: list[bytes]) -> None:
    assert c_package.sha256(*pieces) == hashlib.sha256(b"".join(pieces)).digest()


def test_sha256_of_every_length_around_a_block() -> None:
    for length in range(130):
        data = bytes(range(length))
        assert c_package.sha256(data) == hashlib.sha256(data).digest(), length


@given(st.binary(max_size=64), st.binary(max_size=100), st.one_of(st.none(), st.binary(max_size=100)))
@settings(max_examples=40, deadline=None)
def test_hmac(key: bytes, first: bytes, second: bytes | None) -> None:
    expected = hmac.digest(key, first + (second or b""), "sha256")
    assert c_package.hmac_sha256(key, first, second) == expected


@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.from_regex(r"[a-z0-9._-]{1,15}", fullmatch=True))
@settings(max_examples=30, deadline=None)
def test_host_and_device_write_the_same_bytes(rank: int, number: int, name: str) -> None:
    of, identity = info(rank), Identity(name, number, number // 3)
    package = package_for(of, identity=identity)
    payload = package[HEADER_BYTES : HEADER_BYTES + of.payload_bytes]
    assert len(package) == OVERHEAD_BYTES + of.payload_bytes
    assert c_package.write(of, identity, payload, len(package)) == ("TP_OK", package)
    status, header = c_package.verify(of, package)
    assert status == "TP_OK"
    assert bytes(header.identity.id) == name.encode().ljust(16, b"\0")
    assert (header.identity.version, header.identity.counter) == (number, number // 3)
    assert (header.method, header.rank, header.flags) == (of.method, rank, 0)
    assert (header.payload_bytes, header.package_bytes) == (len(payload), len(package))
    assert c_package.load(of, package, header) == ("TP_OK", payload)
    parsed = parse(package)
    check_fits(of, parsed)
    assert parsed.header.identity == identity and parsed.payload == payload and not parsed.signature


def test_a_device_that_is_given_no_identity_writes_the_default() -> None:
    of, payload = info(), bytes(info().payload_bytes)
    size = len(payload) + OVERHEAD_BYTES
    status, package = c_package.write(of, None, payload, size)
    assert status == "TP_OK" and parse(package).header.identity == Identity()
    assert c_package.write(of, None, payload, size - 1)[0] == "TP_ERR_SIZE"
    assert c_package.write(of, None, payload, 10)[0] == "TP_ERR_SIZE"
    broken = Identity()
    object.__setattr__(broken, "id", "No")
    assert c_package.write(of, broken, payload, size)[0] == "TP_ERR_ID"


@pytest.mark.parametrize(("what", "code", "text"), DAMAGES, ids=[what for what, _, _ in DAMAGES])
def test_each_fault_has_its_own_reason(what: str, code: str, text: str) -> None:
    of, package = info(), damaged(package_for(info()), what)
    assert c_package.verify(of, package)[0] == code
    with pytest.raises(AdapterError, match=re.escape(text)) as error:
        check_fits(of, parse(package))
    assert error.value.hint


def test_every_cut_and_every_flipped_bit_is_refused() -> None:
    of, package = info(2), package_for(info(2))
    for length in range(len(package)):
        assert c_package.verify(of, package[:length])[0] == "TP_ERR_TRUNCATED", length
        with pytest.raises(AdapterError):
            parse(package[:length])
    for position in range(len(package)):
        for bit in range(8):
            flipped = bytearray(package)
            flipped[position] ^= 1 << bit
            assert c_package.verify(of, bytes(flipped))[0] != "TP_OK", (position, bit)
            with pytest.raises(AdapterError):
                check_fits(of, parse(bytes(flipped)))


def test_ids_on_host_and_device() -> None:
    for name in ("", "A", "a b", "ä", "a" * 16, "a/b", "a\0b"):
        with pytest.raises(AdapterError, match="is no adapter id"):
            Identity(name)
    for version, counter in ((-1, 0), (0, -1), (2**32, 0), (0, 2**32)):
        with pytest.raises(AdapterError, match="the limits are 0 and 4294967295"):
            Identity("a", version, counter)
    valid = c_package.library().tp_id_valid
    assert all(valid(name.ljust(16, b"\0")) for name in (b"a", b"a" * 15, b"a.b_c-9"))
    assert not any(valid(name) for name in (bytes(16), b"a" * 16, b"a\0b".ljust(16, b"\0"), b"A".ljust(16, b"\0")))


def test_a_failing_flash_is_passed_on() -> None:
    of, package = info(), package_for(info())
    _, header = c_package.verify(of, package)
    for position in range(0, len(package), 13):
        assert c_package.verify(of, package, fails_at=position)[0] == "TP_ERR_FLASH", position
        if position < len(package) - 32:
            assert c_package.load(of, package, header, fails_at=position)[0] == "TP_ERR_FLASH", position


def test_nothing_is_read_in_pieces_above_64_bytes() -> None:
    of, package, lengths = info(), package_for(info()), []
    _, header = c_package.verify(of, package, longest=lengths)
    c_package.load(of, package, header, longest=lengths)
    assert max(lengths) <= 64


def test_a_byte_that_turns_after_the_check_is_seen_while_loading() -> None:
    of, package = info(), package_for(info())
    _, header = c_package.verify(of, package)
    assert c_package.load(of, damaged(package, "checksum"), header)[0] == "TP_ERR_CHECKSUM"


def test_signatures_are_asked_for() -> None:
    of, package = info(), package_for(info())
    signed = to_be_signed(package) + b"\x11" * SIGNATURE_BYTES
    parsed, asked = parse(signed), []

    def accepts(digest: bytes, signature: bytes) -> int:
        asked.append((digest, signature))
        return 0

    assert parsed.signature == b"\x11" * SIGNATURE_BYTES and parsed.header == parse(package).header
    assert c_package.verify(of, signed)[0] == "TP_OK", "who has no key takes a signed package"
    assert c_package.verify(of, signed, accepts)[0] == "TP_OK"
    assert asked == [(hashlib.sha256(signed[: -SIGNATURE_BYTES - 32]).digest(), parsed.signature)]
    assert c_package.verify(of, signed, lambda *_: c_package.STATUS["TP_ERR_SIGNATURE"])[0] == "TP_ERR_SIGNATURE"
    assert c_package.verify(of, package, accepts)[0] == "TP_ERR_SIGNATURE", "unsigned"
    assert to_be_signed(signed) == signed[:-SIGNATURE_BYTES]
    assert with_identity(signed, Identity("b")) == with_identity(package, Identity("b"))


def test_a_package_is_described() -> None:
    package = package_for(info())
    described = describe_package(package)
    assert described["id"] == "wake-word" and described["version"] == 3 and described["security_counter"] == 7
    assert described["adapters"] == ["lora", "modules_to_save"] and not described["signed"]
    assert described["package_bytes"] == len(package) == described["payload_bytes"] + OVERHEAD_BYTES
    assert describe_package(changed(package, 72, b"\x01\x70"))["adapters"] == ["lora", "0x7000"]


def test_method_bits_are_those_of_the_header() -> None:
    text = resource_path("firmware", "include", "tinypeft", "tp_package.h").read_text()
    bits = {name.lower(): int(value, 16) for name, value in re.findall(r"TP_METHOD_(\w+) (0x\w+)u", text)}
    assert bits == {name: kind.method for name, kind in ADAPTERS.items()}
    assert all(bit.bit_count() == 1 for bit in bits.values())
    assert packages.METHOD == bits["lora"] | bits["modules_to_save"]


def test_four_bits_have_a_fixed_rank() -> None:
    of = int4_info(3)
    assert c_package.verify(of, package_for(of))[0] == "TP_OK"
    smaller = package_for(of, 2)
    assert c_package.verify(of, smaller)[0] == "TP_ERR_RANK"
    with pytest.raises(AdapterError, match="has rank 2, the project rank 3, and 4-bit weights have no room"):
        check_fits(of, parse(smaller))

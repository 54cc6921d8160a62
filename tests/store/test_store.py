"""Each rule of tp_store.h: errors, uploads, what serves, boots on test, rollback."""

from __future__ import annotations

import ctypes

import pytest
from devices import (
    ARGUMENT,
    CANDIDATE,
    CHECKPOINT,
    CONFIRMED,
    FULL,
    GEOMETRY,
    ID,
    NO_SLOT,
    NOT_FOUND,
    OK,
    PARTS,
    ROLLBACK,
    STATE,
    TOO_LARGE,
    TRUNCATED,
    Store,
)

DATA = bytes(range(1, 201))


@pytest.mark.parametrize(
    ("flash", "config"),
    [
        ({}, {"log_sectors": 1}),
        ({}, {"log_sectors": 10}),
        ({}, {"log_sectors": 9}),
        ({}, {"slot_bytes": 0}),
        ({}, {"slot_bytes": 0xFFFFFFFF}),
        ({}, {"slot_bytes": 4 * 1024}),
        ({}, {"test_boots": 0}),
        ({}, {"test_boots": 256}),
        ({"unit": 3}, {}),
        ({"unit": 64}, {}),
        ({"unit": 0}, {}),
        ({"erased": 0x55}, {}),
        ({"sector_bytes": 0}, {}),
        ({"sector_bytes": 12 * 64}, {}),
        ({"sector_bytes": 1056}, {}),
        ({"sectors": 36}, {}),
    ],
    ids=str,
)
def test_geometries_that_do_not_work(library, flash, config) -> None:
    store = Store(library, **flash)
    assert store.mount(**config) == ARGUMENT
    assert (store.format(), store.begin(b"a", CANDIDATE, 1)) == (STATE, STATE)


@pytest.mark.parametrize("name", [None, b"", b"A", b"a b", b"a/b", b"sixteen-letters.", b"\xe4", b"a\n"])
def test_ids_that_are_none(store, name) -> None:
    assert store.begin(name, CANDIDATE, 1) == ID
    assert not store.find(name)


def test_uploads(store) -> None:
    assert store.append(DATA, 1) == store.commit(1) == store.read_upload(0, None, 0) == STATE
    assert store.uploaded_bytes() == (0, 0)
    assert store.begin(b"a", CANDIDATE, 257) == TOO_LARGE
    assert store.begin(b"a", CANDIDATE, 0) == store.begin(b"a", CONFIRMED, 1) == store.begin(b"a", PARTS, 1) == ARGUMENT
    assert store.begin(b"a", CANDIDATE, 200) == OK
    for begin, end in ((0, 0), (0, 3), (3, 40), (40, 41), (41, 190)):
        assert store.append(DATA[begin:end], end - begin) == OK
        back = ctypes.create_string_buffer(256)
        assert store.uploaded_bytes() == (end, 200)
        assert store.read_upload(0, back, end) == OK and back.raw[:end] == DATA[:end]
        assert store.read_upload(end // 2, back, end - end // 2) == OK
        assert back.raw[: end - end // 2] == DATA[end // 2 : end]
        assert store.read_upload(0, back, end + 1) == store.read_upload(end + 1, back, 0) == ARGUMENT
    assert store.append(DATA, 11) == TOO_LARGE
    assert store.commit(1) == TRUNCATED
    assert store.append(DATA[190:], 10) == store.commit(1) == OK
    assert store.read_part(b"a", CANDIDATE) == DATA
    assert store.commit(1) == STATE
    assert store.slot_counts() == (24, 23)


def test_an_upload_that_was_given_up_leaves_nothing(store) -> None:
    assert store.begin(b"a", CANDIDATE, 200) == OK and store.append(DATA, 100) == OK
    assert store.slot_counts() == (24, 23)
    store.abort()
    assert store.uploaded_bytes() == (0, 0) and store.slot_counts() == (24, 24) and store.count() == 0
    assert store.begin(b"a", CANDIDATE, 200) == OK and store.begin(b"b", CANDIDATE, 100) == OK
    assert store.append(DATA, 101) == TOO_LARGE
    assert store.append(DATA, 100) == store.commit(3) == OK
    assert not store.find(b"a") and store.read_part(b"b", CANDIDATE) == DATA[:100]


def test_reading(store) -> None:
    store.serve(b"a", DATA, 1)
    found, back = store.find(b"a"), ctypes.create_string_buffer(256)
    assert store.read(found, CONFIRMED, 190, back, 10) == OK and back.raw[:10] == DATA[190:]
    assert store.read(found, CONFIRMED, 200, back, 0) == OK
    outside = [(190, 11), (201, 0), (0, 201), (0xFFFFFFFF, 2), (2, 0xFFFFFFFF)]
    assert {store.read(found, CONFIRMED, offset, back, length) for offset, length in outside} == {ARGUMENT}
    assert store.read(found, PARTS, 0, back, 1) == ARGUMENT
    assert store.read(found, CANDIDATE, 0, back, 0) == store.read(None, CONFIRMED, 0, back, 0) == NOT_FOUND


def test_what_serves(store) -> None:
    assert store.active_id() is None and store.activate(None) == OK and store.activate(b"a") == NOT_FOUND
    assert store.upload(b"a", DATA, 7) == OK
    assert store.library.tp_store_serving(store.find(b"a")) == PARTS and store.active_id() is None
    assert store.confirm(b"a", 0) == STATE
    assert store.activate(b"a") == OK and store.active_id() == b"a"
    assert store.library.tp_store_serving(store.find(b"a")) == CANDIDATE
    assert store.confirm(b"a", 3) == OK
    entry = store.entry(b"a")
    assert (entry.version[CONFIRMED], entry.counter, entry.on_test) == (7, 3, 0)
    assert entry.slot[CANDIDATE] == NO_SLOT and store.library.tp_store_serving(store.find(b"a")) == CONFIRMED
    assert store.confirm(b"a", 3) == STATE and store.revert(b"a") == STATE
    assert store.confirm(b"x", 3) == store.revert(b"x") == NOT_FOUND
    # a newer one is uploaded while the confirmed one serves, is tried, and given up
    assert store.upload(b"a", DATA[:50], 8) == OK
    assert store.library.tp_store_serving(store.find(b"a")) == CONFIRMED
    assert store.activate(b"a") == OK and store.library.tp_store_serving(store.find(b"a")) == CANDIDATE
    assert store.upload(b"a", DATA[:60], 9) == OK
    assert store.library.tp_store_serving(store.find(b"a")) == CONFIRMED and store.active_id() == b"a"
    assert store.revert(b"a") == OK and store.active_id() == b"a" and store.read_part(b"a", CONFIRMED) == DATA
    # of one that has nothing confirmed nothing is left, and the base model serves
    assert store.upload(b"b", DATA, 1) == store.activate(b"b") == OK and store.active_id() == b"b"
    assert store.revert(b"b") == OK and store.active_id() is None and not store.find(b"b")
    assert store.upload(b"b", DATA, 1, CHECKPOINT) == OK and store.activate(b"b") == NOT_FOUND
    assert [store.entry_at(i).contents.id for i in range(store.count())] == [b"a", b"b"]
    assert not store.entry_at(2)
    assert store.activate(b"a") == store.mount() == OK and store.active_id() == b"a"
    assert store.activate(None) == store.mount() == OK and store.active_id() is None


@pytest.mark.parametrize("test_boots", [1, 3])
def test_a_candidate_is_given_up_after_its_boots(store, test_boots) -> None:
    store.serve(b"a", DATA, 1)
    assert store.upload(b"a", DATA[:9], 2) == OK
    assert store.mount(test_boots=test_boots) == OK and store.entry(b"a").boots == 0
    assert store.activate(b"a") == OK
    for boot in range(1, test_boots + 1):
        assert store.mount(test_boots=test_boots) == OK and store.reverted.value == 0
        assert (store.entry(b"a").boots, store.entry(b"a").version[CANDIDATE]) == (boot, 2)
    assert store.mount(test_boots=test_boots) == OK and store.reverted.value == 1
    assert store.entry(b"a").slot[CANDIDATE] == NO_SLOT and store.active_id() == b"a"
    assert store.read_part(b"a", CONFIRMED) == DATA


def test_deleting(store) -> None:
    assert store.delete(b"a", PARTS) == NOT_FOUND
    store.serve(b"a", DATA, 1)
    assert store.delete(b"a", CONFIRMED) == store.delete(b"a", CANDIDATE) == ARGUMENT
    assert store.delete(b"a", CHECKPOINT) == NOT_FOUND
    assert store.upload(b"a", DATA, 5, CHECKPOINT) == store.delete(b"a", CHECKPOINT) == OK
    assert store.read_part(b"a", CONFIRMED) == DATA
    assert store.begin(b"a", CANDIDATE, 9) == OK
    assert store.delete(b"a", PARTS) == OK and store.active_id() is None and store.count() == 0
    assert store.append(DATA, 1) == STATE and store.slot_counts() == (24, 24)


def test_rollback(store) -> None:
    store.serve(b"a", DATA, 1, counter=5)
    assert store.upload(b"a", DATA, 2) == store.activate(b"a") == OK
    assert store.confirm(b"a", 4) == ROLLBACK and store.entry(b"a").on_test == 1
    assert store.confirm(b"a", 5) == OK
    # the counter outlives deleting, a mount, and changes of log sector
    assert store.delete(b"a", PARTS) == OK and store.delete(b"a", PARTS) == NOT_FOUND
    for _ in range(60):
        store.serve(b"b", DATA[:9], 1)
    assert store.mount() == OK
    entry = store.entry(b"a")
    assert entry.counter == 5 and list(entry.slot) == [NO_SLOT] * 3
    assert store.activate(b"a") == NOT_FOUND and store.revert(b"a") == STATE
    assert store.upload(b"a", DATA, 2) == store.activate(b"a") == OK
    assert store.confirm(b"a", 4) == ROLLBACK and store.confirm(b"a", 6) == OK
    assert store.format() == OK and store.count() == 0 and store.mount() == OK and store.count() == 0
    store.serve(b"a", DATA, 1, counter=0)


def test_full(library) -> None:
    store = Store(library, sectors=5)  # two blocks of four slots, one of them spare
    assert store.mount() == OK and store.slot_counts() == (4, 4)
    for name in (b"a", b"b", b"c"):
        store.serve(name, DATA, 1)
    assert store.begin(b"d", CANDIDATE, 9) == OK
    assert store.append(DATA, 9) == store.commit(1) == OK
    assert store.begin(b"a", CANDIDATE, 9) == FULL
    assert store.delete(b"b", PARTS) == OK and store.upload(b"a", DATA, 2) == OK
    assert [store.read_part(name, part) for name, part in ((b"a", 0), (b"a", 1), (b"c", 0))] == [DATA] * 3
    store.check_rules()
    store = Store(library)
    assert store.mount() == OK
    for i in range(8):
        assert store.upload(b"id%d" % i, DATA, 1) == OK
    assert store.begin(b"another", CANDIDATE, 9) == FULL and store.begin(b"id3", CHECKPOINT, 9) == OK


def test_another_geometry_is_left_alone(store) -> None:
    store.serve(b"a", DATA, 1)
    for config in ({"slot_bytes": 512}, {"log_sectors": 4}):
        assert store.mount(**config) == GEOMETRY and store.count() == 0
        assert store.begin(b"a", CANDIDATE, 9) == store.collect() == STATE
    assert store.mount() == OK and store.read_part(b"a", CONFIRMED) == DATA
    assert store.mount(slot_bytes=512) == GEOMETRY and store.format() == OK
    store.serve(b"b", DATA + DATA, 1)
    assert store.mount(slot_bytes=512) == OK and store.read_part(b"b", CONFIRMED) == DATA + DATA
    assert store.mount() == GEOMETRY

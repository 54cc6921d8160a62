"""Makes the kept corpora: inputs from real packages, deltas, requests and logs, and what fuzzing found, minimised.

`python seeds.py [target ...]` writes corpus/<target>/ anew from the seeds, the corpus that is there and build/.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "package"))

import cbor2
from packages import DAMAGES, damaged, info, int4_info, package_for
from targets import BUILD, TARGETS, Target, build, require_fuzzer

from tinypeft.device.framing import ADAPTERS_GROUP, GROUP, OS_GROUP, READ, WRITE, Message, encode
from tinypeft.package.delta import encode_delta

FILES_GROUP, IMAGES_GROUP = 8, 1

SAMPLE: list[tuple[int, int, int, dict[str, Any]]] = [
    (OS_GROUP, WRITE, 0, {"d": "hello"}),
    (OS_GROUP, READ, 6, {}),
    (OS_GROUP, READ, 7, {"format": "a"}),
    (OS_GROUP, WRITE, 5, {}),
    (GROUP, READ, 0, {}),
    (GROUP, WRITE, 1, {"object": 5, "off": 0, "data": bytes(range(40))}),
    (GROUP, READ, 2, {"object": 3, "off": 4, "len": 8}),
    (GROUP, WRITE, 3, {"input": bytes(16), "trace": True, "dump": 3}),
    (GROUP, WRITE, 4, {"label": 1, "rate": 0.125, "input": bytes(16)}),
    (GROUP, WRITE, 5, {"rate": 0.5}),
    (GROUP, WRITE, 6, {"seed": 7}),
    (GROUP, WRITE, 7, {}),
    (GROUP, WRITE, 8, {}),
    (GROUP, WRITE, 9, {"len": 140}),
    (GROUP, READ, 10, {}),
    (GROUP, WRITE, 11, {"label": 2}),
    (GROUP, WRITE, 12, {"samples": 12, "epochs": 2, "rate": 0.1, "held_back": 1, "guards": 3, "max_undone": 1}),
    (GROUP, WRITE, 12, {"samples": 9, "epochs": 1, "rate": 0.1, "schedule": 2, "total_steps": 9, "patience": 1}),
    (GROUP, WRITE, 13, {"sample": 3}),
    (GROUP, WRITE, 14, {"sample": 3, "label": 0, "rate": 0.1}),
    (ADAPTERS_GROUP, READ, 0, {"from": 0}),
    (ADAPTERS_GROUP, WRITE, 1, {"id": "a", "keep": False}),
    (ADAPTERS_GROUP, WRITE, 1, {"id": "b"}),
    (ADAPTERS_GROUP, WRITE, 2, {}),
    (ADAPTERS_GROUP, WRITE, 3, {"id": "a"}),
    (ADAPTERS_GROUP, WRITE, 4, {"id": "b"}),
    (ADAPTERS_GROUP, WRITE, 6, {"id": "c", "version": 9}),
    (ADAPTERS_GROUP, WRITE, 7, {"id": "a", "step": 40}),
    (ADAPTERS_GROUP, WRITE, 8, {"id": "a"}),
    (ADAPTERS_GROUP, WRITE, 9, {"id": "c", "off": 0, "len": 140, "data": b"TPAD"}),
    (ADAPTERS_GROUP, READ, 10, {}),
    (ADAPTERS_GROUP, READ, 11, {"id": "a"}),
    (ADAPTERS_GROUP, WRITE, 12, {}),
    (ADAPTERS_GROUP, WRITE, 5, {"id": "a"}),
    (FILES_GROUP, READ, 0, {"name": "/adapter/a", "off": 0}),
    (FILES_GROUP, READ, 1, {"name": "/adapter/a"}),
    (FILES_GROUP, READ, 2, {"name": "/adapter/a", "type": "crc32", "off": 1, "len": 99}),
    (FILES_GROUP, READ, 3, {}),
    (FILES_GROUP, WRITE, 4, {}),
    (IMAGES_GROUP, READ, 0, {}),
    (IMAGES_GROUP, WRITE, 0, {"confirm": True}),
    (IMAGES_GROUP, WRITE, 0, {"hash": bytes(32), "confirm": False}),
]


def cbor_seeds() -> Iterator[bytes]:
    for _, _, _, values in SAMPLE:
        yield cbor2.dumps(values)
    yield b"\xbf" + cbor2.dumps("rate") + cbor2.dumps(0.1) + cbor2.dumps("off") + cbor2.dumps(None) + b"\xff"
    yield cbor2.dumps({"other": [1, {"deep": [b"x", "y", {"z": [[[1.5]]]}]}], "label": -7, 5: cbor2.CBORTag(1, 2)})
    yield bytes.fromhex("bf626964ff")
    yield bytes.fromhex("bf5f4101420203ff00646f6666ffff")


def package_seeds() -> Iterator[bytes]:
    """Behind the number of a firmware, a mode of package.c and a change; in mode 0 as they are."""
    fits, crc, sha, signed, signature, key, fails = (1 << bit for bit in range(7))
    sealed = fits | crc | sha
    signs = sealed | signed | key
    modes = (0, sealed, fits | crc, signs | signature, signs, sealed | key, sealed | fails)
    for table, of, ranks in ((0, info(), range(1, 5)), (2, int4_info(), (3,)), (3, info(), (1, 3))):
        for rank in ranks:
            for mode in modes:
                yield bytes([table, mode, 0]) + package_for(of, rank, seed=rank)
    yield from (bytes([1, mode, 0]) + package_for(info(), 1) for mode in modes)
    yield from (bytes([0, sealed, change]) + package_for(info(), 2) for change in range(1, 96, 5))
    yield from (bytes(3) + damaged(package_for(info()), what) for what, _, _ in DAMAGES)


def delta_seeds() -> Iterator[bytes]:
    header, fails, small, encoded = 1, 2, 4, 8
    old = package_for(info(), 1, seed=1)
    news = [package_for(info(), 1, seed=2), package_for(info(), 2, seed=1), old, old[:100] + bytes(9) + old[109:]]
    for number, new in enumerate(news):
        start = struct.pack("<HH", len(old), len(new) - 1) + old
        delta = encode_delta(old, new)
        for mode in (0, header, fails, small):
            body = delta[24:] if mode & header else delta
            yield bytes([mode, 17 * number + 3]) + start + body
        yield bytes([0, 9]) + start + delta + b"behind"
        yield bytes([0, 69]) + start + delta[:-1]
        changes = bytes((b - a) & 0xFF for a, b in zip(old.ljust(len(new), b"\0"), new, strict=False))
        yield bytes([encoded, 31]) + start + changes


def _message(group: int, op: int, command: int, payload: bytes) -> bytes:
    """A request, as smp.c takes its parts."""
    place = (OS_GROUP, IMAGES_GROUP, FILES_GROUP, GROUP, ADAPTERS_GROUP).index(group)
    return bytes([1, place << 2 | 2 | op >> 1, command]) + struct.pack("<H", len(payload)) + payload


def _lines(group: int, op: int, command: int, values: dict[str, Any]) -> bytes:
    """The same as bytes on the line."""
    line = encode(Message(op, command, 5, cbor2.dumps(values), group=group))
    pieces = [line[at : at + 255] for at in range(0, len(line), 255)]
    return b"".join(bytes([0, len(piece)]) + piece for piece in pieces)


def _upload(choice: int, identity: int, damage: int, extra: bytes = b"", go_on: tuple[int, ...] = (255,) * 2) -> bytes:
    first, *rest = go_on
    return bytes([3, choice, identity, damage]) + extra + bytes([first]) + b"".join(bytes([4, g]) for g in rest)


def smp_seeds() -> Iterator[bytes]:
    """Behind a mode of smp.c: bit 0 no store, bit 1 with a key, then how the store begins."""
    requests = [_message(group, op, command, cbor2.dumps(values)) for group, op, command, values in SAMPLE]
    for number, request in enumerate(requests):
        group, op, command, values = SAMPLE[number]
        yield bytes([12]) + request
        yield bytes([4 * (number % 4) + number // 4 % 4]) + requests[number - 1] + request
        yield bytes([8]) + _lines(group, op, command, values)
    for choice in (0, 1, 2, 4, 8, 9, 0x10, 0x50, 0x88):
        for mode in (0, 2, 4, 8, 10, 12):
            for name, identity in (
                ("c", 2 | 1 << 3),
                ("a", 0 | 3 << 3 | 1 << 5),
                ("a", 0 | 1 << 3 | 1 << 5),
                ("c", 0x82),
            ):
                upload = _upload(choice, identity, 5, b"\x30\x01" if choice & 0x80 else b"")
                follow = (_message(ADAPTERS_GROUP, WRITE, command, cbor2.dumps({"id": name})) for command in (1, 3))
                yield bytes([mode]) + upload + b"".join(follow)
    yield from (bytes([8]) + _upload(0, 0, 128 + what, bytes([100, 1])) for what in range(8))
    yield bytes([0]) + _upload(0, 2, 7, go_on=(0x08,) * 8) + requests[32] + b"\x04\xff"
    for choice in range(65):
        yield bytes([12, 2, choice, 0]) + bytes(range(choice, choice + 24))
        yield bytes([8, 2, choice, 2, 16, 21]) + bytes([20] * 24)
    for says, length, choice in ((522, 524, 0x80), (522, 560, 0x81), (30, 600, 0x80), (560, 580, 0x82), (12, 14, 0xFC)):
        yield bytes([0, 6]) + struct.pack("<HBH", says, choice, length)
    yield bytes([0]) + _message(OS_GROUP, WRITE, 0, cbor2.dumps({"d": "x" * 506}))


def _cell(kind: bytes, sequence: int, body: bytes) -> bytes:
    """A cell of the log, as STORAGE.md has it."""
    cell = (kind.ljust(4, b"\0") + struct.pack("<I", sequence) + body).ljust(60, b"\0")
    return cell + struct.pack("<I", zlib.crc32(cell))


def _state(name: bytes, slots: tuple[int, int, int], flags: int, counter: int = 0) -> bytes:
    sizes = [60 if slot != 0xFFFF else 0 for slot in slots]
    body = struct.pack("<16s3HBB3I3II", name, *slots, flags, 0, *sizes, 1, 2, 3, counter)
    return body


def _log(sequence: int, states: list[bytes], changes: list[bytes], blocks: bytes) -> bytes:
    """A log sector of store.c's first geometry: 5 sectors of 512 bytes, 2 of them the log, slots of 64 bytes."""
    header = b"TPST" + struct.pack("<4I4B", 512, 5, 2, 64, 1, 0xFF, 1, 3)
    cells = [_cell(b"H", sequence, header), *(_cell(b"S", sequence, state) for state in states)]
    cells += [_cell(b"M", sequence, struct.pack("<I", 1) + blocks), _cell(b"E", sequence, b"")]
    cells += [_cell(b"S", sequence, change) for change in changes]
    return b"".join(cells).ljust(512, b"\xff")


def store_seeds() -> Iterator[bytes]:
    """A geometry, what the flash begins with, and operations of store.c."""
    begin, append, commit, upload, activate, confirm, revert, delete, collect, remount = range(10)
    abort, format_all, fault, mutate = range(10, 14)
    none = 0xFFFF
    a = _state(b"a", (0, none, 3), 2, 5)
    b = _state(b"b", (1, 2, none), 1)
    logs = [
        _log(4, [a, b], [], b"\x80\x01\x02") + _log(5, [a, b], [_state(b"b", (2, none, none), 2)], b"\x80\x01\x02"),
        _log(7, [a], [_state(b"c", (1, none, none), 0), _state(b"a", (none,) * 3, 0)], b"\x80\x81\x02"),
        _log(1, [], [], b"\x00\x01\x02"),
        _log(0xFFFFFFFF, [a], [], b"\x00\x01\x02"),
        _log(9, [_state(b"a", (1, 1, none), 0), _state(b"b", (0, none, none), 7)], [], b"\x00\x00\x05"),
    ]

    def op(what: int, choice: int, number: int | None = None) -> bytes:
        return bytes([what, choice]) + (struct.pack("<H", number) if number is not None else b"")

    serve = op(upload, 8, 99) + op(activate, 0) + op(confirm, 32)
    other = op(upload, 9, 40) + op(upload, 16, 30) + op(activate, 1)
    pieces = op(begin, 8, 60) + op(append, 0, 128) + op(append, 0, 37) + op(append, 0, 23) + op(commit, 0, 3)
    most = op(begin, 8, 512) + op(append, 0, 128) * 4 + op(commit, 0, 3)
    rest = op(remount, 0) + op(collect, 0) + op(revert, 1) + op(delete, 16) + op(delete, 24) + op(activate, 255)
    everything = serve + other + pieces + rest
    for choice in range(0, 256, 5):
        yield bytes([choice, 0]) + everything
    for choice in (0, 4, 5, 29, 50, 196):
        yield bytes([choice, 0]) + most + serve * 5
        yield bytes([choice, 0]) + op(fault, 1) + serve + op(fault, 3) + other + op(remount, 0) + op(format_all, 0)
        yield bytes([choice, 0]) + serve + op(mutate, 1) + b"\x85\x01" + op(mutate, 1) + b"\x1e\xff" + op(abort, 0)
    for log in logs:
        for start in (1, 2):
            yield bytes([0, start]) + struct.pack("<H", len(log)) + log + everything


SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "cbor": cbor_seeds,
    "delta": delta_seeds,
    "package": package_seeds,
    "smp": smp_seeds,
    "store": store_seeds,
}


def write_seeds(target: Target, folder: Path) -> Path:
    """A file for each seed of a target."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS[target.name]():
        (folder / hashlib.sha1(seed).hexdigest()).write_bytes(seed[: target.max_bytes])
    return folder


def minimise(target: Target, program: Path, sources: list[Path]) -> None:
    """Make the kept corpus the fewest and smallest inputs of `sources` that together reach as much."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["-set_cover_merge=1", "-use_counters=0", f"-max_len={target.max_bytes}"]
        command = [str(program), *options, folder, *map(str, sources)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL, cwd=program.parent)
        shutil.rmtree(target.corpus, ignore_errors=True)
        shutil.copytree(folder, target.corpus)


def main() -> None:
    require_fuzzer()
    for name in sys.argv[1:] or TARGETS:
        target = TARGETS[name]
        program = build(target, BUILD / name)
        seeds = write_seeds(target, BUILD / name / "seeds")
        grown = BUILD / name / "corpus"
        minimise(target, program, [folder for folder in (seeds, target.corpus, grown) if folder.is_dir()])
        kept = [path.stat().st_size for path in target.corpus.iterdir()]
        print(f"{name:8} {len(kept):4} files, {sum(kept):,} B")


if __name__ == "__main__":
    main()

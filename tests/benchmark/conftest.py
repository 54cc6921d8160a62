"""Fixtures of the benchmark's tests: tiny files of the datasets' form, and a cache of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

SPEAKERS = ("ada", "bob", "cyd")
RECORDINGS_PER_DIGIT = 6


def write_speech(folder: Path) -> None:
    """fsdd_mfcc.npz: three speakers, ten digits, of which each is a bump at a place of its own, and noise."""
    random = np.random.RandomState(0)
    y = np.tile(np.repeat(np.arange(10), RECORDINGS_PER_DIGIT), len(SPEAKERS))
    speaker = np.repeat(np.arange(len(SPEAKERS)), 10 * RECORDINGS_PER_DIGIT)
    x = random.randint(-12, 13, (len(y), 49, 10))
    for row, digit in enumerate(y):
        x[row, 4 * digit : 4 * digit + 8, (digit + speaker[row]) % 10] += 90
    np.savez(
        folder / "fsdd_mfcc.npz",
        x=x.astype(np.int8),
        y=y.astype(np.uint8),
        speaker=speaker.astype(np.uint8),
        speakers=np.array(SPEAKERS),
        int8_scale=np.float32(0.04),
    )


def write_beats(folder: Path) -> None:
    """mitbih_beats.npz: records 201 and 203 of DS1, 202 and 205 of DS2, 400 beats each, one a second."""
    random = np.random.RandomState(0)
    record = np.repeat([201, 202, 203, 205], 400)
    np.savez(
        folder / "mitbih_beats.npz",
        x=random.randint(-60, 60, (len(record), 128)).astype(np.int8),
        y=random.choice(5, len(record), p=(0.6, 0.15, 0.15, 0.08, 0.02)).astype(np.uint8),
        record=record.astype(np.uint16),
        t=np.tile(np.arange(400) * 360, 4).astype(np.int32),
        split=np.where(np.isin(record, (201, 203)), 1, 2).astype(np.uint8),
    )


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with tiny speech and beats, and an empty cache beside it."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_speech(folder)
    write_beats(folder)
    monkeypatch.setenv("TINYPEFT_DATA", str(folder))
    monkeypatch.setenv("TINYPEFT_CACHE", str(tmp_path / "cache"))
    return folder

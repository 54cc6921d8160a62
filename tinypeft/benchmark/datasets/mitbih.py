"""MIT-BIH Arrhythmia: a user is a patient of DS2, whose first five minutes of ECG a cardiologist has labelled."""

from __future__ import annotations

import functools

import numpy as np

from tinypeft.benchmark.datasets.base import BaseTraining, BenchmarkDataset, Samples, UserSplit, draw_balanced, register

#: 201 of DS1 is the same patient as 202 of DS2: it is in no base model, and no beat of it is replayed.
SAME_PATIENT = 201
FIRST_MINUTES = 108_000  # five, in samples of 360 Hz
REPLAYED_CLASSES = (0, 1, 2, 3)  # N, S, V, F; DS1 has eight beats of Q
REPLAYED_PER_CLASS = 60
CALIBRATION_PER_CLASS = 100
COUNTS_PER_UNIT = 32.0  # 0.64 mV
TRAIN, TEST = 1, 2


@register
class MitBih(BenchmarkDataset):
    """22 records of DS2, one base model of DS1 for all; classes N, S, V, F, Q of the AAMI.

    Trained on: the record's beats of the first five minutes and 240 beats of DS1, 60 each of N, S, V and F; tested on:
    the record's other beats. x is a beat (128,1,1) in units of 0.64 mV.

    Replayed beats are drawn evenly from classes that are not even: of DS1 2 % are S, 7 % V and 1 % F. Weights in the
    loss keep an adapter from expecting as many of them in every heart.
    """

    name = "mitbih"
    files = ("mitbih_beats.npz",)
    base = BaseTraining("ecg_cnn", epochs=6, batch_size=128, learning_rate=2e-3, balance=0.5, decay=True)
    epochs = 5
    full_rates = (0.001, 0.002, 0.005, 0.01)
    class_weights = (1.0, 0.25, 0.6, 0.1, 1.0)

    def users(self) -> list[str]:
        return [str(record) for record in np.unique(self.arrays["record"][self.arrays["split"] == TEST])]

    def base_key(self, user: str) -> str:
        return "ds1"

    def base_samples(self, key: str) -> Samples:
        return self._samples(self._ds1)

    def calibration(self, key: str) -> np.ndarray:
        return self._samples(self._ds1[draw_balanced(self.arrays["y"][self._ds1], CALIBRATION_PER_CLASS, 0)]).x

    def split(self, user: str, seed: int) -> UserSplit:
        own = self.arrays["record"] == int(user)
        first = self.arrays["t"] < FIRST_MINUTES
        replayed = self._replayed(seed)
        train = np.concatenate([np.where(own & first)[0], replayed])
        test = np.where(own & ~first)[0]
        return UserSplit(self._samples(train), self._samples(test), train, test, len(replayed))

    @functools.cached_property
    def _ds1(self) -> np.ndarray:
        return np.where((self.arrays["split"] == TRAIN) & (self.arrays["record"] != SAME_PATIENT))[0]

    def _replayed(self, seed: int) -> np.ndarray:
        beats = self._ds1[np.isin(self.arrays["y"][self._ds1], REPLAYED_CLASSES)]
        return beats[draw_balanced(self.arrays["y"][beats], REPLAYED_PER_CLASS, seed)]

    def _samples(self, rows: np.ndarray) -> Samples:
        x = self.arrays["x"][rows].astype(np.float32) / np.float32(COUNTS_PER_UNIT)
        return Samples(x[..., None, None], self.arrays["y"][rows].astype(np.int64))

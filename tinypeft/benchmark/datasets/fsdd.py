"""Free Spoken Digit Dataset: a user is a speaker whom the base model never heard."""

from __future__ import annotations

import functools

import numpy as np

from tinypeft.benchmark.datasets.base import BaseTraining, BenchmarkDataset, Samples, UserSplit, draw_balanced, register
from tinypeft.data import choose_shots

SHOTS = 5
CALIBRATION_PER_DIGIT = 30


@register
class Fsdd(BenchmarkDataset):
    """Six speakers, left out in turn: 5 examples of each of ten digits to train, the speaker's 450 others to test.

    x is the MFCC (49,10,1), standardised by mean and deviation of each coefficient over the other five speakers.
    """

    name = "fsdd"
    files = ("fsdd_mfcc.npz",)
    base = BaseTraining("ds_cnn", epochs=15, batch_size=64, learning_rate=1e-3)
    full_rates = (0.001, 0.002, 0.005, 0.01, 0.02)

    def users(self) -> list[str]:
        return [str(name) for name in self.arrays["speakers"]]

    def base_key(self, user: str) -> str:
        return user

    def base_samples(self, key: str) -> Samples:
        others = np.where(~self._spoken_by(key))[0]
        return self._samples(key, others)

    def calibration(self, key: str) -> np.ndarray:
        samples = self.base_samples(key)
        return samples.x[draw_balanced(samples.y, CALIBRATION_PER_DIGIT, 0)]

    def split(self, user: str, seed: int) -> UserSplit:
        own = np.where(self._spoken_by(user))[0]
        train, test = (own[chosen] for chosen in choose_shots(self.arrays["y"][own], SHOTS, seed))
        return UserSplit(self._samples(user, train), self._samples(user, test), train, test)

    def _spoken_by(self, user: str) -> np.ndarray:
        return self.arrays["speaker"] == self.users().index(user)

    def _samples(self, user: str, rows: np.ndarray) -> Samples:
        return Samples(self._standardised(user)[rows], self.arrays["y"][rows].astype(np.int64))

    @functools.lru_cache(maxsize=1)  # noqa: B019  one dataset lives as long as a benchmark
    def _standardised(self, user: str) -> np.ndarray:
        """All samples (N,49,10,1), in deviations of the speakers other than `user`."""
        x = self.arrays["x"].astype(np.float32) * self.arrays["int8_scale"]
        others = x[~self._spoken_by(user)].astype(np.float64)
        mean, deviation = others.mean(axis=(0, 1)), others.std(axis=(0, 1))
        return ((x - mean) / deviation).astype(np.float32)[..., None]

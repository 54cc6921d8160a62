"""ToyADMOS ToyCar: a user is a machine, whose normal sound an autoencoder learns to reconstruct."""

from __future__ import annotations

import numpy as np

from tinypeft.benchmark.datasets.base import BenchmarkDataset, Samples, UserSplit, register

FRAMES = 5  # a window


@register
class ToyCar(BenchmarkDataset):
    """One clip of one machine: windows of its first half to train, those of the second to test; no frame is in both.

    x is 5 frames of 128 log-mel energies, flattened (640,); the target is x itself. A seed only shuffles.
    """

    name = "ad"
    files = ("ad01_toycar_sample.npz", "models/ad01_k3.keras")
    base = "models/ad01_k3.keras"
    metric = "mse"
    epochs = 15
    learning_rate = 0.0002
    target_modules = r"dense_\d+"  # not the first, which reads decibels down to -60 and diverges
    full_rates = (1e-9, 1e-8, 1e-7, 1e-6)

    def users(self) -> list[str]:
        return ["ToyCar"]

    def base_key(self, user: str) -> str:
        return "autoencoder"

    def calibration(self, key: str) -> np.ndarray:
        return self.split("ToyCar", 0).train.x

    def split(self, user: str, seed: int) -> UserSplit:
        frames = self.arrays["logmel"].astype(np.float32)
        windows = np.stack([frames[i : i + FRAMES].reshape(-1) for i in range(len(frames) - FRAMES + 1)])
        half = len(frames) // 2
        train, test = np.arange(half - FRAMES + 1), np.arange(half, len(windows))
        return UserSplit(Samples(windows[train], windows[train]), Samples(windows[test], windows[test]), train, test)

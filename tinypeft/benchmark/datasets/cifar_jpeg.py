"""CIFAR-10, compressed as JPEG once more: the only user is a camera of another image quality."""

from __future__ import annotations

import numpy as np

from tinypeft.benchmark.datasets.base import BenchmarkDataset, Samples, UserSplit, register

CALIBRATION_SAMPLES = 300


@register
class CifarJpeg(BenchmarkDataset):
    """500 images to train, 500 to test; the base is MLPerf Tiny's ResNet8, trained on the images as they were.

    x is (32,32,3), 0 to 255. The split is the file's; a seed only shuffles.
    """

    name = "cifar_jpeg"
    files = ("cifar10_jpeg_uint8.npz", "models/pretrainedResnet_k3.keras")
    base = "models/pretrainedResnet_k3.keras"
    epochs = 5
    learning_rate = 0.0005
    target_modules = r"conv2d_\d+"  # not the first, which reads pixels up to 255 and diverges
    full_rates = (1e-9, 1e-8, 3e-8, 1e-7)

    def users(self) -> list[str]:
        return ["camera"]

    def base_key(self, user: str) -> str:
        return "resnet8"

    def calibration(self, key: str) -> np.ndarray:
        return self.arrays["x_train"][:CALIBRATION_SAMPLES].astype(np.float32)

    def split(self, user: str, seed: int) -> UserSplit:
        train, test = (
            Samples(self.arrays[f"x_{part}"].astype(np.float32), self.arrays[f"y_{part}"].astype(np.int64))
            for part in ("train", "test")
        )
        rows = np.arange(len(train) + len(test))
        return UserSplit(train, test, rows[: len(train)], rows[len(train) :])

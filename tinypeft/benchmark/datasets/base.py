"""What a dataset declares: its users, the base model each starts from, and what a user trains on and is tested on."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinypeft.errors import DataError

#: name -> the dataset's class
DATASETS: dict[str, type[BenchmarkDataset]] = {}


def register(cls: type[BenchmarkDataset]) -> type[BenchmarkDataset]:
    """Class decorator: put the dataset into the registry; a second of the same name is a KeyError."""
    if cls.name in DATASETS:
        raise KeyError(f"dataset {cls.name} is registered twice")
    DATASETS[cls.name] = cls
    return cls


def data_folder() -> Path:
    """$TINYPEFT_DATA, or shared/data beside the checkout; DataError if it is no folder."""
    folder = Path(os.environ.get("TINYPEFT_DATA") or Path(__file__).resolve().parents[4] / "shared" / "data")
    if not folder.is_dir():
        raise DataError(
            f"no evaluation data: {folder} is not a folder",
            "set the environment variable TINYPEFT_DATA to the folder of fsdd_mfcc.npz, mitbih_beats.npz and models/",
        )
    return folder


@dataclass(frozen=True)
class Samples:
    """`x` (N, ...) float32 as the Keras model takes it; `y` the labels (N,) int64, or the targets (N, ...) float32."""

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class UserSplit:
    """What one user's device trains on, in this order before the epochs shuffle it, and what it is tested on.

    The last `replayed` to train on are of others, to keep what the base model knows. `train_ids` and `test_ids` name
    each sample by its row in the dataset's file; no row is in both.
    """

    train: Samples
    test: Samples
    train_ids: np.ndarray
    test_ids: np.ndarray
    replayed: int = 0


@dataclass(frozen=True)
class BaseTraining:
    """How a base model is trained: Adam, softmax cross-entropy, `network` of benchmark.networks.

    A class weighs count ** -balance in the loss, 0: every sample the same, 1: every class the same; rare classes then
    shape the features, and afterwards the head's bias is adjusted so that they are as rare in its outputs as in the
    samples (logit adjustment, Menon et al. 2021). `decay`: the learning rate falls to 0 as a cosine. `revision` counts
    changes of the network and of what is not said here.
    """

    network: str
    epochs: int
    batch_size: int
    learning_rate: float
    balance: float = 0.0
    decay: bool = False
    seed: int = 0
    revision: int = 1


class BenchmarkDataset:
    """A dataset of people, machines or sites, of which each is a user.

    `metric` is "accuracy" (more is better) or "mse" (less is better). `files` are relative to the data folder. `base`
    says how base models are trained, or is the file of a ready one. Adapters and heads are trained by SGD, one sample a
    step, for `epochs` at `learning_rate`, `class_weights` in the loss; `full_rates` is the grid for full fine-tuning.
    `target_modules` says which layers get adapters, as the option of that name: a regular expression, "" the default.
    """

    name: str = ""
    files: tuple[str, ...] = ()
    base: BaseTraining | str = ""
    metric: str = "accuracy"
    epochs: int = 15
    learning_rate: float = 0.02
    class_weights: tuple[float, ...] = ()
    target_modules: str = ""
    full_rates: tuple[float, ...] = ()

    def __init__(self, folder: Path):
        self.folder = folder

    def users(self) -> list[str]:
        """The names of all users."""
        raise NotImplementedError

    def base_key(self, user: str) -> str:
        """The name of the base model that `user` starts from; users may share one."""
        raise NotImplementedError

    def base_samples(self, key: str) -> Samples:
        """What the base model `key` is trained on; nothing of a user who starts from it."""
        raise NotImplementedError

    def calibration(self, key: str) -> np.ndarray:
        """Samples (N, ...) float32 that set the activations' scales of the base model `key`."""
        raise NotImplementedError

    def split(self, user: str, seed: int) -> UserSplit:
        """What `user` trains on and is tested on; `seed` draws where there is a choice."""
        raise NotImplementedError

    def check_files(self) -> None:
        """Raise DataError for the first file that is missing."""
        for file in self.files:
            if not (self.folder / file).is_file():
                raise DataError(
                    f"{self.folder / file}, which dataset {self.name} needs, does not exist",
                    "set the environment variable TINYPEFT_DATA to the folder that has it",
                )

    @functools.cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of the first .npz file."""
        path = self.folder / next(file for file in self.files if file.endswith(".npz"))
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except Exception as error:  # a damaged archive may end in any of zipfile's, zlib's and struct's exceptions
            raise DataError(f"{path} cannot be read: {error}", "copy it again") from error


def draw_balanced(y: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Indices of `count` samples of every class of y (N,), all of a class that has fewer; sorted."""
    random = np.random.RandomState(seed)
    drawn = [random.permutation(np.where(y == label)[0])[:count] for label in np.unique(y)]
    return np.sort(np.concatenate(drawn))

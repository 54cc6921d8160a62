"""Samples and labels from .npz files, in the form that the model's input takes, and their split into train and test."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinypeft.errors import DataError
from tinypeft.ir import Tensor


@dataclass(frozen=True)
class Dataset:
    """Samples `x` (N, ...) of the model input's shape and dtype.

    `y`: labels (N,) int64, target vectors (N, outputs) float64 of real values, or None.
    """

    x: np.ndarray
    y: np.ndarray | None

    def __len__(self) -> int:
        return len(self.x)

    def joined(self, other: Dataset) -> tuple[Dataset, np.ndarray]:
        """These samples, then those of `other`, whose numbers come with them; without y where one of both has none."""
        y = None if self.y is None or other.y is None else np.concatenate([self.y, other.y])
        return Dataset(np.concatenate([self.x, other.x]), y), len(self) + np.arange(len(other))


@dataclass(frozen=True)
class VectorForm:
    """What the targets of a loss without labels are: `outputs` real values a sample, from `low` to `high`."""

    outputs: int
    low: float
    high: float


def load_array(spec: str) -> np.ndarray:
    """The numeric array that `F.npz:KEY` names; DataError for a missing file or key, or an array of another kind."""
    arrays = _load(spec, 1)
    return arrays[0]


def load_dataset(spec: str, graph_input: Tensor, classes: int | None, vectors: VectorForm | None = None) -> Dataset:
    """The samples, and perhaps labels or target vectors, that `F.npz:X` or `F.npz:X:Y` names.

    int8 samples are taken as they are; other numbers are real values and quantised by `graph_input`'s scale. A trailing
    axis of length 1 may be there or not. Labels are 0 to `classes` - 1; None checks no upper bound. With `vectors`, Y
    holds those instead.
    """
    arrays = _load(spec, 2)
    return make_dataset(arrays[0], arrays[1] if len(arrays) == 2 else None, graph_input, classes, vectors, spec)


def make_dataset(
    x: np.ndarray,
    y: np.ndarray | None,
    graph_input: Tensor,
    classes: int | None,
    vectors: VectorForm | None = None,
    what: str = "given",
) -> Dataset:
    """The same of arrays; `what` names them in messages."""
    x = fit_samples(x, graph_input.shape[1:], f"samples {what}")
    if graph_input.dtype == "float32":
        x = x.astype(np.float32)
    elif x.dtype != np.int8:
        x = quantize(x, graph_input)
    if y is not None:
        y = _labels(y, len(x), classes, what) if vectors is None else _vectors(y, len(x), vectors, what)
    return Dataset(np.ascontiguousarray(x), y)


def quantize(x: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Real values as `tensor`'s int8, to the bit as LiteRT's QUANTIZE: float32, halves away from zero, saturated."""
    assert tensor.scale is not None
    with np.errstate(over="ignore"):
        units = x.astype(np.float32) / np.float32(tensor.scale[0])
    whole = np.trunc(units)
    rounded = whole + np.where(np.abs(units - whole) >= 0.5, np.sign(units), 0)
    return np.clip(rounded.astype(np.float64) + tensor.zero_point, -128, 127).astype(np.int8)


def fit_samples(x: np.ndarray, sample_shape: tuple[int, ...], what: str) -> np.ndarray:
    """`x` as (N, *sample_shape), a trailing axis of length 1 added or dropped; DataError if it is not of that shape.

    It must hold at least one sample and only finite numbers. `what` names it in messages.
    """
    fitting = (sample_shape, sample_shape[:-1] if sample_shape[-1:] == (1,) else sample_shape, (*sample_shape, 1))
    if x.ndim == 0 or x.shape[1:] not in fitting:
        wanted = ", ".join(["N", *map(str, sample_shape)])
        raise DataError(f"{what} have shape {x.shape}, the model takes ({wanted})", "reshape or choose another key")
    if len(x) == 0:
        raise DataError(f"{what} are empty: shape {x.shape}", "give at least one sample")
    finite = np.isfinite(x).reshape(len(x), -1).all(axis=1)
    if not finite.all():
        bad = int(np.argmin(finite))
        raise DataError(f"{what} have NaN or infinite values, first in sample {bad}", "remove or repair the samples")
    if np.issubdtype(x.dtype, np.floating) and np.abs(x).max() > np.finfo(np.float32).max:
        raise DataError(f"{what} have values beyond float32's range", "scale the samples")
    return x.reshape(len(x), *sample_shape)


def choose_shots(y: np.ndarray, shots: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(train indices, test indices): of every class, in order, `shots` samples drawn by `seed`; the rest to test."""
    if shots < 1:
        raise DataError(f"{shots} samples a class to train with, at least 1 is needed", "try --shots 5")
    return _split(y, seed, lambda _: shots)


def choose_fraction(y: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(train indices, test indices): of every class, the `fraction` between 0 and 1 to train, at least one sample."""
    if not 0 < fraction < 1:
        raise DataError(f"the train split is {fraction}, it must lie between 0 and 1", "try --train-split 0.5")
    return _split(y, seed, lambda count: max(1, int(count * fraction + 0.5)))


def choose_share(count: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(train indices, test indices) of `count` samples without classes: the `fraction` to train, at least one."""
    return choose_fraction(np.zeros(count, np.int64), fraction, seed)


def choose_split(
    dataset: Dataset, shots: int | None, fraction: float | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(train indices, test indices): `shots` samples of every class, or a `fraction`, by default half, of each."""
    if shots is not None and fraction is not None:
        raise DataError("shots and a train split exclude each other", "give one of the two")
    share = 0.5 if fraction is None else fraction
    if dataset.y is not None and dataset.y.ndim == 1:
        return choose_fraction(dataset.y, share, seed) if shots is None else choose_shots(dataset.y, shots, seed)
    if shots is not None:
        raise DataError("shots count samples of a class, and this loss has none", "try --train-split 0.5")
    return choose_share(len(dataset), share, seed)


def _split(y: np.ndarray, seed: int, wanted: Callable[[int], int]) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    chosen = []
    for label in np.unique(y):
        indices = random.permutation(np.where(y == label)[0])
        count = wanted(len(indices))
        if len(indices) < count:
            raise DataError(
                f"class {label} has {len(indices)} samples, {count} are asked for", f"try --shots {len(indices)}"
            )
        chosen.append(indices[:count])
    train = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
    return train, np.setdiff1d(np.arange(len(y)), train)


def _load(spec: str, keys_max: int) -> list[np.ndarray]:
    """The arrays that `F.npz:KEY[:KEY]` names, at most `keys_max`."""
    form = "F.npz:X" if keys_max == 1 else "F.npz:X or F.npz:X:Y"
    match = re.fullmatch(r"(.+?\.npz)((?::[^:]*)*)", spec, re.IGNORECASE | re.DOTALL)
    if not match:
        raise DataError(f"{spec} does not name arrays of a .npz file", f"write {form}, such as data.npz:x")
    path, keys = Path(match[1]), match[2].split(":")[1:]
    if not path.is_file():
        raise DataError(f"{path} does not exist or is not a file", "check the path")
    try:
        with np.load(path, allow_pickle=False) as archive:
            _check_keys(spec, path, keys, keys_max, archive.files)
            arrays = [archive[key] for key in keys]
    except DataError:
        raise
    except Exception as error:  # a damaged archive may end in any of zipfile's, zlib's and struct's exceptions
        raise DataError(
            f"{path} cannot be read: {error}", "write it with numpy.savez, numbers only, no pickles"
        ) from error
    for key, array in zip(keys, arrays, strict=True):
        if array.dtype.kind not in "iuf":
            raise DataError(
                f"{path}:{key} has dtype {array.dtype}, supported are integers and floats", "convert the array"
            )
    return arrays


def _check_keys(spec: str, path: Path, keys: list[str], keys_max: int, present: list[str]) -> None:
    listed = ", ".join(present) or "none"
    if not keys or len(keys) > keys_max:
        wanted = "one key" if keys_max == 1 else "one or two keys"
        example = f"{path}:{present[0]}" if present else f"{path}:x"
        raise DataError(f"{spec} gives {len(keys)} keys, expected {wanted}; the file has: {listed}", f"try {example}")
    for key in keys:
        if key not in present:
            raise DataError(f"{path} has no array {key!r}; it has: {listed}", "choose one of these keys")


def _vectors(y: np.ndarray, count: int, form: VectorForm, spec: str) -> np.ndarray:
    if y.shape[:1] != (count,) or y.size != count * form.outputs:
        raise DataError(
            f"targets {spec} have shape {y.shape}, the samples need ({count}, {form.outputs})",
            "give one value an output of the model",
        )
    y = y.reshape(count, form.outputs).astype(np.float64)
    outside = ~((y >= form.low) & (y <= form.high))  # of not a number too
    if outside.any():
        sample, output = (int(i) for i in np.argwhere(outside)[0])
        raise DataError(
            f"target {output} of sample {sample} of {spec} is {y[sample, output]:g}, the loss takes {form.low:g} to "
            f"{form.high:g}",
            "scale the targets",
        )
    return y


def _labels(y: np.ndarray, count: int, classes: int | None, spec: str) -> np.ndarray:
    if y.dtype.kind not in "iu":
        raise DataError(
            f"labels {spec} have dtype {y.dtype}, they must be integers", "convert them with y.astype('int64')"
        )
    if y.shape not in ((count,), (count, 1)):
        raise DataError(f"labels {spec} have shape {y.shape}, the samples need ({count},)", "give one label a sample")
    y = y.reshape(count).astype(np.int64)
    outside = (y < 0) | (y >= classes) if classes is not None else y < 0
    if outside.any():
        index = int(np.argmax(outside))
        limit = f"0 to {classes - 1}" if classes is not None else "0 or more"
        raise DataError(f"label {index} of {spec} is {y[index]}, the model has classes {limit}", "labels count from 0")
    return y

"""A Keras model and calibration samples into int8 .tflite bytes, by LiteRT's converter.

TensorFlow runs in a process of its own (`keras_process`), so that neither its messages nor its memory end up in ours.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tinypeft
from tinypeft.errors import DataError, ModelError, TinypeftError, ToolError

#: Called with each step as it begins, one line of text.
Progress = Callable[[str], None]

_SIGNATURES = {".keras": b"PK\x03\x04", ".h5": b"\x89HDF\r\n\x1a\n"}
_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
    "PYTHONHASHSEED": "0",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TF_USE_LEGACY_KERAS": "0",
}


@dataclass(frozen=True)
class Conversion:
    """A converted model: its bytes, and its Keras layers in order, name -> class name.

    `float_tflite`: the same not quantised, where that was asked for.
    """

    tflite: bytes
    keras_layers: dict[str, str]
    float_tflite: bytes | None = None


def convert_keras(path: str | Path, calibration: np.ndarray, progress: Progress | None = None) -> bytes:
    """The int8 .tflite of a .keras or .h5 model; see `convert`."""
    return convert(path, calibration, progress).tflite


def convert(
    path: str | Path, calibration: np.ndarray, progress: Progress | None = None, with_float: bool = False
) -> Conversion:
    """Quantise a .keras or .h5 model of Keras 3 to int8 throughout, batch size 1; `with_float` converts it once more.

    `calibration` (N, ...) are samples as the model's input takes them; they set the scales of the activations. The same
    input gives the same bytes. ModelError: a damaged file, several inputs or outputs, layers that LiteRT does not have;
    DataError: calibration of the wrong shape, empty or not finite; ToolError: no TensorFlow.
    """
    path = Path(path)
    _check_file(path)
    _check_calibration(calibration)
    if not has_tensorflow():
        raise no_tensorflow()
    with tempfile.TemporaryDirectory(prefix="tinypeft-") as folder:
        np.save(Path(folder, "calibration.npy"), calibration.astype(np.float32))
        answer = _run(path, Path(folder), ["float"] if with_float else [], progress or (lambda step: None))
        floating = Path(folder, "float.tflite").read_bytes() if with_float else None
        return Conversion(Path(folder, "model.tflite").read_bytes(), answer["layers"], floating)


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"{path} does not exist or is not a file", "check the path")
    signature = _SIGNATURES.get(path.suffix.lower())
    if signature is None:
        raise ModelError(f"{path} has the suffix {path.suffix or 'none'}, supported are {', '.join(_SIGNATURES)}")
    with path.open("rb") as file:
        start = file.read(len(signature))
    if start != signature:
        reason = "it is empty" if not start else f"it does not start like a {path.suffix} file"
        raise ModelError(f"{path} is not a Keras model: {reason}", "save it again with model.save('model.keras')")
    if path.suffix.lower() == ".keras" and not zipfile.is_zipfile(path):
        raise ModelError(f"{path} is truncated: the archive has no end", "copy it again, or save it again")


def _check_calibration(calibration: np.ndarray) -> None:
    if calibration.size == 0:
        raise DataError(f"the calibration samples are empty: shape {calibration.shape}", "give some hundred samples")
    if calibration.dtype.kind not in "iuf":
        raise DataError(f"the calibration samples have dtype {calibration.dtype}, supported are integers and floats")
    if not np.isfinite(calibration).all():
        raise DataError("the calibration samples have NaN or infinite values", "remove or repair these samples")


def has_tensorflow() -> bool:
    """Whether TensorFlow is installed, without importing it."""
    try:
        return importlib.util.find_spec("tensorflow") is not None
    except ValueError:  # an entry of sys.modules without a spec
        return False


def no_tensorflow(reason: str = "") -> ToolError:
    """The error that says how to install TensorFlow."""
    return ToolError(
        "TensorFlow, which converts Keras models, is not installed" + (f" properly: {reason}" if reason else ""),
        "pip install tinypeft[keras], or give an int8 .tflite instead",
    )


def tensorflow_command(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """(command, environment) that run `module` with this interpreter, TensorFlow quiet and on the CPU."""
    package_root = str(Path(tinypeft.__file__).parents[1])
    search_path = os.pathsep.join([package_root, *filter(None, sys.path)])
    return [sys.executable, "-P", "-m", module, *arguments], {**os.environ, **_ENVIRONMENT, "PYTHONPATH": search_path}


def _run(path: Path, folder: Path, wanted: list[str], progress: Progress) -> dict[str, Any]:
    """Run the process on `folder`; its answer, or the error that it reports."""
    arguments = str(path.absolute()), str(folder), *wanted
    command, environment = tensorflow_command("tinypeft.frontend.keras_process", *arguments)
    answer: dict[str, Any] = {}
    with (
        Path(folder, "log").open("wb") as log,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment, encoding="utf-8"
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            message = json.loads(line)
            if "step" in message:
                progress(message["step"])
            else:
                answer = message
    if "missing" in answer:
        raise no_tensorflow(answer["missing"])
    if "error" in answer:
        kinds: dict[str, type[TinypeftError]] = {"DataError": DataError, "ModelError": ModelError}
        raise kinds[answer["error"]](answer["message"], answer["hint"])
    if process.returncode != 0 or not answer:
        lines = Path(folder, "log").read_text(errors="replace").strip().splitlines() or ["no message"]
        raise ModelError(
            f"the LiteRT converter crashed on {path} with exit code {process.returncode}: {lines[-1].strip()}",
            "try tf.lite.TFLiteConverter on the model itself",
        )
    return answer

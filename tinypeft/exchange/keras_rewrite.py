"""Merged weights into a Keras model: a .keras file and each layer's deltas in, the bytes of a new .keras out."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tinypeft.errors import AdapterError, ModelError, TinypeftError
from tinypeft.frontend.keras import has_tensorflow, no_tensorflow, tensorflow_command

DELTAS = ("kernel_delta", "bias_delta", "folded_kernel")
_ERRORS: dict[str, type[TinypeftError]] = {"AdapterError": AdapterError, "ModelError": ModelError}


def merge_keras(path: Path | str, deltas: Mapping[str, Mapping[str, np.ndarray]]) -> bytes:
    """A .keras file of the model at `path` (.keras or .h5), without optimiser, with `deltas` added by layer name.

    kernel_delta   in the layout of the layer's kernel (see `layouts.kernel_from_filters`); a separable layer's is that
                   of its pointwise kernel
    bias_delta     (channels)
    folded_kernel  optional: the kernel to which the delta refers, restored from int8. It shows whether the converter
                   folded the BatchNormalization behind the layer, and that this is the model it converted

    Deltas are those of the converted layer. A BatchNormalization right behind the layer is folded into that, so that
    the kernel's delta is divided by gamma / sqrt(variance + epsilon) a channel, and the bias' goes to beta, or divided
    to the layer's bias.
    AdapterError: no such layer, a wrong shape, a delta that cannot be merged, as where gamma is 0; ModelError: a
    damaged model; ToolError: no TensorFlow.
    """
    arrays = {}
    for layer, given in deltas.items():
        if unknown := set(given) - set(DELTAS):
            raise AdapterError(f"layer {layer}: unknown {', '.join(sorted(unknown))}; there are {', '.join(DELTAS)}")
        for name, array in given.items():
            if not np.isfinite(array).all():
                raise AdapterError(f"layer {layer}: {name} has values that are not finite")
            arrays[f"{name}:{layer}"] = np.asarray(array, np.float32)
    with tempfile.TemporaryDirectory(prefix="tinypeft-") as folder:
        run_keras({"job": "merge", "model": str(Path(path).absolute())}, arrays, Path(folder))
        return Path(folder, "merged.keras").read_bytes()


def run_keras(request: dict[str, Any], arrays: Mapping[str, np.ndarray], folder: Path) -> dict[str, Any]:
    """Have a process of its own, which loads Keras, carry out `request`; its answer, its files are in `folder`."""
    if not Path(request["model"]).is_file():
        raise ModelError(f"{request['model']} does not exist or is not a file", "check the path")
    if not has_tensorflow():
        raise no_tensorflow()
    (folder / "request.json").write_text(json.dumps(request))
    np.savez(folder / "arrays.npz", **dict(arrays))  # type: ignore[arg-type]
    command, environment = tensorflow_command("tinypeft.exchange.keras_process", str(folder))
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env=environment, encoding="utf-8")
    answer: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 and done.stdout else {}
    if "missing" in answer:
        raise no_tensorflow(answer["missing"])
    if "error" in answer:
        raise _ERRORS[answer["error"]](answer["message"], answer["hint"])
    if not answer:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise ModelError(
            f"Keras crashed on {request['model']} with exit code {done.returncode}: {lines[-1].strip()}",
            "try keras.models.load_model on it",
        )
    return answer

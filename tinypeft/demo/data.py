"""The demo's files: a Keras model that reads handwritten digits, and the digits that one device sees."""

from __future__ import annotations

import importlib.util
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tinypeft.errors import OutputError, ToolError
from tinypeft.frontend.keras import has_tensorflow, no_tensorflow, tensorflow_command


@dataclass(frozen=True)
class DemoFiles:
    """`model` is digits.keras; `data` digits.npz with `x_base` and the device's `x`, `y`."""

    model: Path
    data: Path


def make_model(directory: str | Path) -> DemoFiles:
    """Train the base model (some seconds) and write digits.keras and digits.npz into `directory`.

    digits.npz: x_base (N,8,8,1) and y_base, digits as the base saw them, for calibration; x, y: digits that it never
    saw, as the device sees them, with a rotated sensor of its own contrast. ToolError: TensorFlow or scikit-learn is
    missing.
    """
    if not has_tensorflow():
        raise no_tensorflow()
    if importlib.util.find_spec("sklearn") is None:
        raise ToolError(
            "the demo takes its digits from scikit-learn, which is not installed", "pip install tinypeft[demo]"
        )
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{directory} cannot be made: {error.strerror}", "choose another folder") from error
    command, environment = tensorflow_command("tinypeft.demo.training", str(directory.absolute()))
    result = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        last = result.stderr.strip().splitlines()[-1:]
        raise ToolError(f"training the demo's model failed: {' '.join(last)}", "check the installation of TensorFlow")
    return DemoFiles(directory / "digits.keras", directory / "digits.npz")

"""docs/personalise.py does what it says."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinypeft import Model

EXAMPLE = Path(__file__).resolve().parents[1] / "docs" / "personalise.py"


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    for package in ("tensorflow", "sklearn"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    done = subprocess.run([sys.executable, str(EXAMPLE), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, after = re.search(r"other digits: ([\d.]+)% -> ([\d.]+)%", done.stdout).groups()
    assert float(after) > float(before) + 10
    assert "exported and imported: the same package" in done.stdout
    merged, agreement = re.search(r"merged: ([\d.]+)%, ([\d.]+)% of decisions", done.stdout).groups()
    assert abs(float(merged) - float(after)) <= 3 and float(agreement) >= 95
    assert f"accuracy of the imported adapter: {after}%" in done.stdout
    keras_outputs_agree(tmp_path)


def keras_outputs_agree(folder: Path) -> None:
    """The merged Keras model decides as the merged .tflite, but for quantisation."""
    import keras

    data = np.load(folder / "digits.npz")
    x, y = data["x"][:200], data["y"][:200]
    merged = keras.models.load_model(folder / "merged.keras")
    predicted = merged.predict(x, verbose=0).argmax(1)
    tflite = Model.load(folder / "merged.tflite").evaluate(x, y, on="interpreter")
    assert np.mean(predicted == tflite.outputs.scores.argmax(1)) > 0.95
    base = keras.models.load_model(folder / "digits.keras").predict(x, verbose=0).argmax(1)
    assert np.mean(predicted == y) > np.mean(base == y) + 0.1

"""What the fuzzer found, smallest first, each as a test of its own."""

from __future__ import annotations

from pathlib import Path

import ai_edge_litert.schema_py_generated as schema
from click.testing import CliRunner
from comparing import EQUAL, REFUSED, Case, compare
from tflite_builder import Node, build_model, int8_tensor, int32_constant
from twins import Toolbox

from tinypeft.adapters import AdapterConfig
from tinypeft.cli import main


def scalar_model() -> bytes:
    """A file whose output is a scalar, of shape ()."""
    x, y = int8_tensor("x", (1, 3, 4), 0.1, 3), int8_tensor("y", (), 0.2, -5)
    axes = int32_constant("axes", [0, 1, 2])
    return build_model(Node("MEAN", schema.ReducerOptionsT(keepDims=False), [x, axes], [y]))


def test_an_output_may_be_a_scalar(toolbox: Toolbox) -> None:
    result = compare(Case("graph", scalar_model(), 0), toolbox, lambda stage: None)
    assert (result.outcome, result.outputs) == (EQUAL, 6), result.reason


def test_generate_reports_a_model_without_weights(tmp_path: Path) -> None:
    (tmp_path / "scalar.tflite").write_bytes(scalar_model())
    arguments = ["generate", str(tmp_path / "scalar.tflite"), "--board", "host", "--adapter", "none"]
    result = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path / "firmware")])
    assert result.exit_code == 0, result.output
    assert "0 trained parameters (0.0% of 0)" in result.output


def test_a_scalar_is_no_vector_of_classes(toolbox: Toolbox) -> None:
    x, y, z = int8_tensor("x", (1, 4), 0.1, 3), int8_tensor("y", (1, 5), 0.2, -5), int8_tensor("z", (), 0.2, -5)
    weights = int8_tensor("w", (5, 4), 0.01, 0, range(20))
    dense = Node("FULLY_CONNECTED", schema.FullyConnectedOptionsT(), [x, weights, None], [y])
    mean = Node("MEAN", schema.ReducerOptionsT(keepDims=False), [y, int32_constant("axes", [0, 1])], [z])
    case = Case("graph", build_model(dense, mean), 0, adapter=AdapterConfig(modules_to_save=()))
    result = compare(case, toolbox, lambda stage: None)
    assert result.outcome == REFUSED and "a classifier's is (1, classes)" in result.reason

"""Parity can fail: one value corrupted in the generated C, and the first difference is named, in every phase."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from projects import Built

from tinypeft.cli import main
from tinypeft.emulators import EMULATORS
from tinypeft.ir import Graph
from tinypeft.parity import Divergence, ParityReport, check_parity
from tinypeft.project import build_twin


def check(built: Built, directory: Path, steps: int = 6) -> ParityReport:
    build_twin(directory)
    with EMULATORS["host"].open(directory, built.opened.board) as device:
        return check_parity(
            built.model,
            built.opened.source.tflite,
            device,
            "host",
            built.samples(3),
            train_steps=steps,
            learning_rate=built.learning_rate,
        )


def after_call(source: Path, graph: Graph, operation: str, statement: str) -> None:
    """Put a statement behind the call of an operation of the training graph, or of another by its function."""
    text = source.read_text()
    name = {
        "inference": "_forward(",
        "training": "_train_step(",
        "update": "_update(",
        "reset": "_reset_adapter(",
        "encode": "_encode(",
        "latent_training": "_train_latents(",
    }[graph.name]
    start = re.search(rf"^tp_status \w+{re.escape(name)}[^;]*?{{$", text, re.MULTILINE).start()
    position = next(i for i, op in enumerate(graph.operations) if op.name == operation)
    comment = text.index(f"/* op {position}: ", start)
    call = text.index("  if (traced(m)) {", comment)
    source.write_text(f"{text[:call]}  {statement}\n{text[call:]}")


def found(report: ParityReport, **expected: object) -> Divergence:
    assert not report.parity and report.first_divergence is not None
    divergence = report.first_divergence
    assert {name: getattr(divergence, name) for name in expected} == expected, divergence
    assert divergence.expected != divergence.actual
    return divergence


def test_a_corrupted_weight(project: Callable[[str], Built], tmp_path: Path) -> None:
    built = project("plain")
    directory = built.copy(tmp_path)
    weights = directory / "src" / "plain_weights.c"
    text, count = re.subn(
        r"(const int8_t plain_stem_kernel\[\d+\] = \{\s+)(-?\d+)", lambda m: f"{m[1]}{-int(m[2])}", weights.read_text()
    )
    assert count == 1
    weights.write_text(text)
    divergence = found(
        check(built, directory),
        phase="inference",
        operator="CONV_2D",
        operation="stem",
        tensor="stem_out",
        between="interpreter and host",
    )
    x = built.samples(3).x
    assert divergence.step in range(len(x)) and divergence.index % 6 == 0, "channel 0 of some pixel"
    assert divergence.expected == int(divergence.expected)


def test_a_corrupted_parameter(project: Callable[[str], Built], tmp_path: Path) -> None:
    """The output's offset of the pooling layer: exactly one more."""
    built = project("residual")
    directory = built.copy(tmp_path)
    params = directory / "src" / "residual_params.h"
    offset = re.compile(r"(tp_fully_connected_params head_params = .*?\.output_offset = )(-?\d+)")
    text, count = offset.subn(lambda m: f"{m[1]}{int(m[2]) + 1}", params.read_text())
    assert count == 1
    params.write_text(text)
    divergence = found(
        check(built, directory), phase="inference", step=0, operator="FULLY_CONNECTED", operation="head", index=0
    )
    assert divergence.actual == divergence.expected + 1


@pytest.mark.parametrize(
    ("operation", "statement", "tensor", "index"),
    [
        ("stem_lora_B_master_update", "m->training->stem_lora_B_master[5] += 1.0f;", "stem_lora_B_master", 5),
        ("dw_backward_input", "d_stem_out.mantissa[7] = (int16_t)(d_stem_out.mantissa[7] + 1);", "d_stem_out", 7),
        ("dw_backward_input", "d_stem_out.exponent += 1;", "d_stem_out", None),
        ("softmax_cross_entropy", "loss[0] += 1;", "loss", 0),
        ("stem_out_mask", "stem_out_mask[3] ^= 1u;", "stem_out_mask", 3),
    ],
)
def test_a_broken_backward(
    project: Callable[[str], Built], tmp_path: Path, operation: str, statement: str, tensor: str, index: int | None
) -> None:
    built = project("plain")
    assert built.model.training is not None
    directory = built.copy(tmp_path)
    op = next((op for op in built.model.training.operations if op.name == operation), None)
    assert op is not None, [o.name for o in built.model.training.operations]
    after_call(directory / "src" / "plain.c", built.model.training, operation, statement)
    report = check(built, directory)
    divergence = found(report, phase="training", step=0, operator=op.kind, operation=operation, tensor=tensor)
    assert report.steps_compared == 0
    if index is not None:
        assert divergence.index == index
    if tensor in ("loss", "stem_lora_B_master"):
        assert divergence.actual == float(np.float32(divergence.expected) + np.float32(1))


@pytest.mark.parametrize(
    ("graph", "operation", "statement", "phase", "tensor"),
    [
        ("encode", "join", "join_out[5] ^= 1;", "encoding", "join_out"),
        ("latent_training", "again", "again_out[5] ^= 1;", "training from latents", "again_out"),
        ("latent_training", "again_backward_b", "d_again_lora_B[1] += 1.0f;", "training from latents", None),
    ],
)
def test_a_broken_kernel_of_latents(
    project: Callable[[str], Built],
    tmp_path: Path,
    graph: str,
    operation: str,
    statement: str,
    phase: str,
    tensor: str | None,
) -> None:
    """Broken in the half alone: the whole step, with which they share their kernels, is right."""
    built = project("latents")
    directory = built.copy(tmp_path)
    of = next(g for g in built.model.graphs if g.name == graph)
    if tensor is None:  # an update in one operation with its gradient
        update = next(op for op in of.operations if op.kind == "UPDATE_ROWS")
        tensor = update.outputs["master"].name
        operation, statement = update.name, f"m->training->{tensor}[1] += 1.0f;"
    after_call(directory / "src" / "residual.c", of, operation, statement)
    report = check(built, directory)
    found(report, phase=phase, step=0, operation=operation, tensor=tensor)
    assert report.steps_compared == 0


@pytest.mark.parametrize(
    ("copy", "phase", "operation", "tensor"),
    [
        (r"memcpy\(latents \+ 0, [^,]*, 216\);", "latents", "state", "join_out"),
        (r"memcpy\([^,]*, latents \+ 0, 216\);", "training from latents", "again_lora_down", "again_hidden"),
    ],
)
def test_a_broken_copy_of_latents(
    project: Callable[[str], Built], tmp_path: Path, copy: str, phase: str, operation: str, tensor: str
) -> None:
    """The last half of them is not copied."""
    built = project("latents")
    directory = built.copy(tmp_path)
    source = directory / "src" / "residual.c"
    text, count = re.subn(copy, lambda m: m[0].replace("216", "108"), source.read_text())
    assert count == 1
    source.write_text(text)
    report = check(built, directory)
    divergence = found(report, phase=phase, step=0, operation=operation, tensor=tensor)
    assert report.steps_compared == 0 and (phase != "latents" or divergence.index >= 108)


def test_a_wrong_exponent_of_zeros(project: Callable[[str], Built], tmp_path: Path) -> None:
    """At the first step B is zero, and with it the gradient of what it multiplies: only its exponent can differ."""
    built = project("plain")
    directory = built.copy(tmp_path)
    assert built.model.training is not None
    statement = "d_stem_hidden.exponent += 3;"
    after_call(directory / "src" / "plain.c", built.model.training, "stem_backward_hidden", statement)
    divergence = found(check(built, directory), phase="training", step=0, tensor="d_stem_hidden.exponent", index=0)
    assert divergence.actual == divergence.expected + 3


def test_a_fault_in_a_later_step(project: Callable[[str], Built], tmp_path: Path) -> None:
    """The rerun that fetches the value starts from the state in front of the step."""
    built = project("plain")
    directory = built.copy(tmp_path)
    statement = "if (label == 3) { loss[0] += 1; }"
    assert built.model.training is not None
    after_call(directory / "src" / "plain.c", built.model.training, "softmax_cross_entropy", statement)
    labels = built.samples(3).y
    assert labels is not None
    first = next((i for i in range(6) if labels[i % 3] == 3), None)
    report = check(built, directory)
    if first is None:
        assert report.parity
        pytest.fail("choose another label: none of the samples has this one")
    divergence = found(report, phase="training", step=first, tensor="loss")
    assert divergence.actual == float(np.float32(divergence.expected) + np.float32(1))


def test_a_fault_in_an_update(project: Callable[[str], Built], tmp_path: Path) -> None:
    """A batch is complete only at the fourth step; the rerun of the update sees as many samples."""
    built = project("batches")
    directory = built.copy(tmp_path)
    graph = built.model.update
    assert graph is not None
    operation = next(op for op in graph.operations if op.kind == "UPDATE_FROM_SUMS")
    master = operation.outputs["master"].name
    after_call(directory / "src" / "plain.c", graph, operation.name, f"m->training->{master}[2] += 1.0f;")
    report = check(built, directory)
    divergence = found(
        report, phase="update", step=3, operator="UPDATE_FROM_SUMS", operation=operation.name, tensor=master, index=2
    )
    assert divergence.actual == pytest.approx(divergence.expected + 1)
    assert report.steps_compared == 3


def test_a_fault_in_the_fresh_adapter(project: Callable[[str], Built], tmp_path: Path) -> None:
    built = project("plain")
    directory = built.copy(tmp_path)
    assert built.model.reset is not None
    operation = built.model.reset.operations[0]
    after_call(
        directory / "src" / "plain.c",
        built.model.reset,
        operation.name,
        f"m->training->{operation.output.name}[1] = 0.5f;",
    )
    divergence = found(check(built, directory), phase="reset", step=0, operator="INITIALIZE_UNIFORM", index=1)
    assert divergence.actual == 0.5


def test_a_fault_in_the_state_alone(project: Callable[[str], Built], tmp_path: Path) -> None:
    """Written behind the last operation, so that only the comparison of all state sees it."""
    built = project("plain")
    directory = built.copy(tmp_path)
    source = directory / "src" / "plain.c"
    end = "  *loss_of_sample = (float)loss[0] / 65536.0f;"
    assert source.read_text().count(end) == 1
    source.write_text(source.read_text().replace(end, "  m->adapter->stem_lora_A[4] ^= 1;\n" + end))
    divergence = found(
        check(built, directory), phase="training", step=0, operator="state", tensor="stem_lora_A", index=4
    )
    assert abs(divergence.actual - divergence.expected) == 1


def test_litert_and_the_interpreter_can_differ_too(
    project: Callable[[str], Built], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both the interpreter and the device are compared with LiteRT: here its output is changed."""
    import tinypeft.parity

    class Wrong(tinypeft.parity.LiteRtOracle):
        def layers(self, sample: np.ndarray) -> dict[int, np.ndarray]:
            layers = super().layers(sample)
            list(layers.values())[2].reshape(-1)[5] ^= 1
            return layers

    monkeypatch.setattr(tinypeft.parity, "LiteRtOracle", Wrong)
    built = project("plain")
    found(
        check(built, built.directory),
        phase="inference",
        step=0,
        operation="pointwise",
        index=5,
        between="LiteRT and interpreter",
    )


def test_overwritten_guard_words_are_no_parity(project: Callable[[str], Built], tmp_path: Path) -> None:
    built = project("plain")
    directory = built.copy(tmp_path)
    source = directory / "src" / "plain.c"
    end = "  *loss_of_sample = (float)loss[0] / 65536.0f;"
    assert source.read_text().count(end) == 1
    source.write_text(source.read_text().replace(end, "  arena[PLAIN_ARENA_BYTES] ^= 1;\n" + end))
    data = built.save_samples(tmp_path / "data.npz")
    result = CliRunner().invoke(main, ["test", str(directory), "--data", data, "--limit", "2", "--train-steps", "1"])
    assert result.exit_code == 1 and "guard words around the arena were overwritten" in result.stdout


def test_the_command_line_tells_it(project: Callable[[str], Built], tmp_path: Path) -> None:
    built = project("plain")
    directory = built.copy(tmp_path)
    assert built.model.training is not None
    statement = "m->training->stem_lora_B_master[5] += 1.0f;"
    after_call(directory / "src" / "plain.c", built.model.training, "stem_lora_B_master_update", statement)
    data = built.save_samples(tmp_path / "data.npz")
    arguments = ["test", str(directory), "--data", data, "--limit", "4", "--train-steps", "5"]
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["parity"] is False and report["steps_compared"] == 0
    first = report["first_divergence"]
    assert (first["phase"], first["step"], first["operator"]) == ("training", 0, "UPDATE_ROWS")
    assert (first["tensor"], first["index"]) == ("stem_lora_B_master", 5) and first["expected"] != first["actual"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1 and "no parity" in result.stdout
    assert re.search(
        r"training 0, UPDATE_ROWS stem_lora_B_master_update,\s+stem_lora_B_master\[5\]: \S+ and \S+", result.stdout
    )

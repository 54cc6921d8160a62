"""What `tinypeft generate` refuses: its exit code, its message, one thing to try, and nothing left behind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest
from click.testing import CliRunner
from invocation import generate, generate_refused
from projects import BOARD, save_model
from tflite_builder import Node, build_model, float_tensor, int8_tensor

from tinypeft.cli import main


@pytest.mark.parametrize(
    ("extra", "message", "hint"),
    [
        (["--target-modules", "nope"], "target_modules 'nope' matches no layer", "candidates: stem, pointwise"),
        (["--target-modules", "dw"], "names dw, which is a depthwise layer", "candidates: stem, pointwise"),
        (["--target-modules", "(("], "no regular expression", "escape"),
        (
            ["--modules-to-save", "dw"],
            "modules_to_save names dw, which is a DEPTHWISE_CONV_2D",
            "stem, pointwise, head",
        ),
        (["--modules-to-save", "hed"], "names hed, which is no layer", "did you mean head"),
        (["--r", "0"], "r is 0, the limits are 1 and 256", "--r 4"),
        (["--r", "-3"], "r is -3", "--r 4"),
        (["--grad-bits", "4"], "grad_bits is 4, gradients have 16 or 8", "--grad-bits 8"),
        (["--clip-norm", "-1"], "clip_norm is -1, the limits are 0", "the default is 0"),
        (["--clip-norm", "1"], "clip_norm is 1, but with batch_size 1", "--batch-size 2"),
        (["--epsilon", "0"], "epsilon is 0, the limits are 1e-30", "the default is 1e-07"),
        (["--beta-1", "0.8"], "beta_1 is 0.8, but sgd has none", "adam or adam8 has"),
        (["--optimizer", "adam", "--momentum", "0.9"], "momentum is 0.9, but adam has none", "sgd has"),
        (["--lora-alpha", "nan"], "lora_alpha is nan", "--lora-alpha 8"),
        (["--adapter", "dora"], "no adapter kind dora", "lora"),
        (["--board", "stm32f4_discover"], "unknown board 'stm32f4_discover'", f"did you mean {BOARD}"),
        (["--config", "absent.toml"], "cannot read absent.toml", "check the path"),
        (["--calibration", "absent.npz:x"], "absent.npz does not exist", "check the path"),
    ],
)
def test_bad_options(tmp_path: Path, extra: list[str], message: str, hint: str) -> None:
    generate_refused(generate(save_model("plain", tmp_path), tmp_path / "p", *extra), tmp_path / "p", message, hint)


@pytest.mark.parametrize(
    "extra",
    [
        ["--momentum", "1"],
        ["--batch-size", "0"],
        ["--optimizer", "adagrad"],
        ["--stack-bytes", "100"],
        ["--stack-bytes", "1001"],
        ["--r", "many"],
        ["--nonsense"],
        ["second.tflite"],
    ],
)
def test_usage_errors(tmp_path: Path, extra: list[str]) -> None:
    generate_refused(
        generate(save_model("plain", tmp_path), tmp_path / "p", *extra), tmp_path / "p", "(Usage|Error): ", code=2
    )


@pytest.mark.parametrize("left_out", ["MODEL", "--board", "--output"])
def test_what_is_missing_is_named(tmp_path: Path, left_out: str) -> None:
    given = {
        "MODEL": [str(tmp_path / "m.tflite")],
        "--board": ["--board", BOARD],
        "--output": ["-o", str(tmp_path / "p")],
    }
    result = CliRunner().invoke(
        main, ["generate", *(a for key, each in given.items() if key != left_out for a in each)]
    )
    assert result.exit_code == 2 and f"Missing {left_out}" in result.stderr


def _truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".tflite", b"", "is empty|no .tflite|not a .tflite|cannot be read|too short"),
        (".tflite", b"TFL3" * 100, "tflite"),
        (".tflite", _truncated, "tflite"),
        (".onnx", b"x", "has the suffix .onnx, supported are .keras, .h5, .tflite"),
        (".keras", b"x", "none are given"),
    ],
)
def test_files_that_are_no_models(
    tmp_path: Path, suffix: str, content: bytes | Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content if isinstance(content, bytes) else content(save_model("plain", tmp_path).read_bytes()))
    result = generate(path, tmp_path / "p")
    assert result.exit_code == 1 and str(path) in result.stderr and re.search(message, result.stderr), result.stderr
    assert "Traceback" not in result.stderr and not (tmp_path / "p").exists()


@pytest.mark.parametrize("step", [1, 7])
def test_a_damaged_tflite_never_gives_a_traceback(tmp_path: Path, step: int) -> None:
    """Cut or overwritten at many places: either refused with a message or, where it does not matter, compiled."""
    good = save_model("mlp", tmp_path).read_bytes()
    rng = np.random.default_rng(step)
    path = tmp_path / "damaged.tflite"
    for number in range(25):
        data = bytearray(good)
        if step == 1:
            del data[int(rng.integers(len(data))) :]
        else:
            for position in rng.integers(0, len(data), 4):
                data[position] = int(rng.integers(256))
        path.write_bytes(bytes(data))
        result = generate(path, tmp_path / f"p{number}", "--json", board="host")
        assert result.exit_code in (0, 1), f"{number}: {result.output}"
        if result.exit_code == 1:
            assert result.stderr.startswith("error: ") and "Traceback" not in result.output


def test_an_unsupported_operator_is_named_with_its_layer_and_what_is_supported(tmp_path: Path) -> None:
    x, y = int8_tensor("x", (1, 6), 0.1), int8_tensor("m/squash/Cos", (1, 6), 1 / 128)
    (tmp_path / "cosine.tflite").write_bytes(build_model(Node("COS", None, [x], [y])))
    result = generate(tmp_path / "cosine.tflite", tmp_path / "p")
    generate_refused(
        result, tmp_path / "p", "operator COS of layer squash.* is not supported; COS .*; supported: .*CONV_2D"
    )


def test_a_float_model_is_refused(tmp_path: Path) -> None:
    options = schema.AddOptionsT()
    node = Node(
        "ADD", options, [float_tensor("a", (1, 4)), float_tensor("b", (1, 4))], [float_tensor("m/sum/add", (1, 4))]
    )
    (tmp_path / "float.tflite").write_bytes(build_model(node))
    result = generate(tmp_path / "float.tflite", tmp_path / "p")
    assert result.exit_code == 1 and "Traceback" not in result.stderr and not (tmp_path / "p").exists()
    assert re.search("float|inputs", result.stderr)


def test_a_folder_with_other_content_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    result = generate(save_model("plain", tmp_path), folder)
    assert result.exit_code == 1 and "not empty and not a tinypeft project" in result.stderr
    assert [p.name for p in folder.iterdir()] == ["mine.txt"] and not list(tmp_path.glob(".p.*"))
    (tmp_path / "file").write_text("mine")
    result = generate(save_model("plain", tmp_path), tmp_path / "file")
    assert result.exit_code == 1 and (tmp_path / "file").read_text() == "mine"


def test_an_earlier_project_is_replaced_or_kept_whole(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    assert generate(save_model("plain", tmp_path), folder, board="host").exit_code == 0
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert generate(save_model("mlp", tmp_path), folder, "--r", "0", board="host").exit_code == 1
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert generate(save_model("mlp", tmp_path), folder, board="host").exit_code == 0
    assert (folder / "src" / "mlp.c").exists() and not (folder / "src" / "plain.c").exists()


CONFIG = """
[model]
path = "plain.tflite"
[board]
name = "host"
[adapter]
r = 2
target_modules = ["stem"]
[output]
directory = "out"
"""


def test_a_configuration_file_and_flags_over_it(tmp_path: Path) -> None:
    save_model("plain", tmp_path)
    config = tmp_path / "tinypeft.toml"
    config.write_text(CONFIG)
    result = CliRunner().invoke(main, ["generate", "--config", str(config), "--json"])
    assert result.exit_code == 0, result.output
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["adapter"]["r"] == 2 and manifest["adapter"]["target_modules"] == ["stem"]
    result = CliRunner().invoke(main, ["generate", "--config", str(config), "--r", "3", "--target-modules", "point.*"])
    assert result.exit_code == 0, result.output
    adapter = json.loads((tmp_path / "out" / "manifest.json").read_text())["adapter"]
    assert (adapter["r"], adapter["target_modules"]) == (3, "point.*")


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (("r = 2", "rang = 2"), "unknown key adapter.rang", "known: kind, r"),
        (("r = 2", "lora_alfa = 2"), "unknown key adapter.lora_alfa", "did you mean lora_alpha"),
        (("[adapter]", "[adaptor]"), r"unknown section \[adaptor\]", "did you mean adapter"),
        (("r = 2", 'r = "2"'), "adapter.r is '2', expected int", ""),
        (("r = 2", "r = true"), "adapter.r is True, expected int", ""),
        (("r = 2", "r = "), "is no TOML", ""),
        (("r = 2", "r = 0"), "r is 0, the limits", ""),
        (("r = 2", "r = 300"), "r is 300, the limits", ""),
        (('["stem"]', "[1, 2]"), "adapter.target_modules", ""),
        (('name = "host"', 'name = "hots"'), "unknown board 'hots'", "did you mean host"),
        (("[adapter]", "[training]\nbatch_size = 0\n[adapter]"), "batch_size is 0", ""),
        (("[adapter]", "[training]\ngrad_bits = 12\n[adapter]"), "grad_bits is 12", ""),
        (("[adapter]", "[training]\nmomentum = 2\n[adapter]"), "momentum is 2", ""),
        (("[adapter]", '[training]\noptimizer = "adagrad"\n[adapter]'), "no optimizer adagrad", "sgd"),
        (("[adapter]", "[training]\nnesterov = 1\n[adapter]"), "training.nesterov is 1, expected bool", ""),
        (("[adapter]", "[training]\nnesterov = true\n[adapter]"), "nesterov is on, but momentum is 0", "--momentum"),
        (("[adapter]", "[training]\nbeta_2 = 1\n[adapter]"), "beta_2 is 1, it must be", "--beta-2 0.999"),
        (("[adapter]", "[training]\nbeta1 = 0.8\n[adapter]"), "unknown key training.beta1", "did you mean beta_1"),
        (('name = "host"', f'name = "{BOARD}"\nstack_bytes = 0'), "stack", ""),
        (('name = "host"', f'name = "{BOARD}"\nstack_bytes = -8'), "stack", ""),
    ],
)
def test_bad_configuration_files(tmp_path: Path, change: tuple[str, str], message: str, hint: str) -> None:
    save_model("plain", tmp_path)
    config = tmp_path / "tinypeft.toml"
    assert change[0] in CONFIG
    config.write_text(CONFIG.replace(*change))
    result = CliRunner().invoke(main, ["generate", "--config", str(config)])
    assert result.exit_code in (1, 2), result.output
    generate_refused(result, tmp_path / "out", message, hint, code=result.exit_code)

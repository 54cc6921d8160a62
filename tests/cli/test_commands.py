"""`run`, `test`, `train`, `build` and `supported-ops`: their JSON and their files."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from invocation import invoke, refused, succeeded
from projects import CONFIGURATIONS, TRAINABLE, Built
from safetensors.numpy import load_file

from tinypeft.adapter_state import quantizer_states
from tinypeft.adapters.lora_options import layer_rank
from tinypeft.device import Device
from tinypeft.frontend.lowering import LOWERINGS
from tinypeft.frontend.unsupported import UNSUPPORTED
from tinypeft.interpreter import run_graph
from tinypeft.ops import OPS
from tinypeft.schedule import Schedule
from tinypeft.state import unpack_adapter


def test_run(plain: Built, data: str) -> None:
    report = succeeded("run", plain.directory, "--data", data)
    dataset, state = plain.samples(20), plain.model.fresh_state(0)
    assert dataset.y is not None
    name = plain.model.inference.inputs[0].name
    results = [run_graph(plain.model.inference, {name: x}, state) for x in dataset.x]
    outputs = np.concatenate([outputs[0] for outputs in results])
    predicted = np.array([int(logits.argmax()) for _, logits in results])
    accuracy = float(np.mean(predicted == dataset.y))
    digest = hashlib.sha256(outputs.tobytes()).hexdigest()
    measured = {"outputs_sha256": digest, "accuracy": accuracy, "instructions_per_inference": None}
    measured["mean_squared_error"] = None
    assert report == {**measured, "ran_on": "host"}
    unlabelled = succeeded("run", plain.directory, "--data", data.removesuffix(":y"), "--limit", "3")
    assert unlabelled["accuracy"] is None
    assert unlabelled["outputs_sha256"] == hashlib.sha256(outputs[:3].tobytes()).hexdigest()


def test_test(plain: Built, data: str) -> None:
    report = succeeded("test", plain.directory, "--data", data, "--limit", "3", "--train-steps", "4")
    assert set(report) == {"parity", "layers_compared", "steps_compared", "first_divergence", "ran_on"}
    assert report["parity"] is True and report["steps_compared"] == 4 and report["first_divergence"] is None
    assert report["layers_compared"] > 100


QUICK = ("batches", "no_saved_module", "float_edges", "conv_mean", "autoencoder")


LORA = [name for name in TRAINABLE if set(CONFIGURATIONS[name][1].kinds) <= {"lora", "modules_to_save"}]


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in LORA])
def test_train_and_run_again(project: Callable[[str], Built], tmp_path: Path, name: str) -> None:
    """The files hold what the device learned: PEFT's names and shapes, a package that gives the accuracy reported."""
    built = project(name)
    data = built.save_samples(tmp_path / "data.npz", 40)
    arguments = [
        "train",
        built.directory,
        "--data",
        data,
        "--train-split",
        "0.5",
        "--epochs",
        "3",
        "--lr",
        str(built.learning_rate),
    ]
    report = succeeded(*arguments, "-o", tmp_path / "adapter")
    required = {"accuracy_before", "accuracy_after", "steps", "adapter_sha256", "instructions_per_step"}
    assert required <= set(report) and report["guards_intact"] is True
    package = (tmp_path / "adapter" / "adapter.bin").read_bytes()
    assert hashlib.sha256(package).hexdigest() == report["adapter_sha256"]
    assert succeeded(*arguments)["adapter_sha256"] == report["adapter_sha256"], "the same seed gives the same adapter"
    assert succeeded(*arguments, "--seed", "5")["adapter_sha256"] != report["adapter_sha256"]

    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    layers = {op.layer: op for op in built.model.base.operations if "filter" in op.inputs}
    assert set(tensors) == {f"base_model.model.{p.peft_name}" for p in built.model.parameters}
    for key, array in tensors.items():
        layer, part = re.fullmatch(r"base_model\.model\.(\w+)\.(lora_[AB]\.weight|weight|bias)", key).groups()
        out, r = layers[layer].output.shape[-1], layer_rank(built.model.adapter, layer)
        filters = layers[layer].inputs["filter"].shape
        conv = layers[layer].kind == "CONV_2D"
        shapes = {
            "lora_A.weight": (r, filters[3], *filters[1:3]) if conv else (r, filters[1]),
            "lora_B.weight": (out, r, 1, 1) if conv else (out, r),
            "weight": (out, filters[3], *filters[1:3]) if conv else filters,
            "bias": (out,),
        }
        assert array.dtype == np.float32 and array.shape == shapes[part], key
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", built.model.adapter.r, 8.0)
    assert set(config["target_modules"]) == {k.split(".")[2] for k in tensors if ".lora_A" in k}
    assert set(config["modules_to_save"] or []) == {k.split(".")[2] for k in tensors if ".lora_" not in k}
    assert config["tinypeft"]["fingerprint"] == built.model.fingerprint.hex()

    trained = succeeded("run", built.directory, "--data", data, "--adapter", tmp_path / "adapter")
    state = unpack_adapter(built.model, package)
    name = built.model.inference.inputs[0].name
    outputs = [run_graph(built.model.inference, {name: x}, state)[0] for x in built.samples(40).x]
    assert trained["outputs_sha256"] == hashlib.sha256(np.concatenate(outputs).tobytes()).hexdigest()
    assert trained == succeeded(
        "run", built.directory, "--data", data, "--adapter", tmp_path / "adapter" / "adapter.bin"
    )


def test_the_files_masters_are_what_the_package_quantises(plain: Built, data: str, tmp_path: Path) -> None:
    succeeded("train", plain.directory, "--data", data, "--epochs", "2", "-o", tmp_path / "a")
    tensors = load_file(tmp_path / "a" / "adapter_model.safetensors")
    state = {
        p.master.name: p.from_peft(tensors[f"base_model.model.{p.peft_name}"]).astype(np.float32)
        for p in plain.model.parameters
    }
    package = unpack_adapter(plain.model, (tmp_path / "a" / "adapter.bin").read_bytes())
    assert plain.model.requantize is not None
    state |= {t.name: np.zeros(t.shape, t.dtype) for t in quantizer_states(plain.model)}
    run_graph(plain.model.requantize, {}, state)
    for p in plain.model.parameters:
        assert (state[p.quantized.name] == package[p.quantized.name]).all(), p.name


@pytest.mark.parametrize("name", ["plain", "clipped"])
def test_a_schedule_counts_updates(
    project: Callable[[str], Built], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The device is given the rate of each update, which all samples of a batch share; the files tell the schedule."""
    built = project(name)
    data, given = built.save_samples(tmp_path / "data.npz", 28), []
    step, update = Device.train_step, Device.update
    monkeypatch.setattr(Device, "train_step", lambda d, x, y, r, **o: (given.append(r), step(d, x, y, r, **o))[1])
    monkeypatch.setattr(Device, "update", lambda d, r, **o: (given.append(("update", r)), update(d, r, **o))[1])
    options = ["--schedule", "cosine", "--warmup", "0.25", "--final-fraction", "0.1", "--lr", "0.01"]
    arguments = ["train", built.directory, "--data", data, "--train-split", "0.5", "--epochs", "2"]
    report = succeeded(*arguments, *options, "-o", tmp_path / "adapter")
    samples, batch = report["steps"] // 2, built.model.training_config.batch_size
    updates = [list(range(i, min(i + batch, samples))) for i in range(0, samples, batch)] * 2
    schedule = Schedule(0.01, "cosine", round(0.25 * len(updates)), len(updates), 0.1)
    expected: list = []
    for number, members in enumerate(updates):
        rate = float(schedule.rate(number))
        expected += [rate] * len(members) + ([("update", rate)] if batch > 1 else [])
    assert given == expected and len(updates) > 4
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["tinypeft"]
    assert Schedule(**config["schedule"]) == schedule
    assert succeeded(*arguments, "--lr", "0.01")["adapter_sha256"] != report["adapter_sha256"]
    refused(invoke(*arguments, "--warmup", "1.5"), "the warm-up is 1.5")


def test_commands_for_people(plain: Built, data: str, tmp_path: Path) -> None:
    run = invoke("run", plain.directory, "--data", data)
    assert run.exit_code == 0 and re.search(
        r"20 samples on host; outputs' SHA-256 [0-9a-f]{64}\naccuracy \d", run.stdout
    )
    test = invoke("test", plain.directory, "--data", data, "--limit", "2", "--train-steps", "1")
    assert test.exit_code == 0 and "parity: LiteRT = interpreter = host" in test.stdout
    train = invoke("train", plain.directory, "--data", data, "--epochs", "2", "-o", tmp_path / "a")
    assert train.exit_code == 0 and re.search(r"accuracy on other samples: [\d.]+% -> [\d.]+%", train.stdout)
    assert f"adapter written to {tmp_path / 'a'}" in train.stdout.replace("\n", "")


def _real_outputs(built: Built) -> np.ndarray:
    """What the model gives for its samples, as real values (N, outputs)."""
    model = built.model
    state, name = model.fresh_state(0), model.inference.inputs[0].name
    results = [run_graph(model.inference, {name: x}, state)[-1] for x in built.samples(20).x]
    tensor = model.inference.outputs[-1]
    assert tensor.scale is not None
    return (np.concatenate(results).astype(np.float64).reshape(20, -1) - tensor.zero_point) * float(tensor.scale[0])


@pytest.mark.parametrize("name", ["binary", "binary_end", "regression", "autoencoder"])
def test_losses_without_labels(project: Callable[[str], Built], tmp_path: Path, name: str) -> None:
    """Vectors are compared value by value: decisions have an accuracy, others a mean squared error."""
    built = project(name)
    data, dataset = built.save_samples(tmp_path / "data.npz"), built.samples(20)
    real, report = _real_outputs(built), succeeded("run", built.directory, "--data", data)
    y, tensor = dataset.y, built.model.inference.inputs[0]
    if y is None:
        assert tensor.scale is not None
        y = (dataset.x.reshape(20, -1).astype(np.float64) - tensor.zero_point) * float(tensor.scale[0])
    if built.model.loss.classifies:
        accuracy = float(np.mean((real > (0.5 if name == "binary_end" else 0.0)) == (y > 0.5)))
        assert (report["accuracy"], report["mean_squared_error"]) == (accuracy, None)
    else:
        assert report["accuracy"] is None and report["mean_squared_error"] == float(np.mean((real - y) ** 2))
    trained = succeeded("train", built.directory, "--data", data, "--epochs", "2", "--lr", "0.02")
    figures = [trained[f"{figure}_{when}"] for figure in ("accuracy", "error") for when in ("before", "after")]
    assert [figure is None for figure in figures] == [not built.model.loss.classifies] * 2 + [
        built.model.loss.classifies
    ] * 2
    people = invoke("train", built.directory, "--data", data, "--epochs", "1", "--lr", "0.02")
    wanted = "accuracy" if built.model.loss.classifies else "mean squared error"
    assert people.exit_code == 0 and f"{wanted} on other samples: " in people.stdout, people.output
    assert succeeded("test", built.directory, "--data", data, "--limit", "2", "--train-steps", "2")["parity"] is True
    refused(invoke("train", built.directory, "--data", data, "--shots", "1"), "--shots counts samples of a class", 2)


def test_targets_that_do_not_suit_the_loss(project: Callable[[str], Built], tmp_path: Path) -> None:
    binary, alone = project("binary"), project("autoencoder")
    data = binary.save_samples(tmp_path / "data.npz")
    refused(invoke("train", binary.directory, "--data", data.removesuffix(":y")), "names no targets", 2)
    np.savez(tmp_path / "labels.npz", x=binary.samples(20).x, y=np.arange(20) % 5)
    labels = f"{tmp_path / 'labels.npz'}:x:y"
    refused(invoke("train", binary.directory, "--data", labels), r"targets .* have shape \(20,\), .* need \(20, 5\)")
    np.savez(tmp_path / "both.npz", x=alone.samples(20).x, y=np.arange(20))
    both = f"{tmp_path / 'both.npz'}:x:y"
    refused(invoke("train", alone.directory, "--data", both), "is trained to give its input", 2)


def test_build(plain: Built, tmp_path: Path) -> None:
    directory = plain.copy(tmp_path)
    shutil.rmtree(directory / "build")
    report = succeeded("build", directory)
    assert {"twin", "elf", "flash_bytes", "ram_bytes"} <= set(report)
    assert Path(report["elf"]).read_bytes() == (plain.directory / "build" / "firmware.elf").read_bytes()
    assert plain.report.ram_bytes is not None and report["ram_bytes"] == plain.report.ram_bytes["total"]


def test_supported_ops() -> None:
    operators = {o["name"]: o for o in succeeded("supported-ops")["operators"]}
    assert set(operators) == {name for name, op in OPS.items() if op.importable} | set(LOWERINGS) | set(UNSUPPORTED)
    for name, row in operators.items():
        if name in UNSUPPORTED:
            assert row["limits"] and not row["forward"] and not row["backends"]
        else:
            assert row["forward"] and "portable" in row["backends"] and row["summary"]
    assert operators["CONV_2D"]["backward"] and operators["SOFTMAX"]["backward"] and not operators["DIV"]["backward"]
    assert "CONV_2D" in invoke("supported-ops").stdout


def test_as_a_process_progress_is_on_stderr(plain: Built, data: str) -> None:
    command = [sys.executable, "-m", "tinypeft", "test", str(plain.directory), "--data", data, "--limit", "2", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["parity"] is True
    assert "inference" in done.stderr

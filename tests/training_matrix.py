"""Every adapter kind with every optimiser and loss: a tiny model compiled each way, and how each trains as lines.

models(variant)                  -> [Combination, ...], compiled
expected_lines(combination, n)   what the interpreter computes, as tests/emulated/matrix/matrix.c prints it
MatrixProject(folder, board)     one folder in which the kernels are compiled once; `lines_of` builds, runs, reads
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from small_models import Net

from tinypeft.adapters import ADAPTERS, AdapterConfig
from tinypeft.boards import Board
from tinypeft.codegen import generate_sources
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.emulators.qemu import machine_command
from tinypeft.frontend import LoadedModel, load_tflite
from tinypeft.interpreter import run_graph, value_bytes
from tinypeft.losses import LOSSES, target_argument
from tinypeft.optimizers import OPTIMIZERS
from tinypeft.project import write_project
from tinypeft.resources import resource_path
from tinypeft.stages.autodiff import TrainingConfig

RUNNER = Path(__file__).parent / "emulated" / "matrix"
SEED, RATE, SAMPLES, OUTPUTS = 1, 0.01, 7, 32
SHAPE = (1, 4, 4, 2)  # as many elements as outputs, so that the input can be the target
BUILD_LIMIT, RUN_LIMIT = 600.0, 300.0

#: settings that let a kind do something in so small a model
_SETTINGS: dict[str, AdapterConfig] = {
    "modules_to_save": AdapterConfig("modules_to_save", modules_to_save=("stem", "head")),
    "sparse": AdapterConfig("sparse", options=(("density", 0.4),)),
    "bottleneck": AdapterConfig("bottleneck", options=(("reduction_factor", 3),)),
    "parallel_bottleneck": AdapterConfig(
        "parallel_bottleneck", options=(("reduction_factor", 3), ("non_linearity", "hard_swish"))
    ),
}
#: class by class: every third is new, the others come in reverse
_CLASSES = ",".join("new" if i % 3 == 0 else str(OUTPUTS - 1 - i) for i in range(OUTPUTS))
VARIANTS: dict[str, AdapterConfig] = {
    **{kind: _SETTINGS.get(kind, AdapterConfig(kind)) for kind in ADAPTERS},
    "lora_4_bits": AdapterConfig("lora", options=(("lora_bits", 4),)),
    "new_classes": AdapterConfig("modules_to_save", modules_to_save=("head",), options=(("head_classes", _CLASSES),)),
    "input_offset_channel": AdapterConfig("input_offset", options=(("input_offset_shape", "channel"),)),
}


def _optimizers() -> dict[str, dict[str, Any]]:
    """Name -> settings of every optimiser in the registry; those with momentum in all their forms."""
    found: dict[str, dict[str, Any]] = {}
    for name, optimizer in OPTIMIZERS.items():
        found[name] = {"optimizer": name}
        if "momentum" in optimizer.reads:
            found[f"{name}_momentum"] = {"optimizer": name, "momentum": 0.9}
        if "nesterov" in optimizer.reads:
            decay = {"weight_decay": 0.01} if "weight_decay" in optimizer.reads else {}
            found[f"{name}_nesterov"] = {"optimizer": name, "momentum": 0.9, "nesterov": True, **decay}
    return found


TRAININGS: dict[str, TrainingConfig] = {
    f"{optimizer}_{loss}_{target}": TrainingConfig(loss=loss, target=target, **settings)
    for optimizer, settings in _optimizers().items()
    for loss, entry in LOSSES.items()
    for target in entry.targets
}


@dataclass(frozen=True)
class Combination:
    """A variant with a training, compiled; `name` is that of its C."""

    name: str
    model: CompiledModel


@functools.cache
def source() -> LoadedModel:
    """A convolution, a depthwise one, a dense layer with as many outputs as inputs."""
    net = Net(SHAPE, 21)
    net.conv("stem", 6)
    net.depthwise("dw", stride=2)
    net.reshape("flat")
    net.dense("head", OUTPUTS)
    return load_tflite("tiny", net.build(), {})


@functools.cache
def models(variant: str) -> tuple[Combination, ...]:
    """The variant with every training."""
    found = []
    for training, config in TRAININGS.items():
        name = f"{variant}_{training}"
        model = compile_model(name, source().fingerprint, source().graph, VARIANTS[variant], config)
        found.append(Combination(name, model))
    return tuple(found)


@functools.cache
def _data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(inputs int8, targets in [0, 1], labels)."""
    rng = np.random.default_rng(3)
    inputs = rng.integers(-128, 128, (SAMPLES, *SHAPE), np.int8)
    return inputs, rng.uniform(0, 1, (SAMPLES, OUTPUTS)), rng.integers(0, OUTPUTS, SAMPLES)


def expected_lines(combination: Combination, steps: int) -> list[str]:
    """What the interpreter computes from SEED."""
    model = combination.model
    assert model.training is not None
    inputs, targets, labels = _data()
    state = model.fresh_state(SEED)
    tensors = [*model.adapter_weights, *model.training_state]

    def line(step: int, loss: np.float32) -> str:
        sums = " ".join(f"{zlib.crc32(value_bytes(state[t.name])[0]):08x}" for t in tensors)
        return f"{combination.name} {step:08x} {int(loss.view(np.uint32)):08x} {sums}"

    lines = [line(0, np.float32(0))]
    argument = model.training.inputs[0].name
    for step in range(steps):
        sample = step % SAMPLES
        y = targets[sample] if model.target is not None and model.target.shape else labels[sample]
        arguments = {argument: inputs[sample], "learning_rate": np.float32(RATE)} | target_argument(model.target, y)
        (loss,) = run_graph(model.training, arguments, state)[:1]
        lines.append(line(step + 1, np.float32(loss[0]) / np.float32(65536)))
    output = run_graph(model.inference, {model.inference.inputs[0].name: inputs[0]}, state)[0]
    return [*lines, f"{combination.name} output {zlib.crc32(value_bytes(output)[0]):08x}"]


def first_difference(combination: Combination, expected: list[str], actual: list[str]) -> str | None:
    """A sentence for the first value of a combination that differs; None where all lines are equal."""
    tensors = [t.name for t in (*combination.model.adapter_weights, *combination.model.training_state)]
    for e, a in zip(expected, actual, strict=False):
        values = zip(e.split()[1:], a.split()[1:], strict=False)
        at = next((i for i, (one, other) in enumerate(values) if one != other), None)
        if at is not None:
            names = ["the step", "the loss", *tensors] if "output" not in e else ["the line", "the output"]
            return f"{combination.name}: {names[at]} differs in the line {e.split()[1]}, which came as {a}"
        if e != a:
            return f"{combination.name}: expected {e}, found {a}"
    if len(expected) != len(actual):
        return f"{combination.name}: {len(actual)} lines, expected {len(expected)}: {actual[-1:]}"
    return None


class MatrixProject:
    """A project of `board` whose Makefile is given the model sources to build with everything else that it has."""

    def __init__(self, folder: Path, board: Board):
        self.board, self.built = board, 0
        kernels = [path.name for path in resource_path("firmware", "kernels").glob("*.c")]
        runner = {path.name: path.read_text() for path in RUNNER.iterdir()}
        self.folder = write_project(
            folder / "project", board, model_name="matrix", sources=runner, kernels=kernels, stack_bytes=8192,
            manifest={}, files={},
        )  # fmt: skip

    def build(self, combinations: Sequence[Combination], steps: int, *targets: str) -> None:
        """Compile what these need; the firmware has them all, one after the other."""
        files = {"matrix_table.c": _table(combinations, steps)}
        for combination in combinations:
            name = combination.name
            made = generate_sources(combination.model).files
            renamed = f"#define tp_device_model {name}_device_model\n#define tp_device_init {name}_device_init\n"
            files |= made | {f"{name}_device.c": renamed + made[f"{name}_device.c"]}
        for name, text in files.items():
            path = self.folder / "src" / name
            if not path.exists() or path.read_text() != text:  # what has not changed need not be compiled again
                path.write_text(text)
        sources = ["src/matrix.c", *(f"src/{name}" for name in files if name.endswith(".c"))]
        command = ["make", "--silent", "--no-print-directory", f"-j{os.cpu_count() or 1}", f"MODEL={' '.join(sources)}"]
        environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
        run = subprocess.run(
            [*command, *targets], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=BUILD_LIMIT
        )
        assert run.returncode == 0, run.stdout + run.stderr

    def host_lines(self) -> list[str]:
        """What the twin that was built last prints."""
        self.built += 1
        library = shutil.copy(self.folder / "build" / "libtwin.so", self.folder / f"twin{self.built}.so")
        lines: list[bytes] = []
        write = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_uint8), ctypes.c_uint32)
        ctypes.CDLL(str(library)).matrix_run(write(lambda data, size: lines.append(ctypes.string_at(data, size))))
        return b"".join(lines).decode().splitlines()

    def qemu_lines(self) -> list[str]:
        """What the firmware that was built last prints on its console."""
        elf = str(self.folder / "build" / "firmware.elf")
        command = [*machine_command(self.board.emulators["qemu"]), "-serial", "stdio", "-kernel", elf]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        timer = threading.Timer(RUN_LIMIT, process.kill)
        timer.start()
        lines = []
        try:
            assert process.stdout
            for line in process.stdout:
                lines.append(line.rstrip("\n"))
                if lines[-1] == "done":
                    break
        finally:
            timer.cancel()
            process.kill()
            process.communicate()
        return lines


def _table(combinations: Sequence[Combination], steps: int) -> str:
    """The C of matrix.h's tables."""
    inputs, targets, labels = _data()
    q16 = np.floor(targets * 65536 + 0.5).astype(np.int32)
    lines = ['#include "matrix.h"', "#include <stddef.h>", ""]
    for combination in combinations:
        name, model = combination.name, combination.model
        lines += [f"extern const tp_model {name}_device_model;", f"tp_status {name}_device_init(void);"]
        for part, tensors in (("adapter", model.adapter_weights), ("training", model.training_state)):
            sizes = ", ".join(str(t.nbytes) for t in tensors)
            lines.append(f"static const uint16_t {name}_{part}[] = {{{sizes}, 0}};")
    lines.append("const matrix_entry matrix_entries[] = {")
    for name in (combination.name for combination in combinations):
        lines.append(f'  {{"{name}", &{name}_device_model, {name}_device_init, {name}_adapter, {name}_training}},')
    lines += ["  {NULL, NULL, NULL, NULL, NULL},", "};"]
    lines += [f"const uint32_t matrix_steps = {steps}, matrix_samples = {SAMPLES};"]
    lines += [f"const float matrix_rate = {float(np.float32(RATE)).hex()}f;"]
    for ctype, table, values in (
        ("int8_t", "inputs", inputs), ("int32_t", "targets", q16), ("int32_t", "labels", labels),
    ):  # fmt: skip
        lines.append(f"const {ctype} matrix_{table}[] = {{{', '.join(map(str, values.reshape(-1)))}}};")
    return "\n".join(lines) + "\n"


def by_model(lines: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """(name, its lines) in order of their first."""
    found: dict[str, list[str]] = {}
    for line in lines:
        found.setdefault(line.split(" ")[0], []).append(line)
    return iter(found.items())

"""Inference and the backward pass are integers alone: none of their kernels reaches the FPU or a float helper."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import small_models
from elf_calls import OBJDUMP, Code, disassemble
from training_matrix import TRAININGS, VARIANTS, source

from tinypeft.adapters import AdapterConfig
from tinypeft.boards import load_board
from tinypeft.codegen import generate_sources
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.ir import Operation
from tinypeft.project import write_project
from tinypeft.project.render import LINK_FLAGS
from tinypeft.resources import resource_path
from tinypeft.stages.autodiff import TrainingConfig

#: board -> what its code is compiled for, where that is not the board's own
CORES = {
    "qemu_cortex_m0": "",
    "mps2_an385": "",
    "mps3_an547": "-mcpu=cortex-m55+nofp -mthumb -mfloat-abi=soft",
}
#: where float32 begins, beside what quantises masters: their updates, of which the gradients' rows are integers again
FLOAT = {"UPDATE_ROWS", "UPDATE_FROM_SUMS", "DENSE_RETRAIN"}

#: does use it: through a function of its own, and in itself
_FLOATING = """
#include "floating.h"
__attribute__((noipa)) static float half(float x) { return x * 0.5f; }
int32_t floating_inside(int32_t x) { return (int32_t)((float)x * 0.37f); }
int32_t floating_below(int32_t x) { return x > 3 ? (int32_t)half((float)x) : x; }
int32_t floating_never(int32_t x) { return (int32_t)(((int64_t)x * 12345) / (x | 1)); }
__attribute__((noipa)) int32_t floating_unknown(int32_t (*function)(int32_t), int32_t x) {
  return function(x) + 1;
}
int32_t floating_pointed(int32_t x) { return floating_unknown(floating_below, x) + 1; }
"""
_HEADER = """
#include <stdint.h>
int32_t floating_inside(int32_t x);
int32_t floating_below(int32_t x);
int32_t floating_never(int32_t x);
int32_t floating_unknown(int32_t (*function)(int32_t), int32_t x);
int32_t floating_pointed(int32_t x);
"""


@functools.cache
def models() -> tuple[CompiledModel, ...]:
    """Every kind with every loss, and every small model with a LoRA."""
    losses = {(config.loss, config.target): config for config in TRAININGS.values() if config.optimizer == "sgd"}
    fingerprint = b"\0" * 32
    found = [
        compile_model("m", fingerprint, source().graph, variant, config)
        for variant in VARIANTS.values()
        for config in losses.values()
    ]
    for name in small_models.MODELS:
        found.append(
            compile_model(
                "m", fingerprint, small_models.load(name).graph, AdapterConfig(), TrainingConfig(batch_size=2)
            )
        )
    return tuple(found)


def kernel_functions(model: CompiledModel) -> dict[str, str]:
    """C function -> the operator, of all that a model computes in integers."""
    assert model.training is not None and model.requantize is not None
    quantizers = {op.kind for op in model.requantize.operations}
    found: dict[str, str] = {}
    for operation in (*model.inference.operations, *model.training.operations):
        if operation.kind == "UPDATE_ROWS":
            gradient: Operation = operation.attributes["gradient"]
            found[gradient.op.row_function(gradient).name] = gradient.kind
        dtypes = {t.dtype for t in (*operation.inputs.values(), *operation.outputs.values())}
        edge = operation.kind in ("QUANTIZE", "DEQUANTIZE") and "float32" in dtypes
        call = None if edge or operation.kind in FLOAT | quantizers else operation.op.call(operation)
        if call is not None:
            found[call.function] = operation.kind
    return found


def build(folder: Path, board_name: str) -> Code:
    """Firmware of the model `plain` with LoRA and a retrained head, and of every kernel there is."""
    board = load_board(board_name)
    model = compile_model("plain", b"\0" * 32, small_models.load("plain").graph, AdapterConfig(), TrainingConfig())
    kernels = [path.name for path in resource_path("firmware", "kernels").glob("*.c")]
    sources = generate_sources(model).files | {"floating.h": _HEADER, "floating.c": _FLOATING}
    project = write_project(
        folder / "project", board, model_name="plain", sources=sources, kernels=kernels, stack_bytes=2048, manifest={},
        files={},
    )  # fmt: skip
    link = " ".join(
        [*(flag for flag in LINK_FLAGS if "gc-sections" not in flag), "-Wl,--emit-relocs", "-Tboard/linker.ld"]
    )
    command = ["make", "--silent", f"-j{os.cpu_count() or 1}", f"LINK={link}"]
    command += [f"CPU={CORES[board_name]}"] if CORES[board_name] else []
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    run = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    return disassemble(project / "build" / "firmware.elf")


@pytest.mark.parametrize("board", CORES)
def test_integer_kernels_are_free_of_floating_point(tmp_path: Path, board: str) -> None:
    for tool in ("arm-none-eabi-gcc", OBJDUMP):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed; apt install gcc-arm-none-eabi")
    code = build(tmp_path, board)
    _assert_the_check_finds(code)
    functions = {name: kind for model in models() for name, kind in kernel_functions(model).items()}
    problems = [f"{kind}: {use}" for name, kind in sorted(functions.items()) for use in code.float_uses(name)]
    assert not problems, "\n".join(problems)


def _assert_the_check_finds(code: Code) -> None:
    """Floating point in a function, below it, behind a pointer, in an optimiser; calls that cannot be followed."""
    assert any("calls __" in use for use in code.float_uses("floating_inside"))
    assert any("floating_below -> half" in use for use in code.float_uses("floating_below"))
    assert code.float_uses("floating_never") == []
    assert any("floating_pointed -> floating_below" in use for use in code.float_uses("floating_pointed"))
    assert any("not known" in use for use in code.float_uses("floating_unknown"))
    assert code.float_uses("tp_sgd_f32") and code.float_uses("tp_lora_quantize_f32")
    with pytest.raises(KeyError):
        code.float_uses("no_such_function")


def test_the_functions_hold_every_pass() -> None:
    """Of layers, of gradients of inputs and of parameters, of losses and adapters."""
    functions = {name: kind for model in models() for name, kind in kernel_functions(model).items()}
    wanted = {
        "CONV_2D",
        "DEPTHWISE_CONV_2D",
        "LORA_DOWN",
        "LORA_BACKWARD_B",
        "CONV_2D_BACKWARD_FILTER",
        "BIAS_BACKWARD",
    }
    wanted |= {"SOFTMAX_CROSS_ENTROPY", "BINARY_CROSS_ENTROPY", "MEAN_SQUARED_ERROR", "REQUANTIZE_BACKWARD"}
    wanted |= {"IA3_BACKWARD", "INPUT_OFFSET_BACKWARD", "SPARSE_ROWS", "RESIDUAL_UP", "UNPACK_INT4"}
    assert wanted <= set(functions.values())
    assert not {kind for kind in functions.values() if kind.endswith("_QUANTIZE") or "UPDATE" in kind}

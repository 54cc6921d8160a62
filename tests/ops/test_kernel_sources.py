"""Every kernel compiles without a warning, for the host and for a Cortex-M4."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from kernel_harness import FIRMWARE, WARNINGS

from tinypeft.ops import OPS

SOURCES = sorted(path.name for path in (FIRMWARE / "kernels").glob("*.c"))
COMPILERS = {"gcc": [], "clang": [], "arm-none-eabi-gcc": ["-mcpu=cortex-m4", "-mthumb"]}


@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("source", SOURCES)
def test_compiles_without_a_warning(source: str, compiler: str, bits: int) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    command = [compiler, *WARNINGS, *COMPILERS[compiler], "-O2", f"-I{FIRMWARE / 'include'}", "-c", "-o", "/dev/null"]
    command.append(f"-DTP_GRADIENT_BITS={bits}")
    result = subprocess.run([*command, str(FIRMWARE / "kernels" / source)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


#: where float32 is: its own arithmetic, masters and what gives or takes them, models with float32 ends
FLOAT_SOURCES = {
    *("tp_arithmetic.c", "tp_initialize.c", "tp_quantize.c", "tp_update.c", "tp_dense_retrain.c"),
    *("tp_optimizer.c", "tp_adam.c", "tp_clip.c", "tp_dense_quantize.c", "tp_lora_quantize.c", "tp_bitfit.c"),
    *("tp_ia3.c", "tp_bottleneck_quantize.c", "tp_input_offset_quantize.c", "tp_sparse_quantize.c"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_float_is_only_where_masters_are(source: str, tmp_path: Path) -> None:
    """Forward pass, loss and gradients of activations are integers: without an FPU, nothing of them calls for float."""
    if shutil.which("arm-none-eabi-gcc") is None:
        pytest.skip("arm-none-eabi-gcc is not installed; apt install gcc-arm-none-eabi")
    target = tmp_path / "kernel.o"
    command = ["arm-none-eabi-gcc", *WARNINGS, "-mcpu=cortex-m0", "-mthumb", "-O2", f"-I{FIRMWARE / 'include'}", "-c"]
    subprocess.run([*command, str(FIRMWARE / "kernels" / source), "-o", str(target)], check=True)
    listing = subprocess.run(["arm-none-eabi-nm", "-u", str(target)], capture_output=True, text=True, check=True).stdout
    called = re.findall(r"__aeabi_(?:[fd]\w+|\w+2[fd])\b|tp_wide_to_f32", listing)
    assert bool(called) is (source in FLOAT_SOURCES), f"{source} calls {called}"


def test_every_operator_names_an_existing_source() -> None:
    missing = {op.name: op.source for op in OPS.values() if op.source and op.source not in SOURCES}
    assert not missing

"""Every kernel compiles without a warning, for the host and for a Cortex-M4."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from kernel_harness import FIRMWARE, WARNINGS

from tinypeft.ops import OPS

SOURCES = sorted(path.name for path in (FIRMWARE / "kernels").glob("*.c"))
COMPILERS = {"gcc": [], "clang": [], "arm-none-eabi-gcc": ["-mcpu=cortex-m4", "-mthumb"]}


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("source", SOURCES)
def test_compiles_without_a_warning(source: str, compiler: str) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    command = [compiler, *WARNINGS, *COMPILERS[compiler], "-O2", f"-I{FIRMWARE / 'include'}", "-c", "-o", "/dev/null"]
    result = subprocess.run([*command, str(FIRMWARE / "kernels" / source)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_operator_names_an_existing_source() -> None:
    missing = {op.name: op.source for op in OPS.values() if op.source and op.source not in SOURCES}
    assert not missing

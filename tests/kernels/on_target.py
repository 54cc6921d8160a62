"""Runs kernels on QEMU as generated firmware calls them: one bare-metal ELF for many cases.

    results = run_on_target([Case(operation, kernel, values), ...])        results[i].outputs: {name: value}
    check_on_target(cases)                                                 asserts that they equal `evaluate`
    run_on_target(cases, profile=True)                                     instructions and, of an M4, cycles too

Values are arrays by operand name, BlockFloat for gradients. A profile needs $TINYPEFT_ICOUNT: a folder with a QEMU
plugin prof.c and a module cycles.py that makes M4 cycles of its output.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image import Image
from kernel_harness import FIRMWARE, assert_equal

from tinypeft.boards import Board, load_board
from tinypeft.codegen.tables import CTYPES, Constants, number
from tinypeft.ir import Operation, Purpose, Tensor
from tinypeft.kernels import Kernel, Routine
from tinypeft.kernels.cmsis_nn.library import Library
from tinypeft.ops import CArray, CPointers
from tinypeft.ops.base import Value
from tinypeft.project.render import C_FLAGS, LINK_FLAGS, LINK_LIBRARIES, render_board

SHARED_SOURCES = ("tp_arithmetic.c",)
TIME_LIMIT = 300.0

_RUNTIME = r"""
#include "tinypeft/tp_types.h"

#define SYS_OPEN 0x01u
#define SYS_WRITE 0x05u
#define SYS_READ 0x06u
#define SYS_EXIT 0x18u

typedef struct {
  void (*run)(uint8_t *memory);
  uint32_t nbytes;
} test_case;

extern const test_case cases[];
extern const uint32_t case_count;
int main(void);

static __attribute__((aligned(8))) uint8_t memory[MEMORY_BYTES];

static uintptr_t semihosting(uintptr_t operation, const void *parameters) {
  register uintptr_t r0 __asm__("r0") = operation;
  register const void *r1 __asm__("r1") = parameters;
  __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static uintptr_t open_file(const char *name, uintptr_t length, uintptr_t mode) {
  const uintptr_t parameters[3] = {(uintptr_t)name, mode, length};
  return semihosting(SYS_OPEN, parameters);
}

int main(void) {
  const uintptr_t input = open_file("input", 5, 1), output = open_file("output", 6, 5);
  for (uint32_t i = 0; i < case_count; i++) {
    const uintptr_t in[3] = {input, (uintptr_t)memory, cases[i].nbytes};
    const uintptr_t out[3] = {output, (uintptr_t)memory, cases[i].nbytes};
    (void)semihosting(SYS_READ, in);
    cases[i].run(memory);
    (void)semihosting(SYS_WRITE, out);
  }
  (void)semihosting(SYS_EXIT, (const void *)0x20026u);
  return 0;
}
"""


@dataclass(frozen=True)
class Case:
    """A kernel of an operation and the values of its operands.

    overlap  (operand, bytes by which it starts behind the first output), where the output lies over it
    """

    operation: Operation
    kernel: Kernel
    values: dict[str, Value]
    overlap: tuple[str, int] | None = None


@dataclass(frozen=True)
class Result:
    """What a case computed; counts where there was a profile, cycles only of a Cortex-M4."""

    outputs: dict[str, Value]
    instructions: int = 0
    cycles: int = 0


def need_target(board: str = "mps2_an386") -> None:
    """Skip where the compiler or QEMU is missing."""
    del board
    for tool, package in (("arm-none-eabi-gcc", "gcc-arm-none-eabi"), ("qemu-system-arm", "qemu-system-arm")):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed; apt install {package}")


def check_on_target(
    cases: Sequence[Case], board: str = "mps2_an386", profile: bool = False, library: Library | None = None
) -> list[Result]:
    """The results, which must equal `evaluate` to the bit."""
    results = run_on_target(cases, board, profile, library)
    for case, result in zip(cases, results, strict=True):
        values = {name: t.data for name, t in case.operation.inputs.items() if t.data is not None} | case.values
        assert_equal(case.operation, result.outputs, case.operation.op.evaluate(case.operation, values))
    return results


def run_on_target(
    cases: Sequence[Case], board: str = "mps2_an386", profile: bool = False, library: Library | None = None
) -> list[Result]:
    """Build one ELF of all cases, and of CMSIS-NN where it is given, and run it; a kernel that fails its check not."""
    target = load_board(board)
    images = [Image(case.operation, case.kernel.scratch_bytes, case.overlap) for case in cases]
    with tempfile.TemporaryDirectory(prefix="tinypeft-target-") as name:
        folder = Path(name)
        sources = sorted({source for case in cases for source in case.kernel.sources} | set(SHARED_SOURCES))
        (folder / "runtime.c").write_text(
            f"#define MEMORY_BYTES {max((i.nbytes for i in images), default=8)}\n{_RUNTIME}"
        )
        (folder / "cases.c").write_text(cases_source(cases, images))
        (folder / "routines.S").write_text(routines_source([r for case in cases for r in case.kernel.routines]))
        include = None if library is None else library.include
        objects = [_object(board, source, include) for source in sources]
        elf = _link(target, folder, objects if library is None else [*objects, library.archive])
        inputs = [image.fill(case.values) for case, image in zip(cases, images, strict=True)]
        (folder / "input").write_bytes(b"".join(memory.tobytes() for memory in inputs))
        _run(target, elf, folder, _plugin() if profile else None)
        raw = np.frombuffer((folder / "output").read_bytes(), np.uint8)
        ends = np.cumsum([0, *(image.nbytes for image in images)])
        done = int(np.searchsorted(ends, len(raw), side="right")) - 1
        assert len(raw) == ends[-1], f"the target stopped in case {done}: {cases[done].operation}"
        counts = _counts(target, elf, folder) if profile else [(0, 0)] * len(cases)
        return [
            Result(image.outputs(raw[begin : begin + image.nbytes]), *count)
            for image, begin, count in zip(images, ends, counts, strict=False)
        ]


def cases_source(cases: Sequence[Case], images: Sequence[Image]) -> str:
    """C: the constants of all cases, a function each, the table of them."""
    constants = Constants("case")
    functions: list[str] = []
    for i, (case, image) in enumerate(zip(cases, images, strict=True)):
        functions += _function(i, case, image, constants)
    headers = sorted(path.name for path in (FIRMWARE / "include" / "tinypeft").glob("tp_kernels*.h"))
    lines = [f'#include "tinypeft/{header}"' for header in headers] + ['#include "tinypeft/tp_count.h"']
    routines = {r.name: r.ctype for case in cases for r in case.kernel.routines}
    lines += [f"{ctype} {name};" for name, ctype in sorted(routines.items())]
    for table in constants.tables:
        lines += [f"static const {table.ctype} {table.name}[{table.size}] = {{", *table.rows, "};"]
    lines += [f"static const {struct.ctype} {struct.name} = {struct.text};" for struct in constants.structs.values()]
    table = ", ".join(f"{{run_{i}, {image.nbytes}}}" for i, image in enumerate(images))
    lines += [*functions, "typedef struct {", "void (*run)(uint8_t *memory);", "uint32_t nbytes;", "} test_case;"]
    lines += ["extern const test_case cases[];", f"const test_case cases[] = {{{table}}};"]
    lines += ["extern const uint32_t case_count;", f"const uint32_t case_count = {len(cases)};"]
    return "\n".join(lines) + "\n"


def routines_source(routines: Sequence[Routine]) -> str:
    """GNU assembly of all routines, each once."""
    lines = [".syntax unified", ".thumb"]
    known: dict[str, str] = {}
    for routine in routines:
        assert known.setdefault(routine.name, routine.text) == routine.text, f"{routine.name} has two texts"
    for routine in {r.name: r for r in routines}.values():
        lines += [f"@ {line}" for line in routine.comment.splitlines()]
        lines += [f".section .text.{routine.name}", ".p2align 2", f".global {routine.name}"]
        lines += [f".type {routine.name}, %function", ".thumb_func", f"{routine.name}:", routine.text]
        lines += [f".size {routine.name}, . - {routine.name}"]
    return "\n".join(lines) + "\n"


def _function(index: int, case: Case, image: Image, constants: Constants) -> list[str]:
    call, op = case.kernel.call, case.operation
    # Names of operations may repeat between cases: the constants are named after the index.
    named = Operation(op.op, f"op{index}", op.inputs, op.outputs, op.attributes)
    gradients = {id(t): t for t in [*op.inputs.values(), *op.outputs.values()] if t.block_float}
    declarations, after = [], []
    for key, tensor in gradients.items():
        at = image.offsets[key]
        local, header = _gradient(tensor), f"((int32_t *)(void *)(memory + {at - 8}))"
        assert tensor.data is None
        declarations.append(f"tp_bfp {local} = {{(void *)(memory + {at}), {header}[0], {header}[1]}};")
        if any(tensor is output for output in op.outputs.values()):
            after += [f"{header}[0] = {local}.exponent;", f"{header}[1] = {local}.peak;"]
    arguments = [f"&{constants.params(named, call)}"] if call.params else []
    arguments += [_argument(argument, image, constants, f"op{index}") for argument in call.arguments]
    if case.kernel.scratch_bytes:
        arguments.append(f"(void *)(memory + {image.scratch})")
    statement = f"{call.function}({', '.join(arguments)});"
    check = case.kernel.check
    if check is not None:
        given = [f"&{constants.params(named, check)}"] if check.params else []
        given += [_argument(argument, image, constants, f"op{index}") for argument in check.arguments]
        declarations.append(f"if ({check.function}({', '.join(given)}) != TP_OK) {{ return; }}")
    body = [*declarations, "TP_COUNT_BEGIN();", statement, "TP_COUNT_END();", *after]
    return [f"static void run_{index}(uint8_t *memory) {{", "(void)memory;", *body, "}"]


def _argument(argument: Any, image: Image, constants: Constants, owner: str) -> str:
    if isinstance(argument, CArray):
        return constants.array(argument, f"{owner}_{argument.name}")
    if isinstance(argument, Tensor):
        return _reference(argument, image, constants)
    if isinstance(argument, CPointers):
        pointers = ", ".join(_reference(t, image, constants) for t in argument.tensors)
        return f"(void *const[]){{{pointers}}}" if pointers else "NULL"
    if isinstance(argument, tuple):
        pointers = ", ".join(_reference(t, image, constants) for t in argument)
        return f"(const {CTYPES[argument[0].dtype]} *const[]){{{pointers}}}"
    return number(argument)


def _reference(tensor: Tensor, image: Image, constants: Constants) -> str:
    if tensor.data is not None:
        return constants.tensor(tensor)
    at = image.offsets[id(tensor)]
    if tensor.block_float:
        return f"&{_gradient(tensor)}"
    if tensor.purpose is Purpose.ARGUMENT and not tensor.shape:
        return f"*(const {CTYPES[tensor.dtype]} *)(void *)(memory + {at})"
    return f"(void *)(memory + {at})"


def _gradient(tensor: Tensor) -> str:
    """The name of a gradient's struct: two may have their mantissas at one place."""
    return f"gradient_{tensor.name}"


@functools.cache
def _cache() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tinypeft-objects-")


def _compiler(board: Board) -> list[str]:
    return ["arm-none-eabi-gcc", *board.cpu_flags, *C_FLAGS, f"-I{FIRMWARE / 'include'}"]


@functools.cache
def _object(board: str, source: str, include: Path | None) -> Path:
    """The object of a kernel's source, compiled once a process, perhaps with another folder of headers."""
    target = Path(_cache().name) / f"{board}-{source.replace('/', '-')}.o"
    more = [] if include is None else ["-isystem", str(include)]
    _command([*_compiler(load_board(board)), *more, "-c", str(FIRMWARE / "kernels" / source), "-o", str(target)])
    return target


def _link(board: Board, folder: Path, objects: Sequence[Path]) -> Path:
    for name, content in render_board(board, stack_bytes=16384).items():
        (folder / Path(name).name).write_bytes(content)
    made: list[str] = []
    for name in ("startup.c", "runtime.c", "cases.c", "routines.S"):
        made.append(str(folder / f"{name}.o"))
        _command([*_compiler(board), "-Wno-cast-qual", f"-I{folder}", "-c", str(folder / name), "-o", made[-1]])
    elf = folder / "cases.elf"
    link = ["arm-none-eabi-gcc", *board.cpu_flags, *LINK_FLAGS, f"-T{folder / 'linker.ld'}", *made, *map(str, objects)]
    _command([*link, *LINK_LIBRARIES, "-o", str(elf)])
    return elf


def _run(board: Board, elf: Path, folder: Path, plugin: Path | None) -> None:
    command = ["qemu-system-arm", "-M", str(board.emulators["qemu"]["machine"]), "-kernel", str(elf), "-nographic"]
    command += ["-semihosting-config", "enable=on,target=native", "-serial", "null", "-monitor", "none"]
    if plugin is not None:
        command += ["-plugin", f"{plugin},out={folder / 'cases.prof'},br=on,mem=on"]
    try:
        run = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIME_LIMIT
        )
    except subprocess.TimeoutExpired:
        return  # the output says which case it stopped in
    assert run.returncode == 0, run.stderr


def _command(command: list[str]) -> None:
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, f"{' '.join(command)}\n{run.stderr[:8000]}"


def _tools() -> Path:
    folder = os.environ.get("TINYPEFT_ICOUNT")
    if folder is None:
        pytest.skip("TINYPEFT_ICOUNT does not name the folder of the profiling plugin")
    return Path(folder)


@functools.cache
def _plugin() -> Path:
    library = Path(_cache().name) / "prof.so"
    _command(["gcc", "-O2", "-fPIC", "-shared", "-w", str(_tools() / "prof.c"), "-o", str(library)])
    return library


def _counts(board: Board, elf: Path, folder: Path) -> list[tuple[int, int]]:
    """(instructions, cycles) of every case."""
    text = subprocess.run(
        ["arm-none-eabi-objdump", "-d", "--no-show-raw-insn", str(elf)], capture_output=True, text=True
    )
    (folder / "cases.dis").write_text(text.stdout)
    specification = importlib.util.spec_from_file_location("cycles", _tools() / "cycles.py")
    assert specification is not None and specification.loader is not None
    cycles = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(cycles)
    modelled = board.core == "cortex-m4"
    return [(r["instr"], r["cycles"] if modelled else 0) for r in cycles.analyse(str(folder / "cases"))]

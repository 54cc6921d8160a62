"""Runs an operation's C kernel as its generated call would, so that it can be compared with the operator's `evaluate`.

    run_kernel(op, values)                      -> {output name: value}
    compare_kernel(op, values)                  asserts that they equal `evaluate`, in place too where that is declared
    compile_operations([op, ...])               one compilation for many operations; then `compiled.run(values)`

Values are arrays by operand name, BlockFloat for bfp16 and bfp8. Kernels are compiled with warnings as errors and the
undefined behaviour sanitiser, which stops the process; writes outside an output or the scratch are found by guard
bytes.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinypeft.arithmetic import narrow_shift, round_half_up_shift
from tinypeft.ir import DTYPES, Operation, Purpose, Tensor
from tinypeft.ops import CArray, CFunction, CPointers, CStruct, KernelCall
from tinypeft.ops.base import BlockFloat, Value

FIRMWARE = Path(__file__).resolve().parents[1] / "firmware"
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror", "-ffp-contract=off"]
SANITIZE = ["-fsanitize=undefined", "-fno-sanitize-recover=all", "-g"]
SHARED_SOURCES = ("tp_arithmetic.c",)
GUARD = 64
_C_TYPES = {
    **{"int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "int32": "int32_t"},
    **{"float32": "float", "bits": "uint8_t", "int4": "uint8_t"},
}


class _Bfp(ctypes.Structure):
    """The C struct tp_bfp."""

    _fields_ = (("mantissa", ctypes.c_void_p), ("exponent", ctypes.c_int32), ("peak", ctypes.c_int32))


@dataclass(frozen=True)
class CompiledOperation:
    """An operation and the C function that makes its call; `function` is None where nothing has to run."""

    op: Operation
    call: KernelCall | None
    function: Any

    def run(
        self, values: dict[str, Value], in_place: dict[str, str] | None = None, distance: int = 0
    ) -> dict[str, Value]:
        """The outputs; `in_place` maps output names to operands whose buffers they take over.

        Such an operand starts `distance` bytes behind the output.
        """
        if self.call is None:
            return self.op.op.evaluate(self.op, values)
        buffers: dict[int, _Buffer] = {}
        for name, tensor in self.op.inputs.items():
            value = values[name] if name in values else tensor.data
            over = [self.op.outputs[output] for output, operand in (in_place or {}).items() if operand == name]
            room = max((output.nbytes for output in over), default=0)
            buffers[id(tensor)] = _Buffer(tensor, value, None, distance if over else 0, room)
        for name, tensor in self.op.outputs.items():
            if id(tensor) in buffers:  # updated in place: optimiser state, adapter weights
                continue
            host = None if name not in (in_place or {}) else buffers[id(self.op.inputs[(in_place or {})[name]])]
            buffers[id(tensor)] = _Buffer(tensor, None, host)
        scratch = _guarded(self.op.op.scratch_bytes(self.op))
        tables = {id(a): np.ascontiguousarray(a.values) for a in self.call.arguments if isinstance(a, CArray)}
        addresses: list[int | None] = []
        for argument in _flat(self.call.arguments):
            if isinstance(argument, Tensor):
                addresses.append(buffers[id(argument)].address)
            else:
                addresses.append(tables[id(argument)].ctypes.data if isinstance(argument, CArray) else None)
        addresses.append(scratch.ctypes.data + GUARD)
        self.function((ctypes.c_void_p * len(addresses))(*addresses))
        _check_guards(scratch, f"{self.op} wrote outside its scratch")
        for tensor in [*self.op.inputs.values(), *self.op.outputs.values()]:
            _check_guards(buffers[id(tensor)].memory, f"{self.op} wrote outside {tensor.name}")
        return {name: buffers[id(tensor)].value() for name, tensor in self.op.outputs.items()}


class _Buffer:
    """A tensor's memory between guard bytes, perhaps shared with `host`, and the tp_bfp that points to it."""

    def __init__(
        self, tensor: Tensor, value: Value | None, host: _Buffer | None = None, inside: int = 0, room: int = 0
    ):
        self.tensor = tensor
        start = GUARD + inside
        self.memory = host.memory if host is not None else _guarded(max(inside + tensor.nbytes, room))
        self.array: np.ndarray = self.memory[start : start + tensor.nbytes].view(DTYPES[tensor.dtype])
        self.struct = _Bfp(self.array.ctypes.data, 12345, -1)
        if isinstance(value, BlockFloat):
            self.array[:] = value.mantissa.reshape(-1)
            self.struct.exponent, self.struct.peak = value.exponent, value.peak
        elif value is not None:
            self.array[:] = np.asarray(value).reshape(-1)

    @property
    def address(self) -> int:
        """What the C call is given."""
        return ctypes.addressof(self.struct) if self.tensor.block_float else self.array.ctypes.data

    def value(self) -> Value:
        """The value as `evaluate` gives it; mantissas must carry the peak of its mantissas."""
        array = self.array.copy()
        if self.tensor.packed:
            return array
        array = array.reshape(self.tensor.shape)
        if not self.tensor.block_float:
            return array
        result = BlockFloat(array, int(self.struct.exponent))
        assert self.struct.peak == result.peak, f"{self.tensor.name}: peak {self.struct.peak}, mantissas {result.peak}"
        return result


def compile_operations(operations: Sequence[Operation]) -> list[CompiledOperation]:
    """The operations' calls, compiled together."""
    calls = [op.op.call(op) for op in operations]
    used = [op.op.sources(op) for op, call in zip(operations, calls, strict=True) if call is not None]
    sources = sorted({source for several in used for source in several})
    lines = ["#include <stddef.h>", '#include "tinypeft/tp_kernels.h"']
    for i, (op, call) in enumerate(zip(operations, calls, strict=True)):
        if call is not None:
            lines += _wrapper(f"op{i}", op, call)
    bits = {8 if t.dtype == "bfp8" else 16 for op in operations for t in _tensors(op) if t.block_float} or {16}
    assert len(bits) == 1, "operations compiled together have gradients of the same bits"
    library = _library("\n".join(lines) + "\n", tuple(sources), bits.pop())
    return [
        CompiledOperation(op, call, None if call is None else getattr(library, f"op{i}"))
        for i, (op, call) in enumerate(zip(operations, calls, strict=True))
    ]


def in_8_bits(op: Operation, values: dict[str, Value]) -> dict[str, Value]:
    """Make the gradients that `op` takes and gives bfp8; its values, those of gradients narrowed where they must be."""
    for each in (op, *(held for held in op.attributes.values() if isinstance(held, Operation))):
        for tensor in _tensors(each):
            tensor.dtype = "bfp8" if tensor.dtype == "bfp16" else tensor.dtype
    return {name: _in_8_bits(value) for name, value in values.items()}


def _in_8_bits(value: Value) -> Value:
    if not isinstance(value, BlockFloat) or value.mantissa.dtype != np.int16:
        return value
    shift = narrow_shift(value.peak, 127)
    return BlockFloat(round_half_up_shift(value.mantissa, shift).astype(np.int8), value.exponent + shift)


def _tensors(op: Operation) -> list[Tensor]:
    return [*op.inputs.values(), *op.outputs.values()]


def compile_library(source: str, kernels: Sequence[str] = (), bits: int = 16) -> ctypes.CDLL:
    """C text that calls functions of the firmware, linked with the shared arithmetic and these kernel sources."""
    return _library(source, tuple(kernels), bits)


def run_kernel(op: Operation, values: dict[str, Value], in_place: dict[str, str] | None = None) -> dict[str, Value]:
    """The outputs that the C kernel computes."""
    return compile_operations([op])[0].run(values, in_place)


def compare_kernel(compiled: CompiledOperation | Operation, values: dict[str, Value]) -> dict[str, Value]:
    """Assert that the C kernel equals `evaluate` to the bit, also in place and overlapped; returns the outputs."""
    if isinstance(compiled, Operation):
        compiled = compile_operations([compiled])[0]
    op = compiled.op
    expected = op.op.evaluate(op, values)
    assert_equal(op, compiled.run(values), expected)
    for output, operands in op.op.in_place(op).items():
        for operand in operands:
            assert_equal(op, compiled.run(values, {output: operand}), expected)
    for operand, distance in op.op.behind(op).items():
        output = next(iter(op.outputs))
        assert_equal(op, compiled.run(values, {output: operand}, distance), expected)
    return expected


def assert_equal(op: Operation, actual: dict[str, Value], expected: dict[str, Value]) -> None:
    """Assert equal bits, and the dtypes and shapes that the operation declares."""
    assert set(actual) == set(expected) == set(op.outputs), f"{op}: {set(actual)}, {set(expected)}"
    for name, tensor in op.outputs.items():
        a, e = actual[name], expected[name]
        if tensor.block_float:
            assert isinstance(e, BlockFloat), f"{op}: {name} is not a BlockFloat"
            assert a.exponent == e.exponent, f"{op}: exponent of {name} is {a.exponent}, expected {e.exponent}"
            a, e = a.mantissa, e.mantissa
        assert e.dtype == np.dtype(DTYPES[tensor.dtype]), f"{op}: {name} is {e.dtype}, declared {tensor.dtype}"
        if not tensor.packed:
            assert e.shape == tensor.shape, f"{op}: {name} has shape {e.shape}, declared {tensor.shape}"
        a, e = (np.ascontiguousarray(v).reshape(-1).view(np.uint8) for v in (a, e))
        np.testing.assert_array_equal(a, e, f"{op}: {name}")


def block_float(rng: np.random.Generator, shape: tuple[int, ...], peak: int = 32767, exponent: int = -20) -> BlockFloat:
    """A random gradient with the given peak."""
    mantissa = rng.integers(-peak, peak + 1, shape).astype(np.int16)
    mantissa.reshape(-1)[rng.integers(mantissa.size)] = peak * rng.choice([-1, 1])
    return BlockFloat(mantissa, exponent)


def _guarded(nbytes: int) -> np.ndarray:
    return np.full(nbytes + 2 * GUARD, 0xA5, np.uint8)


def _check_guards(memory: np.ndarray, message: str) -> None:
    assert (memory[:GUARD] == 0xA5).all() and (memory[-GUARD:] == 0xA5).all(), message


def _wrapper(name: str, op: Operation, call: KernelCall) -> list[str]:
    """A C function `void name(void **a)` that makes the call with the addresses in `a`, the scratch last."""
    lines: list[str] = []
    arguments: list[str] = []
    if call.params:
        body = initialiser(call.fields, name, lines)
        lines.append(f"static const {call.params} {name}_params = {body};")
        arguments.append(f"&{name}_params")
    for argument in call.arguments:
        i = len(_flat(call.arguments[: len(arguments) - bool(call.params)]))
        if isinstance(argument, CPointers):
            pointers = ", ".join(f"a[{i + k}]" for k in range(len(argument.tensors)))
            arguments.append(f"(void *const[]){{{pointers}}}" if pointers else "NULL")
        elif isinstance(argument, tuple):
            pointers = ", ".join(f"a[{i + k}]" for k in range(len(argument)))
            arguments.append(f"(const {_C_TYPES[argument[0].dtype]} *const[]){{{pointers}}}")
        elif isinstance(argument, Tensor) and argument.purpose is Purpose.ARGUMENT and not argument.shape:
            arguments.append(f"*(const {_C_TYPES[argument.dtype]} *)a[{i}]")
        elif isinstance(argument, Tensor | CArray):
            arguments.append(f"a[{i}]")
        else:
            arguments.append("NULL" if argument is None else _number(argument))
    if op.op.scratch_bytes(op):
        arguments.append(f"a[{len(_flat(call.arguments))}]")
    return [*lines, f"void {name}(void **a);", f"void {name}(void **a) {{ {call.function}({', '.join(arguments)}); }}"]


def _flat(arguments: Sequence[Any]) -> list[Any]:
    """The arguments, tuples of tensors one by one."""
    several = (a.tensors if isinstance(a, CPointers) else a if isinstance(a, tuple) else (a,) for a in arguments)
    return [each for group in several for each in group]


def initialiser(fields: dict[str, Any], prefix: str, lines: list[str]) -> str:
    """The C initialiser of a parameter struct; tables that it points to are appended to `lines`."""
    parts = []
    for field, value in fields.items():
        if isinstance(value, dict):
            text = initialiser(value, f"{prefix}_{field}", lines)
        elif isinstance(value, CArray):
            text = f"{prefix}_{field}"
            numbers = ", ".join(_number(v) for v in value.values.reshape(-1))
            lines.append(f"static const {value.ctype} {text}[] = {{{numbers}}};")
        elif isinstance(value, CFunction):
            text = value.name
        elif isinstance(value, CStruct):
            body = initialiser(value.fields, f"{prefix}_{field}", lines)
            lines.append(f"static const {value.ctype} {prefix}_{field} = {body};")
            text = f"&{prefix}_{field}"
        else:
            text = "NULL" if value is None else _number(value)
        parts.append(f".{field} = {text}")
    return "{" + ", ".join(parts) + "}"


def _number(value: Any) -> str:
    if isinstance(value, float | np.floating):
        return f"{float(np.float32(value)).hex()}f"
    return "(-2147483647 - 1)" if int(value) == -(1 << 31) else str(int(value))


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tinypeft-kernels-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _object(source: str, bits: int) -> Path:
    target = _folder() / f"{Path(source).stem}-{bits}.o"
    flags = [*WARNINGS, *SANITIZE, "-O1", "-fPIC", f"-DTP_GRADIENT_BITS={bits}", f"-I{FIRMWARE / 'include'}"]
    _compile(["gcc", *flags, "-c", str(FIRMWARE / "kernels" / source), "-o", str(target)])
    return target


@functools.cache
def _library(wrappers: str, sources: tuple[str, ...], bits: int) -> ctypes.CDLL:
    shared = [s for s in SHARED_SOURCES if (FIRMWARE / "kernels" / s).exists()]
    objects = [str(_object(source, bits)) for source in sorted({*sources, *shared})]
    stem = hashlib.sha256(f"{bits}{wrappers}".encode()).hexdigest()[:16]
    path = _folder() / f"{stem}.c"
    path.write_text(wrappers)
    library = path.with_suffix(".so")
    flags = [
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-O0",
        "-fPIC",
        "-shared",
        *SANITIZE,
        f"-DTP_GRADIENT_BITS={bits}",
    ]
    _compile(["gcc", *flags, f"-I{FIRMWARE / 'include'}", str(path), *objects, "-o", str(library)])
    return ctypes.CDLL(str(library))


def _compile(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise AssertionError(f"{' '.join(command)}\n{result.stderr}")

"""Constants of the generated C: weights and tables that live in flash, and parameter structs, each written once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinypeft.ir import Operation, Tensor
from tinypeft.kernels import Kernel, Routine
from tinypeft.ops import CArray, CFunction, CStruct, KernelCall

CTYPES = {
    "int8": "int8_t",
    "uint8": "uint8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "float32": "float",
    "bits": "uint8_t",
    "int4": "uint8_t",
    "bfp16": "int16_t",
    "bfp8": "int8_t",
}
_VALUES_PER_LINE = {"int8_t": 24, "uint8_t": 24, "int16_t": 16, "int32_t": 10, "float": 8}


@dataclass(frozen=True)
class Table:
    """One `const` array: `rows` are its formatted values, a line each."""

    ctype: str
    name: str
    size: int
    nbytes: int
    comment: str
    rows: list[str]


@dataclass(frozen=True)
class ParamsStruct:
    """One `static const` struct: `text` is its initialiser; `on_target`: only calls on the target read it."""

    ctype: str
    name: str
    text: str
    on_target: bool = False


@dataclass
class Constants:
    """Collects what generated functions refer to; equal tables share one array, equal structs one struct.

    `on_target` says what refers to them now: a call on the target alone, one on the host alone, or, None, one on both.
    """

    prefix: str
    tables: list[Table] = field(default_factory=list)
    structs: dict[str, ParamsStruct] = field(default_factory=dict)
    routines: dict[str, Routine] = field(default_factory=dict)
    on_target: bool | None = None
    _users: dict[str, set[bool | None]] = field(default_factory=dict)
    _by_content: dict[tuple[str, bytes], str] = field(default_factory=dict)
    _by_text: dict[tuple[str, str, bool], str] = field(default_factory=dict)

    def tensor(self, tensor: Tensor) -> str:
        """The name of a frozen weight's array."""
        assert tensor.data is not None
        shape = ",".join(map(str, tensor.shape))
        return self._table(CTYPES[tensor.dtype], tensor.name, tensor.data, f"({shape})")

    def array(self, array: CArray, name: str) -> str:
        """The name of a table of a call."""
        return self._table(array.ctype, name, array.values, f"({array.values.size})")

    def params(self, operation: Operation, call: KernelCall) -> str:
        """The name of the parameter struct of a call."""
        return self._struct(call.params, f"{operation.name}_params", call.fields, operation.name)

    def check_params(self, operation: Operation, kernel: Kernel, check: KernelCall) -> str:
        """The name of the parameter struct of a kernel's check at start-up."""
        return self._struct(
            check.params, f"{operation.name}_{kernel.backend}_check_params", check.fields, operation.name
        )

    def target_params(self, operation: Operation, kernel: Kernel) -> str:
        """The name of the parameter struct of the call on the target."""
        for routine in kernel.routines:
            earlier = self.routines.setdefault(routine.name, routine)
            assert earlier.text == routine.text, f"{routine.name} is two routines"
        name = f"{operation.name}_{kernel.backend}_params"
        return self._struct(kernel.call.params, name, kernel.call.fields, operation.name)

    def tables_for(self, on_target: bool) -> list[Table]:
        """The tables that are of use on the target, or on the host, alone."""
        return [table for table in self.tables if self._users[table.name] == {on_target}]

    @property
    def shared_tables(self) -> list[Table]:
        """The tables that both read."""
        return [table for table in self.tables if self._users[table.name] not in ({True}, {False})]

    def routine_name(self, name: str) -> str:
        """The C name of a generated routine."""
        return f"{self.prefix}_{name}"

    def struct(self, struct: CStruct, owner: str) -> str:
        """The name of a struct that is pointed to."""
        where = "_target" if self.on_target else ""
        return self._struct(struct.ctype, f"{owner}_{struct.name}{where}_params", struct.fields, owner)

    def _struct(self, ctype: str, name: str, fields: dict[str, Any], owner: str) -> str:
        text = self._initializer(fields, owner)  # structs that it points to come first
        on_target = self.on_target is True
        for key in ((ctype, text, False), (ctype, text, on_target)):
            if key in self._by_text:
                return self._by_text[key]
        assert name not in self.structs, f"{name} is two structs"
        self._by_text[ctype, text, on_target] = name
        self.structs[name] = ParamsStruct(ctype, name, text, on_target)
        return name

    def _table(self, ctype: str, name: str, values: np.ndarray, comment: str) -> str:
        flat = np.ascontiguousarray(values).reshape(-1)
        key = (ctype, flat.tobytes())
        if key not in self._by_content:
            taken = {table.name for table in self.tables}
            unique, number = f"{self.prefix}_{name}", 2
            while unique in taken:
                unique, number = f"{self.prefix}_{name}_{number}", number + 1
            self._by_content[key] = unique
            self.tables.append(Table(ctype, unique, flat.size, flat.nbytes, comment, rows(ctype, flat)))
        self._users.setdefault(self._by_content[key], set()).add(self.on_target)
        return self._by_content[key]

    def _initializer(self, fields: dict[str, Any], owner: str, indent: int = 0) -> str:
        parts = []
        for name, value in fields.items():
            if isinstance(value, dict):
                text = self._initializer(value, owner, 4 + len(name))
            elif isinstance(value, CArray):
                text = self.array(value, f"{owner}_{name}")
            elif isinstance(value, CFunction):
                text = self.routine_name(value.name) if value.name in self.routines else value.name
            elif isinstance(value, CStruct):
                text = f"&{self.struct(value, owner)}"
            else:
                text = number(value)
            parts.append(f".{name} = {text}")
        return wrapped("{", parts, "}", indent)


def number(value: Any) -> str:
    """A C literal: exact hexadecimal-free decimal for float32, plain for integers; None is a null pointer."""
    if value is None:
        return "NULL"
    if isinstance(value, float | np.floating):
        text = np.format_float_positional(np.float32(value), unique=True, trim="0")
        if len(text) > 16:
            text = np.format_float_scientific(np.float32(value), unique=True, trim="0")
        return f"{text}f"
    integer = int(value)
    return "(-2147483647 - 1)" if integer == -(1 << 31) else str(integer)


def wrapped(opening: str, parts: list[str], closing: str, indent: int) -> str:
    """`opening`, the parts with commas between them, `closing`; in lines of at most 118 columns, parts kept whole."""
    lines, line = [], " " * indent + opening
    for position, part in enumerate(parts):
        text = part + (closing if position == len(parts) - 1 else ",")
        separator = "" if position == 0 else " "
        if len(line) + len(separator) + len(text) > 118:
            lines.append(line)
            line, separator = " " * (indent + 4), ""
        line += separator + text
    return "\n".join([*lines, line]).lstrip()


def rows(ctype: str, values: np.ndarray) -> list[str]:
    """The lines of an array's initialiser."""
    texts = [number(v) for v in values]
    step = _VALUES_PER_LINE[ctype]
    return [", ".join(texts[i : i + step]) + "," for i in range(0, len(texts), step)]

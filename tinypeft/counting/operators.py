"""The calls that a graph's function made, told apart by operator: what each executed, and what it takes of flash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tinypeft.codegen.tables import CTYPES
from tinypeft.counting.code import Function, Functions
from tinypeft.counting.cycles import estimated_cycles
from tinypeft.emulators.icount import Segment
from tinypeft.errors import DeviceError
from tinypeft.ir import Graph, Operation, Tensor
from tinypeft.kernels.config import PORTABLE
from tinypeft.ops import CArray, CStruct, KernelCall
from tinypeft.planner import runs

#: a table in flash: its C type and its bytes, by which equal ones share an array
TableKey = tuple[str, bytes]


@dataclass(frozen=True)
class OperatorCost:
    """An operator that runs, and what one run costs.

    kernel               the C function that is called; `backend` and `form` say which way to compute it that is
    instructions         of the call, and of what prepares it since the call before
    cycles               estimated; None for a core without a model
    code_bytes           of all functions that it executed, whoever shares them
    table_bytes          of the constants that the call is given, whoever shares them
    scratch_bytes        of the arena, while it runs
    """

    index: int
    name: str
    layer: str
    kind: str
    kernel: str
    backend: str
    form: str
    macs: int
    instructions: int
    cycles: int | None
    code_bytes: int
    table_bytes: int
    scratch_bytes: int

    @property
    def instructions_per_mac(self) -> float | None:
        """None for an operator without MACs."""
        return self.instructions / self.macs if self.macs else None

    def as_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        return asdict(self) | {"instructions_per_mac": self.instructions_per_mac}


@dataclass(frozen=True)
class GraphCost:
    """What one run of a graph costs, as `OperatorCost`; `glue` is what executed around and between the calls.

    instructions, cycles      of all, glue included
    code_bytes, weight_bytes  of all, each function and each table once
    arena_bytes               of this graph
    """

    graph: str
    operators: tuple[OperatorCost, ...]
    glue_instructions: int
    glue_cycles: int | None
    glue_code_bytes: int
    code_bytes: int
    weight_bytes: int
    arena_bytes: int

    @property
    def instructions(self) -> int:
        """Of the whole run: what a count of the whole gives."""
        return self.glue_instructions + sum(each.instructions for each in self.operators)

    @property
    def cycles(self) -> int | None:
        """The same; None for a core without a model."""
        if self.glue_cycles is None:
            return None
        return self.glue_cycles + sum(each.cycles or 0 for each in self.operators)

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return sum(each.macs for each in self.operators)

    def as_json(self) -> dict[str, Any]:
        """Totals, then the operators."""
        return {
            "instructions": self.instructions,
            "cycles": self.cycles,
            "macs": self.macs,
            "code_bytes": self.code_bytes,
            "weight_bytes": self.weight_bytes,
            "arena_bytes": self.arena_bytes,
            "glue": {
                "instructions": self.glue_instructions,
                "cycles": self.glue_cycles,
                "code_bytes": self.glue_code_bytes,
            },
            "operators": [
                asdict(each) | {"instructions_per_mac": each.instructions_per_mac} for each in self.operators
            ],
        }


@dataclass(frozen=True)
class RunningKernel:
    """The kernel that computes an operation on the target."""

    call: KernelCall
    backend: str
    form: str
    scratch_bytes: int


def kernel_of(operation: Operation) -> RunningKernel | None:
    """What the generated C calls for an operation; None where nothing is called."""
    call = operation.op.call(operation) if runs(operation) else None
    if call is None:
        return None
    chosen = operation.kernel
    if chosen is not None:
        return RunningKernel(chosen.call, chosen.backend, chosen.form, chosen.scratch_bytes)
    return RunningKernel(call, PORTABLE, "", operation.op.scratch_bytes(operation))


def graph_cost(
    graph: Graph,
    segments: Sequence[Segment],
    functions: Functions,
    glue: Sequence[range],
    costs: Mapping[int, int] | None,
    arena_bytes: int,
) -> GraphCost:
    """What the profile of one run of `graph` says of its operators.

    `glue` is the code whose calls the segments are, `costs` the cycles of the instructions at an address, None where
    those are not known. Raises DeviceError where the calls are not those of the graph.
    """
    calls = [(index, op, kernel) for index, op in enumerate(graph.operations) if (kernel := kernel_of(op)) is not None]
    rows: list[OperatorCost] = []
    code: dict[int, Function] = {}
    tables: dict[TableKey, int] = {}
    around: list[Segment] = []
    for segment in segments:
        entered = functions.entered_at(segment.entry)
        if len(rows) == len(calls) or entered is None or calls[len(rows)][2].call.function not in entered.names:
            around.append(segment)
            continue
        index, operation, kernel = calls[len(rows)]
        own_code = _functions_of(segment, functions, glue)
        own_tables = dict(_tables(kernel.call))
        code |= own_code
        tables |= own_tables
        rows.append(
            OperatorCost(
                index,
                operation.name,
                operation.layer,
                operation.kind,
                kernel.call.function,
                kernel.backend,
                kernel.form,
                operation.op.macs(operation),
                segment.count,
                _cycles(segment, costs),
                sum(function.nbytes for function in own_code.values()),
                sum(own_tables.values()),
                kernel.scratch_bytes,
            )
        )
    if len(rows) < len(calls):
        _, operation, kernel = calls[len(rows)]
        raise DeviceError(
            f"{graph.name} made {len(rows)} of {len(calls)} calls: next is {kernel.call.function} of {operation.name}",
            "generate the project again",
        )
    glue_code = {
        function.addresses.start: function
        for segment in segments
        for address in segment.instructions
        if any(address in part for part in glue) and (function := functions.at(address)) is not None
    }
    glue_bytes = sum(function.nbytes for function in glue_code.values())
    return GraphCost(
        graph.name,
        tuple(rows),
        sum(segment.count for segment in around),
        None if costs is None else sum(_cycles(segment, costs) or 0 for segment in around),
        glue_bytes,
        glue_bytes + sum(function.nbytes for function in code.values()),
        sum(tables.values()),
        arena_bytes,
    )


def _cycles(segment: Segment, costs: Mapping[int, int] | None) -> int | None:
    return None if costs is None else estimated_cycles(segment.instructions, costs)


def _functions_of(segment: Segment, functions: Functions, glue: Sequence[range]) -> dict[int, Function]:
    """The functions that a call executed, by address, without the code that made it."""
    found: dict[int, Function] = {}
    for address in segment.instructions:
        function = functions.at(address)
        if function is not None and not any(address in part for part in glue):
            found[function.addresses.start] = function
    return found


def _tables(value: Any) -> Iterator[tuple[TableKey, int]]:
    """The constant arrays that a call is given, in its arguments and in the structs that they point to."""
    if isinstance(value, KernelCall):
        yield from _tables(value.fields)
        yield from _tables(value.arguments)
    elif isinstance(value, CStruct):
        yield from _tables(value.fields)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tables(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tables(each)
    elif isinstance(value, CArray):
        yield (value.ctype, value.values.tobytes()), value.values.nbytes
    elif isinstance(value, Tensor) and value.data is not None:
        yield (CTYPES[value.dtype], value.data.tobytes()), value.data.nbytes

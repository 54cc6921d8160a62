"""One C function a graph: every operation as a comment, the declarations of what it writes, its call and its traces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinypeft.codegen.tables import CTYPES, Constants, number, wrapped
from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.ops import CArray, CPointers, KernelCall
from tinypeft.ops.weighted import lora_rank
from tinypeft.planner import ArenaPart, ArenaPlan, runs

_SHORT = {
    **{"int8": "s8", "uint8": "u8", "int16": "s16", "int32": "s32"},
    **{"float32": "f32", "bits": "bits", "int4": "s4", "bfp16": "bfp16", "bfp8": "bfp8"},
}


@dataclass(frozen=True)
class Step:
    """The lines of one operation; `target_call`, where there is one, stands for `call` on the target."""

    comment: str
    declarations: list[str]
    call: str | None
    traces: list[str]
    target_call: str | None = None


@dataclass(frozen=True)
class GraphFunction:
    """The body of one graph's function; `inputs` declares the tensors that the caller filled.

    in_arena  whether anything of it lies there: a tensor, or a kernel's scratch
    """

    name: str
    inputs: list[str]
    steps: list[Step]
    in_arena: bool


@dataclass(frozen=True)
class SharedFunction:
    """The C function of an operation that several graphs run; it takes the index of its first result in the trace."""

    name: str
    comment: str
    step: Step


def shared_functions(graphs: Sequence[Graph], arena: ArenaPlan, constants: Constants) -> dict[int, SharedFunction]:
    """By the operation's id: of those that are in several graphs, and work on persistent state alone."""
    users = Counter(id(op) for graph in graphs for op in graph.operations)
    functions = {}
    for graph in graphs:
        writer = _Writer(graph.name, arena, constants)
        for op in graph.operations:
            if users[id(op)] > 1 and id(op) not in functions and _only_state(op):
                functions[id(op)] = SharedFunction(f"run_{op.name}", _describe_call(op), writer.shared(op))
    return functions


def _only_state(operation: Operation) -> bool:
    operands = [*operation.inputs.values(), *operation.outputs.values()]
    anywhere = all(t.persistent or t.data is not None for t in operands)
    return anywhere and not operation.scratch_bytes and runs(operation)


def graph_function(
    graph: Graph, arena: ArenaPlan, constants: Constants, shared: Mapping[int, SharedFunction]
) -> GraphFunction:
    """The statements that run `graph` with its tensors where `arena` puts them; operations in `shared` by a call."""
    writer = _Writer(graph.name, arena, constants)
    inputs = [writer.declare(t) for t in graph.inputs if t.in_arena and _read_by_a_call(graph, t)]
    steps, index = [], 0
    for position, operation in enumerate(graph.operations):
        function = shared.get(id(operation))
        if function is None:
            steps.append(writer.step(position, operation, index))
        else:
            steps.append(Step(_comment(position, operation), [], f"{function.name}(m, {index});", []))
        index += len(operation.outputs)
    return GraphFunction(graph.name, inputs, steps, bool(arena.plans[graph.name].buffers))


def start_up_checks(graphs: Sequence[Graph], arena: ArenaPlan, constants: Constants) -> list[str]:
    """The expressions, each a tp_status, by which kernels on the target say whether they may run; each once."""
    checks = []
    for graph in graphs:
        writer = _Writer(graph.name, arena, constants)
        checks += [text for op in graph.operations if (text := writer.check(op))]
    return list(dict.fromkeys(checks))


def part_name(arena: ArenaPlan, part: ArenaPart) -> str:
    """The C name of the pointer to a part of the arena."""
    return "arena" if len(arena.parts) == 1 else f"arena_{part.name}"


def place_of(arena: ArenaPlan, graph: str, name: str) -> str:
    """The C expression for where the tensor or scratch called `name` lies while `graph` runs."""
    offset = arena.plans[graph].offset_of(name)
    part = arena.part_of(offset)
    return f"{part_name(arena, part)} + {offset - part.start}"


def _read_by_a_call(graph: Graph, tensor: Tensor) -> bool:
    """Whether any statement names `tensor`; a view of it does not."""
    return any(runs(op) for op in graph.consumers(tensor))


class _Writer:
    def __init__(self, graph: str, arena: ArenaPlan, constants: Constants):
        self.graph, self.arena, self.constants = graph, arena, constants

    def declare(self, tensor: Tensor) -> str:
        """The local that points at an arena tensor; of mantissas it is a struct around the pointer."""
        place = f"(void *)({place_of(self.arena, self.graph, tensor.name)})"
        if tensor.block_float:
            return f"tp_bfp {tensor.name} = {{.mantissa = {place}}};"
        return f"{CTYPES[tensor.dtype]} *const {tensor.name} = {place};"

    def step(self, position: int, operation: Operation, index: int) -> Step:
        """Everything of one operation; `index` numbers its first output in the trace."""
        declarations = [self.declare(t) for t in operation.outputs.values() if t.in_arena]
        traces = [self._trace(index + i, tensor) for i, tensor in enumerate(operation.outputs.values())]
        call, target_call = self._call(operation), self._target_call(operation)
        return Step(_comment(position, operation), declarations, call, traces, target_call)

    def shared(self, operation: Operation) -> Step:
        """The same of one that works on persistent state alone, wherever it is in the trace."""
        traces = [self._trace(f"first + {i}", tensor) for i, tensor in enumerate(operation.outputs.values())]
        return Step("", [], self._call(operation), traces, self._target_call(operation))

    def _call(self, operation: Operation) -> str | None:
        call = operation.op.call(operation) if runs(operation) else None
        if call is None:
            return self._view(operation)
        self.constants.on_target = False if operation.kernel is not None else None
        params = self.constants.params(operation, call) if call.params else ""
        return self._statement(operation, call, params, operation.op.scratch_bytes(operation))

    def _target_call(self, operation: Operation) -> str | None:
        kernel = operation.kernel
        if kernel is None or not runs(operation):
            return None
        self.constants.on_target = True
        params = self.constants.target_params(operation, kernel) if kernel.call.params else ""
        return self._statement(operation, kernel.call, params, kernel.scratch_bytes)

    def check(self, operation: Operation) -> str | None:
        """The expression of its kernel's check."""
        kernel = operation.kernel
        if kernel is None or kernel.check is None:
            return None
        self.constants.on_target = True
        check = kernel.check
        arguments = [f"&{self.constants.check_params(operation, kernel, check)}"] if check.params else []
        arguments += [self._argument(operation, argument) for argument in check.arguments]
        return f"{check.function}({', '.join(arguments)})"

    def _statement(self, operation: Operation, call: KernelCall, params: str, scratch_bytes: int) -> str:
        arguments = [f"&{params}"] if params else []
        arguments += [self._argument(operation, argument) for argument in call.arguments]
        if scratch_bytes:
            arguments.append(f"(void *)({place_of(self.arena, self.graph, f'{operation.name} scratch')})")
        return wrapped(f"{call.function}(", arguments, ");", 2)

    def _view(self, operation: Operation) -> str | None:
        """A view of a gradient copies the exponent; one of an array needs no statement."""
        source = next(iter(operation.inputs.values()))
        if not source.block_float:
            return None
        return f"{operation.output.name} = {source.name};"

    def _argument(self, operation: Operation, argument: Any) -> str:
        if isinstance(argument, CArray):
            return self.constants.array(argument, f"{operation.name}_{argument.name}")
        if isinstance(argument, Tensor):
            return self._reference(argument)
        if isinstance(argument, CPointers):
            if not argument.tensors:
                return "NULL"
            return f"(void *const[]){{{', '.join(self._reference(tensor) for tensor in argument.tensors)}}}"
        if isinstance(argument, tuple):
            pointers = ", ".join(self._reference(tensor) for tensor in argument)
            return f"(const {CTYPES[argument[0].dtype]} *const[]){{{pointers}}}"
        return number(argument)

    def _reference(self, tensor: Tensor) -> str:
        if tensor.data is not None:
            return self.constants.tensor(tensor)
        if tensor.purpose is Purpose.ADAPTER_WEIGHT:
            return f"m->adapter->{tensor.name}"
        if tensor.purpose is Purpose.MERGED_WEIGHT:
            return f"m->merged->{tensor.name}"
        if tensor.persistent:
            return f"m->training->{tensor.name}"
        return f"&{tensor.name}" if tensor.block_float else tensor.name

    def _trace(self, index: int | str, tensor: Tensor) -> str:
        if tensor.block_float:
            return f"trace_gradient(m, {index}, &{tensor.name}, {tensor.nbytes});"
        return f"trace(m, {index}, {self._reference(tensor)}, {tensor.nbytes});"


def _comment(position: int, operation: Operation) -> str:
    return f"op {position}: {_describe_call(operation)}"


def _describe_call(operation: Operation) -> str:
    sources = [t for t in operation.inputs.values() if t.data is None and not t.persistent]
    shown = ", ".join(_describe(t) for t in sources if t.purpose is not Purpose.ARGUMENT)
    results = ", ".join(_describe(t) for t in operation.outputs.values() if t.in_arena) or "state"
    layer = f" of {operation.layer}" if operation.layer and operation.layer != operation.name else ""
    rank = lora_rank(operation) if "hidden" in operation.inputs else 0
    lora = f" + {operation.attributes.get('addend', 'lora')}(r={rank})" if rank else ""
    form = f"; {operation.kernel.form}" if operation.kernel is not None else ""
    return f"{operation.kind}{lora}{layer}: {shown or 'state'} -> {results}{form}"


def _describe(tensor: Tensor) -> str:
    return f"({','.join(map(str, tensor.shape))}) {_SHORT[tensor.dtype]}"

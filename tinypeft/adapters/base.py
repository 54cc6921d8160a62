"""What an adapter kind declares: how it is inserted into a graph, what it trains, how PEFT names that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinypeft.errors import AdapterError
from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.ops import OPS
from tinypeft.ops.update_rows import CLEAN, WRITTEN
from tinypeft.ops.weighted import filter_scales, input_scale, layer_bias

#: name -> the adapter kind's only instance
ADAPTERS: dict[str, AdapterKind] = {}


def register(cls: type[AdapterKind]) -> type[AdapterKind]:
    """Class decorator: put the kind into the registry; a second of the same name or method bit is a KeyError."""
    if any(cls.name == kind.name or cls.method & kind.method for kind in ADAPTERS.values()):
        raise KeyError(f"adapter kind {cls.name} is registered twice, or its method {cls.method:#x}")
    ADAPTERS[cls.name] = cls()
    return cls


#: what layers a kind adapts: exact names or suffixes `.name`, or a regular expression that matches the whole name
Targets = tuple[str, ...] | str


@dataclass(frozen=True)
class Option:
    """A setting that a kind declares: its default, whose type is the setting's, and limits or choices.

    `limits`: the smallest and largest value of a number, both allowed.
    """

    name: str
    default: bool | int | float | str
    help: str
    choices: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None

    @property
    def flag(self) -> str:
        """The command line's name of it."""
        return "--" + self.name.replace("_", "-")

    def check(self, value: Any) -> None:
        """Raise AdapterError for a value of another type or beyond the limits."""
        kind = type(self.default)
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise AdapterError(f"{self.name} is {value!r}, expected {kind.__name__}", f"try {self.flag} {self.default}")
        if self.choices and value not in self.choices:
            raise AdapterError(f"there is no {self.name} {value}", f"one of: {', '.join(self.choices)}")
        if self.limits is not None and not self.limits[0] <= float(value) <= self.limits[1]:
            low, high = self.limits
            problem = f"{self.name} is {value:g}, the limits are {low:g} and {high:g}"
            raise AdapterError(problem, f"try {self.flag} {self.default}")


@dataclass(frozen=True)
class AdapterConfig:
    """What to train, in PEFT's terms.

    adapter          the kinds, names in ADAPTERS joined by "+", or "none"; "modules_to_save" alone adds nothing to the
                     layers that are retrained whole
    r                rank of LoRA's A and B
    lora_alpha       LoRA's output is scaled by lora_alpha / r
    target_modules   list: exact names or suffixes `.name`; str: a regular expression that matches the whole layer
                     name; None: every layer that a kind can adapt but the retrained ones
    modules_to_save  layers retrained whole; None: the last dense layer; empty: none
    targets          (kind, target_modules) of the kinds that have layers of their own
    options          (name, value) of what the kinds declare beyond this
    """

    adapter: str = "lora"
    r: int = 4
    lora_alpha: float = 8.0
    target_modules: Targets | None = None
    modules_to_save: tuple[str, ...] | None = None
    targets: tuple[tuple[str, Targets], ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds' names in the order in which they come on a layer; none for "none"."""
        names = () if self.adapter == "none" else self.adapter.split("+")
        return tuple(sorted(names, key=lambda name: ADAPTERS[name].order if name in ADAPTERS else 0))

    def targets_of(self, kind: str) -> Targets | None:
        """The layers that `kind` is to adapt; None for all that it can."""
        return dict(self.targets).get(kind, self.target_modules)

    def option(self, option: Option) -> Any:
        """The value of an option that a kind declares."""
        return dict(self.options).get(option.name, option.default)


@dataclass(eq=False)
class Parameter:
    """One trained tensor.

    `master` is its float32 original, whose first axis is rows that are updated one at a time; `quantized` the adapter
    weight that gradients refer to. `peft_name` is PEFT's key without its prefix; `to_peft` gives the array in PEFT's
    layout, `from_peft` takes it back. `row_changed`, where the quantiser wants it: see UPDATE_ROWS.
    """

    name: str
    layer: str
    master: Tensor
    quantized: Tensor
    peft_name: str
    to_peft: Callable[[np.ndarray], np.ndarray] = field(default=lambda array: array)
    from_peft: Callable[[np.ndarray], np.ndarray] = field(default=lambda array: array)
    row_changed: Tensor | None = None


@dataclass(eq=False)
class AdaptedGraph:
    """A graph with adapters inserted.

    parameters    in order of their layers
    quantizers    make the adapter weights from the masters, `restorers` the masters from those, optimiser states zero
    initializers  make a fresh adapter from the argument `seed`
    marks         tell the quantisers that any master may have changed
    observers     operand name of the loss -> a state that it keeps
    kinds         operation's name -> the kinds that adapt it, in the order in which they were inserted
    """

    graph: Graph
    parameters: list[Parameter] = field(default_factory=list)
    quantizers: list[Operation] = field(default_factory=list)
    restorers: list[Operation] = field(default_factory=list)
    initializers: list[Operation] = field(default_factory=list)
    marks: list[Operation] = field(default_factory=list)
    observers: dict[str, Tensor] = field(default_factory=dict)
    kinds: dict[str, list[str]] = field(default_factory=dict)
    seed: Tensor = field(default_factory=lambda: Tensor("seed", (), "int32", Purpose.ARGUMENT))


class Insertion:
    """What a kind inserts through: it adds to an AdaptedGraph under names derived from the layer.

    `before` and `after` collect the operations to run right before and behind the layer that is being adapted; `base`
    is that layer as no kind has changed it. `classifier` is the retrained layer whose output are the logits, if any.
    """

    base: Operation

    def __init__(self, adapted: AdaptedGraph):
        self.adapted = adapted
        self.before: list[Operation] = []
        self.after: list[Operation] = []
        self.classifier: Operation | None = None

    def follow(self, operation: Operation) -> tuple[Tensor, Tensor]:
        """Make room behind the layer: (what it gives from now on, the tensor that readers go on to read).

        The latter is the output of the operation that the caller appends to `after`.
        """
        last = self.after[-1] if self.after else operation
        name, output = next(iter(last.outputs.items()))
        given = replace(output, name=f"{output.name}_{'base' if last is operation else last.kind.lower()}", source=-1)
        last.outputs[name] = given
        return given, output

    def state(self, name: str, shape: tuple[int, ...], dtype: str, purpose: Purpose) -> Tensor:
        """A persistent tensor."""
        return Tensor(name, shape, dtype, purpose)

    def weight(self, name: str, shape: tuple[int, ...], dtype: str, rank_axis: int | None = None) -> Tensor:
        """A tensor that travels in the adapter package; zeros along its `rank_axis` must contribute nothing."""
        return replace(self.state(name, shape, dtype, Purpose.ADAPTER_WEIGHT), rank_axis=rank_axis)

    def initialize(self, kind: str, tensor: Tensor, inputs: dict[str, Tensor], **attributes: Any) -> None:
        """Have a fresh adapter start `tensor` by the operator `kind`."""
        operation = Operation(
            OPS[kind], f"{tensor.name}_initialize", inputs, {OPS[kind].results[0]: tensor}, attributes
        )
        self.adapted.initializers.append(operation)

    def uniform(self, tensor: Tensor, bound: float) -> None:
        """Have it start uniform in [-bound, bound), from a stream of its own."""
        stream = len(self.adapted.initializers)
        self.initialize("INITIALIZE_UNIFORM", tensor, {"seed": self.adapted.seed}, stream=stream, bound=bound)

    def normal(self, tensor: Tensor, deviation: float) -> None:
        """Have it start normal around 0, from a stream of its own."""
        stream = len(self.adapted.initializers)
        self.initialize("INITIALIZE_NORMAL", tensor, {"seed": self.adapted.seed}, stream=stream, deviation=deviation)

    def table(self, tensor: Tensor, values: np.ndarray) -> None:
        """Have it start from `values`, which firmware keeps in flash."""
        self.initialize("INITIALIZE_FROM_TABLE", tensor, {}, table=values.astype(np.float32))

    def constant(self, tensor: Tensor, value: float = 0.0) -> None:
        """Have it start at `value`."""
        self.initialize("INITIALIZE_CONSTANT", tensor, {}, value=value)

    def mark_rows(self, row_changed: Tensor) -> None:
        """Have `row_changed` (see UPDATE_ROWS) say so of all rows before every master is quantised, of none after."""
        marked = ((self.adapted.initializers, WRITTEN), (self.adapted.marks, WRITTEN), (self.adapted.restorers, CLEAN))
        for operations, value in marked:
            name = f"{row_changed.name}_mark_{value}"
            operations.append(Operation(OPS["MARK_ROWS"], name, {}, {"row_changed": row_changed}, {"value": value}))

    def quantize(
        self,
        operation: Operation,
        kinds: tuple[str, str],
        masters: dict[str, Tensor],
        outputs: dict[str, Tensor],
        attributes: dict[str, Any],
    ) -> None:
        """Have the operator kinds[0] make `outputs` from `masters`, and kinds[1] the masters from those outputs."""
        every = masters | outputs
        for kind, operations in zip(kinds, (self.adapted.quantizers, self.adapted.restorers), strict=True):
            op = OPS[kind]
            sources = {k: every[k] for k in (*op.operands, *op.optional) if k in every}
            results = {k: every[k] for k in op.results if k in every}
            name = f"{operation.name}_{kind.lower()}"
            operations.append(Operation(op, name, sources, results, attributes, operation.layer))


def add_in_accumulator(operation: Operation, kind: str, operands: dict[str, Tensor]) -> None:
    """Give a layer the operands (LORA_OPERANDS) that `kind` adds by; AdapterError where another kind does already."""
    other = operation.attributes.setdefault("addend", kind)
    if other != kind:
        raise AdapterError(
            f"{operation.layer} has a {other}: its accumulators have no room for a {kind} beside it",
            f"give them different layers: --targets {other}=... --targets {kind}=...",
        )
    operation.inputs |= operands


@dataclass(eq=False)
class MergedLayer:
    """A layer's weights in real units, float64, into which kinds merge one after the other.

    filter: the layout of the operation's operand; bias (Cout,), zeros where the layer has none.
    """

    filter: np.ndarray
    bias: np.ndarray


def base_layer(operation: Operation) -> MergedLayer:
    """A layer of the base as nothing has been merged into it."""
    filters = operation.inputs["filter"].data
    assert filters is not None
    scales = filter_scales(operation).astype(np.float64)
    axis = filters.ndim - 1 if operation.kind == "DEPTHWISE_CONV_2D" else 0
    bias = layer_bias(operation) * (np.float64(input_scale(operation)) * scales)
    return MergedLayer(filters * scales.reshape([-1 if i == axis else 1 for i in range(filters.ndim)]), bias)


class AdapterKind:
    """A kind of adapter; stateless, one instance lives in ADAPTERS.

    options    settings of its own
    order      where it comes among the kinds on one layer, inserted and merged: 0 what changes the bias, of which the
               bounds of others depend; 1 what adds to the accumulators; 2 what scales them; 3 what replaces outputs
    on_input   whether it adapts the model's input instead of layers: `operation` is then the first that reads it
    summary    what it learns and where, for users
    peft_type  PEFT's name of it, or ours where PEFT has none
    method     the bit that tells it in a package's header: its TP_METHOD_ in tp_package.h
    unmerged   why it has no merged form, as a clause ("adds an activation of its own"); empty where it has
    uncombined the same of why weighted sums of its masters mean nothing
    """

    name: str = ""
    options: tuple[Option, ...] = ()
    order: int = 1
    on_input: bool = False
    summary: str = ""
    peft_type: str = ""
    method: int = 0
    unmerged: str = ""
    uncombined: str = ""

    def refuses(self, operation: Operation) -> str | None:
        """None where the kind can adapt `operation`, else the reason as a clause ("is a depthwise layer: …")."""
        raise NotImplementedError

    def check(self, targets: Sequence[Operation], config: AdapterConfig) -> None:
        """Raise AdapterError for settings that do not fit the layers that the kind is to adapt."""

    def insert(self, operation: Operation, config: AdapterConfig, insertion: Insertion) -> None:
        """Give `operation` its adapter operands in place; what runs before or behind it goes into `insertion`."""
        raise NotImplementedError

    def merge(
        self, operation: Operation, config: AdapterConfig, state: dict[str, np.ndarray], layer: MergedLayer
    ) -> None:
        """Put what the adapter of `operation` does into `layer`, from the masters in `state`, by tensor name."""
        raise NotImplementedError

"""What an adapter kind declares: how it is inserted into a graph, what it trains, how PEFT names that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.ops import OPS

#: name -> the adapter kind's only instance
ADAPTERS: dict[str, AdapterKind] = {}


def register(cls: type[AdapterKind]) -> type[AdapterKind]:
    """Class decorator: put the kind into the registry; a second of the same name is a KeyError."""
    if cls.name in ADAPTERS:
        raise KeyError(f"adapter kind {cls.name} is registered twice")
    ADAPTERS[cls.name] = cls()
    return cls


@dataclass(frozen=True)
class AdapterConfig:
    """What to train, in PEFT's terms.

    adapter          the kind, a name in ADAPTERS, or "none"
    r                rank of LoRA's A and B
    lora_alpha       LoRA's output is scaled by lora_alpha / r
    target_modules   list: exact names or suffixes `.name`; str: a regular expression that matches the whole layer
                     name; None: every layer that the kind can adapt but the retrained ones
    modules_to_save  layers retrained whole; None: the last dense layer; empty: none
    """

    adapter: str = "lora"
    r: int = 4
    lora_alpha: float = 8.0
    target_modules: tuple[str, ...] | str | None = None
    modules_to_save: tuple[str, ...] | None = None


@dataclass(eq=False)
class Parameter:
    """One trained tensor.

    `master` is its float32 original, `quantized` the adapter weight that gradients refer to. `peft_name` is
    PEFT's key without its prefix; `to_peft` gives the array in PEFT's layout, `from_peft` takes it back.
    """

    name: str
    layer: str
    master: Tensor
    quantized: Tensor
    peft_name: str
    to_peft: Callable[[np.ndarray], np.ndarray]
    from_peft: Callable[[np.ndarray], np.ndarray]


@dataclass(eq=False)
class AdaptedGraph:
    """A graph with adapters inserted.

    parameters    in order of their layers
    quantizers    make the adapter weights from the masters, `restorers` the masters from those, optimiser states zero
    initializers  make a fresh adapter from the argument `seed`
    observers     operand name of the loss -> a state that it keeps
    """

    graph: Graph
    parameters: list[Parameter] = field(default_factory=list)
    quantizers: list[Operation] = field(default_factory=list)
    restorers: list[Operation] = field(default_factory=list)
    initializers: list[Operation] = field(default_factory=list)
    observers: dict[str, Tensor] = field(default_factory=dict)
    seed: Tensor = field(default_factory=lambda: Tensor("seed", (), "int32", Purpose.ARGUMENT))


class Insertion:
    """What a kind inserts through: it adds to an AdaptedGraph under names derived from the layer."""

    def __init__(self, adapted: AdaptedGraph):
        self.adapted = adapted

    def state(self, name: str, shape: tuple[int, ...], dtype: str, purpose: Purpose) -> Tensor:
        """A persistent tensor."""
        return Tensor(name, shape, dtype, purpose)

    def weight(self, name: str, shape: tuple[int, ...], dtype: str) -> Tensor:
        """A tensor that travels in the adapter package."""
        return self.state(name, shape, dtype, Purpose.ADAPTER_WEIGHT)

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

    def constant(self, tensor: Tensor, value: float = 0.0) -> None:
        """Have it start at `value`."""
        self.initialize("INITIALIZE_CONSTANT", tensor, {}, value=value)

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
            sources, results = {k: every[k] for k in op.operands}, {k: every[k] for k in op.results}
            name = f"{operation.name}_{kind.lower()}"
            operations.append(Operation(op, name, sources, results, attributes, operation.layer))


class AdapterKind:
    """A kind of adapter; stateless, one instance lives in ADAPTERS."""

    name: str = ""

    def refuses(self, operation: Operation) -> str | None:
        """None where the kind can adapt `operation`, else the reason as a clause ("is a depthwise layer: …")."""
        raise NotImplementedError

    def insert(self, operation: Operation, config: AdapterConfig, insertion: Insertion) -> list[Operation]:
        """Give `operation` its adapter operands in place; returns the operations to run right before it."""
        raise NotImplementedError

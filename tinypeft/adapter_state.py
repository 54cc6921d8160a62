"""An adapter of a compiled model: its device package or float32 masters in, all that belongs to it out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tinypeft.compiler import CompiledModel
from tinypeft.errors import AdapterError
from tinypeft.interpreter import run_graph
from tinypeft.ir import DTYPES, Graph, Purpose, Tensor
from tinypeft.ops.update_rows import CHANGED
from tinypeft.state import pack_adapter, unpack_adapter


class AdapterLike(Protocol):
    """What has a package and a state: an Adapter, or what training gave."""

    @property
    def package(self) -> bytes: ...

    @property
    def state(self) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True, eq=False)
class Adapter:
    """`package` for the device; `state`: every persistent tensor by name, masters and adapter weights among them."""

    package: bytes
    state: dict[str, np.ndarray] = field(repr=False)

    @property
    def sha256(self) -> str:
        """SHA-256 of the package."""
        return hashlib.sha256(self.package).hexdigest()


def adapter_from_package(model: CompiledModel, package: bytes) -> Adapter:
    """The adapter whose masters are those that the package's integers stand for.

    AdapterError: a damaged package, or one of another model or configuration.
    """
    require_adapters(model)
    state = unpack_adapter(model, package)
    assert model.restore is not None
    run_graph(model.restore, {}, state)
    return Adapter(package, state)


def adapter_from_masters(
    model: CompiledModel, masters: Mapping[str, np.ndarray], kept: Mapping[str, np.ndarray] | None = None
) -> Adapter:
    """The adapter that the device's quantisers make of float32 masters, by name, all of them.

    `kept` are the states of the quantisers (see `quantizer_states`) with which they once did; without, each layer's
    scales are chosen anew, and a retrained classifier keeps the scale of the base's output.
    """
    require_adapters(model)
    assert model.requantize is not None
    states = quantizer_states(model)
    blank = [*model.training_state, *states]
    state: dict[str, np.ndarray] = {tensor.name: np.zeros(tensor.shape, DTYPES[tensor.dtype]) for tensor in blank}
    state |= {name: np.asarray(master, np.float32) for name, master in masters.items()}
    graph = model.requantize
    if kept is not None:
        state |= {tensor.name: np.asarray(kept[tensor.name], DTYPES[tensor.dtype]) for tensor in states}
        marks = [op for op in graph.operations if op.kind == "MARK_ROWS"]
        state |= {op.output.name: np.full(op.output.shape, CHANGED, np.int8) for op in marks}
        graph = Graph(graph.name, [], [], [op for op in graph.operations if op.kind != "MARK_ROWS"])
    run_graph(graph, {}, state)
    return Adapter(pack_adapter(model, state), state)


def quantizer_states(model: CompiledModel) -> list[Tensor]:
    """What the quantisers read beside masters, and remember: how often a scale grew, the range of logits seen."""
    if model.requantize is None:
        return []
    marked = {id(op.output) for op in model.requantize.operations if op.kind == "MARK_ROWS"}
    given: set[int] = set()
    found: dict[int, Tensor] = {}
    for op in model.requantize.operations:
        read = [t for t in op.inputs.values() if t.purpose is not Purpose.MASTER]
        found |= {id(t): t for t in read if id(t) not in marked | given}
        given |= {id(t) for t in op.outputs.values()}
    return list(found.values())


def require_adapters(model: CompiledModel) -> None:
    """Raise AdapterError for a model that has none."""
    if model.training is None:
        raise AdapterError(f"{model.name} was generated without adapters", "generate it with --adapter lora")

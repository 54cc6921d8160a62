"""What an analysis says, as dataclasses whose fields are the keys of the JSON form (schemas/analysis-1.json)."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

SCHEMA = "tinypeft.analysis/1"

#: How a number of bytes is known: the compiler decided it; the ELF says so; neither.
EXACT, MEASURED, ESTIMATE = "exact", "measured", "estimate"


@dataclass(frozen=True)
class TensorFacts:
    """A tensor of a graph; `purpose` is one of `ir.Purpose`."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    purpose: str
    bytes: int


@dataclass(frozen=True)
class PlacedTensor(TensorFacts):
    """A tensor in the arena, at the address `offset`."""

    offset: int


@dataclass(frozen=True)
class Kernel:
    """The C function that computes an operation and why that one; `function` is None where nothing runs."""

    function: str | None
    source: str | None
    backend: str | None
    reason: str


@dataclass(frozen=True)
class OperationFacts:
    """One operation at its place in the schedule.

    phase             forward, loss, backward, update; recompute for a forward operation that runs once more
    inputs, outputs   names of tensors that are no constants
    weight_bytes      frozen weights that it reads
    adapter_bytes     adapter weights that it reads
    activation_bytes  results that it leaves in the arena
    scratch_bytes     arena that it needs while it runs
    """

    index: int
    name: str
    layer: str
    kind: str
    phase: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    result: TensorFacts
    macs: int
    weight_bytes: int
    adapter_bytes: int
    activation_bytes: int
    scratch_bytes: int
    kernel: Kernel

    @property
    def parameter_bytes(self) -> int:
        """All weights that it reads."""
        return self.weight_bytes + self.adapter_bytes


@dataclass(frozen=True)
class BufferFacts:
    """Bytes of the arena, `offset` to `offset + bytes`, from operation `first` to `last`, both included.

    `last` is the number of operations for what the caller reads afterwards. `purpose` is activation, gradient, mask or
    scratch; `memory` the RAM it lies in; `tensors` share it, in the order in which they are computed.
    """

    name: str
    purpose: str
    memory: str
    offset: int
    bytes: int
    first: int
    last: int
    tensors: tuple[PlacedTensor, ...]


@dataclass(frozen=True)
class Peak:
    """The operation at which the most bytes are live, and the names of the buffers that are."""

    index: int
    operation: str
    bytes: int
    live: tuple[str, ...]


@dataclass(frozen=True)
class GraphFacts:
    """A graph in its schedule.

    lower_bound  the most bytes that are live at once
    bound        no arena for this schedule is smaller, which `proof` proves; `optimal`: the arena is as small
    method       what found the plan
    """

    name: str
    macs: int
    arena_bytes: int
    lower_bound: int
    bound: int
    optimal: bool
    proof: str
    method: str
    peak: Peak | None
    operations: tuple[OperationFacts, ...]
    buffers: tuple[BufferFacts, ...]

    @property
    def gap(self) -> int:
        """Bytes above the bound."""
        return self.arena_bytes - self.bound


@dataclass(frozen=True)
class Part:
    """A share of a memory, and how it is known."""

    name: str
    bytes: int
    basis: str


@dataclass(frozen=True)
class Usage:
    """What is needed of RAM or flash: the sum of `parts`; as certain as the least certain of them."""

    bytes: int
    basis: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class ArenaPart:
    """The part of the arena that lies in one memory: addresses of the arena from `start`."""

    memory: str
    start: int
    bytes: int


@dataclass(frozen=True)
class Memory:
    """All RAM and all flash of the firmware, and where the arena lies."""

    ram: Usage
    flash: Usage
    arena: tuple[ArenaPart, ...]

    @property
    def constants_and_code(self) -> tuple[int, int]:
        """The two parts of flash."""
        sizes = {part.name: part.bytes for part in self.flash.parts}
        return sizes["constants"], sizes["code"]


@dataclass(frozen=True)
class MemoryUse:
    """A memory of a board that the firmware uses: `kind` is ram or flash, `used` of its `bytes`."""

    name: str
    kind: str
    bytes: int
    used: int
    basis: str


@dataclass(frozen=True)
class BoardFacts:
    """The board and the memories that are used of it."""

    name: str
    title: str
    core: str
    memories: tuple[MemoryUse, ...]


@dataclass(frozen=True)
class WayFacts:
    """A way to fit: `options` for the command line, what it needs, and what it costs against what was asked for."""

    what: str
    options: str
    ram_bytes: int
    trainable_parameters: int
    lost_parameters: int
    extra_macs: int


@dataclass(frozen=True)
class Fit:
    """Whether it fits the board, None without one; where it does not, the cheapest ways to fit."""

    fits: bool | None
    ways: tuple[WayFacts, ...]


@dataclass(frozen=True)
class ModelFacts:
    """The model's file and edges; `fingerprint` is the SHA-256 of its .tflite."""

    name: str
    file: str
    fingerprint: str
    input: TensorFacts
    output: TensorFacts


@dataclass(frozen=True)
class Configuration:
    """What it was compiled with."""

    adapter: dict[str, Any]
    training: dict[str, Any]
    memory: dict[str, Any]
    stack_bytes: int


@dataclass(frozen=True)
class Totals:
    """Sums over the model; what only training has is 0 without an adapter.

    training_macs    of one training step, forward pass included
    weight_bytes     frozen weights, each once
    arena_bytes      of all graphs, which share one arena; `arena_bound` is the least that is proved of their schedules
    package_bytes    the adapter as a file for the device
    """

    macs: int
    training_macs: int
    weight_bytes: int
    base_parameters: int
    trainable_parameters: int
    adapter_bytes: int
    optimizer_bytes: int
    package_bytes: int
    arena_bytes: int
    arena_bound: int


@dataclass(frozen=True)
class Analysis:
    """Everything that `tinypeft analyze` tells."""

    schema: str
    tinypeft: str
    model: ModelFacts
    configuration: Configuration
    board: BoardFacts | None
    totals: Totals
    memory: Memory
    fit: Fit
    graphs: tuple[GraphFacts, ...]
    notes: tuple[str, ...]

    def graph(self, name: str) -> GraphFacts | None:
        """The graph of that name, or None."""
        return next((graph for graph in self.graphs if graph.name == name), None)

    def as_json(self) -> dict[str, Any]:
        """The JSON form, as schemas/analysis-1.json describes it."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

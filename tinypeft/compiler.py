"""The compiler: a base graph and configurations in, scheduled and planned graphs out. Reads top to bottom."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tinypeft.adapters import AdaptedGraph, AdapterConfig, Parameter
from tinypeft.interpreter import run_graph
from tinypeft.ir import Graph, Purpose, Tensor, verify
from tinypeft.stages.autodiff import TrainingConfig, differentiate
from tinypeft.stages.insert import insert_adapters
from tinypeft.stages.logits import attach_logits
from tinypeft.stages.plan import ArenaPlan, plan_graphs
from tinypeft.stages.schedule import schedule

#: header and checksum around the adapter weights in a package
PACKAGE_OVERHEAD = 56


@dataclass(eq=False)
class CompiledModel:
    """All graphs of a model and where their tensors lie.

    inference   gives the output and, where the classifier is retrained, the logits
    training    one step of training; None without an adapter, as are the others
    update      applies a batch of gradients; None where each sample updates
    reset       a fresh adapter from a seed
    requantize  adapter weights from masters
    restore     masters from adapter weights
    """

    name: str
    fingerprint: bytes
    base: Graph
    inference: Graph
    training: Graph | None
    update: Graph | None
    reset: Graph | None
    requantize: Graph | None
    restore: Graph | None
    parameters: list[Parameter]
    adapter: AdapterConfig
    training_config: TrainingConfig
    arena: ArenaPlan
    weights: list[Tensor] = field(default_factory=list)
    adapter_weights: list[Tensor] = field(default_factory=list)
    training_state: list[Tensor] = field(default_factory=list)

    @property
    def graphs(self) -> list[Graph]:
        """Every graph there is, inference first."""
        every = [self.inference, self.training, self.update, self.reset, self.requantize, self.restore]
        return [graph for graph in every if graph is not None]

    @property
    def output(self) -> Tensor:
        """The model's output."""
        return self.inference.outputs[0]

    @property
    def logits(self) -> Tensor | None:
        """The float32 logits of a retrained classifier, else None."""
        return self.inference.outputs[1] if len(self.inference.outputs) > 1 else None

    @property
    def package_bytes(self) -> int:
        """Size of the adapter package."""
        return PACKAGE_OVERHEAD + sum(t.nbytes for t in self.adapter_weights)

    def fresh_state(self, seed: int) -> dict[str, np.ndarray]:
        """The persistent tensors of a fresh adapter, by name."""
        state: dict[str, np.ndarray] = {}
        if self.reset is not None:
            run_graph(self.reset, seed_argument(seed), state)
        return state


def seed_argument(seed: int) -> dict[str, np.ndarray]:
    """The argument of the reset graph: `seed`, 0 to 2**32 - 1, as the int32 of the same bits."""
    return {"seed": np.array(seed, np.uint32).astype(np.int32)}


def compile_model(
    name: str, fingerprint: bytes, base: Graph, adapter: AdapterConfig, training_config: TrainingConfig
) -> CompiledModel:
    """Compile `base` with the adapters of `adapter` into planned graphs for inference and training."""
    verify(base, "read")
    adapted = insert_adapters(base, adapter)
    verify(_with_quantizers(adapted), "insert")
    trains = bool(adapted.parameters)
    forward, logits = attach_logits(adapted.graph) if trains else (adapted.graph, None)
    training, update = differentiate(forward, logits, adapted, training_config) if logits is not None else (None, None)
    retrained = "logit_range" in adapted.observers
    inference = Graph("inference", forward.inputs, forward.outputs, forward.operations) if retrained else adapted.graph
    inference = Graph("inference", inference.inputs, inference.outputs, inference.operations)
    reset = requantize = restore = None
    if trains:
        reset = Graph("reset", [adapted.seed], [], [*adapted.initializers, *adapted.quantizers])
        requantize = Graph("requantize", [], [], adapted.quantizers)
        restore = Graph("restore", [], [], adapted.restorers)
    scheduled = [
        schedule(verify(graph, "differentiate")) if graph is not None else None
        for graph in (inference, training, update)
    ]
    present = [graph for graph in [*scheduled, reset, requantize, restore] if graph is not None]
    for graph in present:
        verify(graph, "schedule")
    tensors = list({id(t): t for graph in present for t in graph.tensors()}.values())
    adapter_weights = _by_alignment(t for t in tensors if t.purpose is Purpose.ADAPTER_WEIGHT)
    package_bytes = PACKAGE_OVERHEAD + sum(t.nbytes for t in adapter_weights)
    arena = plan_graphs(present, package_bytes if trains else 0)
    assert scheduled[0] is not None
    return CompiledModel(
        name,
        fingerprint,
        base,
        scheduled[0],
        scheduled[1],
        scheduled[2],
        reset,
        requantize,
        restore,
        adapted.parameters,
        adapter,
        training_config,
        arena,
        [t for t in tensors if t.data is not None],
        adapter_weights,
        _by_alignment(t for t in tensors if t.purpose in (Purpose.MASTER, Purpose.OPTIMIZER_STATE)),
    )


def _with_quantizers(adapted: AdaptedGraph) -> Graph:
    graph = adapted.graph
    return Graph(graph.name, graph.inputs, graph.outputs, [*adapted.quantizers, *graph.operations])


def _by_alignment(tensors: object) -> list[Tensor]:
    """Widest elements first, so that a struct of them has no padding inside; otherwise in order."""
    return sorted(tensors, key=lambda t: -t.nbytes // t.size if t.dtype != "bits" else -1)  # type: ignore[call-overload]

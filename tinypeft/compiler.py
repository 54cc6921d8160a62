"""The compiler: a base graph and configurations in, scheduled and planned graphs out. Reads top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tinypeft.adapters import AdaptedGraph, AdapterConfig, Parameter
from tinypeft.errors import FitError
from tinypeft.interpreter import run_graph
from tinypeft.ir import DTYPES, Graph, Purpose, Tensor, verify
from tinypeft.losses import LABEL, LOSSES, Loss
from tinypeft.planner import WHOLE, ArenaPlan, ArenaRegion
from tinypeft.replay import SampleStore, latent_room, replay_bytes
from tinypeft.stages.autodiff import TrainingConfig, differentiate
from tinypeft.stages.evaluate import evaluation
from tinypeft.stages.insert import insert_adapters
from tinypeft.stages.latent import LatentGraphs, split_latents
from tinypeft.stages.logits import attach_logits
from tinypeft.stages.plan import plan_graphs
from tinypeft.stages.recompute import RamBudget, Recomputed, recompute
from tinypeft.stages.schedule import schedule, schedule_quickly
from tinypeft.stages.unread import leave_out_unread

#: header and checksum around the adapter weights in a package
PACKAGE_OVERHEAD = 56
#: how often a plan that is larger than the bytes live at once may ask for fewer of them
PLAN_ATTEMPTS = 8


@dataclass(eq=False)
class CompiledModel:
    """All graphs of a model and where their tensors lie.

    inference   gives the output and, where the classifier is retrained, the logits
    training    one step of training; None without an adapter, as are the others
    evaluate    loss and right decisions of a sample, without learning from it
    update      applies a batch of gradients; None where each sample updates
    reset       a fresh adapter from a seed
    requantize  adapter weights from masters
    restore     masters from adapter weights
    adapted_by  operation of the base -> the adapter kinds on it, in the order in which they merge
    recomputed  what training runs again to stay within a budget; None where it need not
    latent      training split in two in front of the first adapter; None where that was not asked for
    store       room for samples that the firmware learns from by itself; None without
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
    adapter_weights: list[Tensor]
    training_state: list[Tensor]
    adapted_by: dict[str, list[str]]
    recomputed: Recomputed | None = None
    evaluate: Graph | None = None
    store: SampleStore | None = None
    latent: LatentGraphs | None = None

    @property
    def graphs(self) -> list[Graph]:
        """Every graph there is, inference first."""
        every = [self.inference, self.training, self.evaluate, self.update]
        every += [self.reset, self.requantize, self.restore]
        if self.latent is not None:
            every += [self.latent.encode, self.latent.training]
        return [graph for graph in every if graph is not None]

    @property
    def output(self) -> Tensor:
        """The model's output."""
        return self.inference.outputs[0]

    @property
    def logits(self) -> Tensor | None:
        """The int32 logits of a retrained classifier, whose scale is a power of two; else None."""
        return self.inference.outputs[1] if len(self.inference.outputs) > 1 else None

    @property
    def loss(self) -> Loss:
        """What training minimises."""
        return LOSSES[self.training_config.loss]

    @property
    def target(self) -> Tensor | None:
        """The argument that training compares with: `label`, or `target` (outputs,) in Q16.16; None without one."""
        arguments = self.training.inputs if self.training is not None else []
        return next((t for t in arguments if t.name in ("label", "target") and t.purpose is Purpose.ARGUMENT), None)

    @property
    def target_bytes(self) -> int:
        """Size of a target vector, 0 where training takes none."""
        return self.target.nbytes if self.target is not None and self.target.shape else 0

    @property
    def classes(self) -> int:
        """How many labels there are, 0 where training takes none."""
        return self.output.shape[-1] if self.target is not None and not self.target.shape else 0

    @property
    def replay_bytes(self) -> int:
        """Size of the store of samples, of what learning from it takes, and of the room for latents; 0 without any."""
        return replay_bytes(self.store, self.latent.nbytes if self.latent is not None else 0)

    @property
    def latent_room(self) -> int:
        """The latents of so many samples find room on the device."""
        return latent_room(self.store) if self.latent is not None else 0

    @property
    def package_bytes(self) -> int:
        """Size of the adapter package."""
        return PACKAGE_OVERHEAD + self.adapter_bytes

    @property
    def adapter_bytes(self) -> int:
        """Size of the adapter weights."""
        return sum(t.nbytes for t in self.adapter_weights)

    @property
    def training_bytes(self) -> int:
        """Size of the masters and the optimiser's state."""
        return sum(t.nbytes for t in self.training_state)

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
    name: str,
    fingerprint: bytes,
    base: Graph,
    adapter: AdapterConfig,
    training_config: TrainingConfig,
    regions: Sequence[ArenaRegion] = (ArenaRegion(WHOLE),),
    budget: RamBudget | None = None,
    samples: int = 0,
) -> CompiledModel:
    """Compile `base` with the adapters of `adapter` into planned graphs for inference and training.

    `regions` are the RAMs that the arena may use, in order of preference. Where training needs more than `budget`, it
    runs forward operations again instead of keeping what they gave; raises FitError where that is not enough. The
    firmware has room for so many `samples` to learn from by itself.
    """
    verify(base, "read")
    loss = LOSSES[training_config.loss]
    if adapter.modules_to_save is None and not loss.classifies:
        adapter = replace(adapter, modules_to_save=())
    adapted = insert_adapters(base, adapter)
    verify(_with_quantizers(adapted), "insert")
    trains = bool(adapted.parameters)
    forward, logits = adapted.graph, None
    if trains:
        forward, logits = attach_logits(adapted.graph, loss.passed_over, classes=training_config.target == LABEL)
    training = evaluate = update = None
    if logits is not None:
        training, update = differentiate(forward, logits, adapted, training_config)
        evaluate = evaluation(forward, logits, training_config)
    source = forward if "logit_range" in adapted.observers else adapted.graph  # a retrained classifier gives logits
    inference = Graph("inference", source.inputs, source.outputs, source.operations)
    reset = requantize = restore = None
    if trains:
        reset = Graph("reset", [adapted.seed], [], [*adapted.initializers, *adapted.quantizers])
        requantize = Graph("requantize", [], [], [*adapted.marks, *adapted.quantizers])
        restore = Graph("restore", [], [], adapted.restorers)
    every = (inference, training, evaluate, update, reset, requantize, restore)
    leave_out_unread([graph for graph in every if graph is not None])
    inference = schedule(verify(inference, "differentiate"))
    training = schedule(verify(training, "differentiate")) if training is not None else None
    evaluate = schedule(verify(evaluate, "evaluate")) if evaluate is not None else None
    update = schedule(verify(update, "differentiate")) if update is not None else None
    present = [g for g in (inference, training, evaluate, update, reset, requantize, restore) if g is not None]
    latent = split_latents(training) if training is not None and training_config.latents else None
    present += [] if latent is None else [latent.encode, latent.training]
    for graph in present:
        verify(graph, "schedule")
    tensors = list({id(t): t for graph in present for t in graph.tensors()}.values())
    adapter_weights = _by_alignment(t for t in tensors if t.purpose is Purpose.ADAPTER_WEIGHT)
    training_state = _by_alignment(t for t in tensors if t.purpose in (Purpose.MASTER, Purpose.OPTIMIZER_STATE))
    adapter_bytes = sum(t.nbytes for t in adapter_weights)
    package_bytes = PACKAGE_OVERHEAD + adapter_bytes if trains else 0
    state_bytes = adapter_bytes + sum(t.nbytes for t in training_state)
    store = None
    if training is not None:
        vectors = [t for t in training.inputs if t.purpose is Purpose.ARGUMENT and t.shape]
        target_bytes = sum(t.nbytes for t in vectors)
        state_bytes += target_bytes
        if samples:
            classes = inference.outputs[0].shape[-1] if training_config.target == LABEL else 0
            input_bytes = inference.inputs[0].nbytes
            training_bytes = sum(t.nbytes for t in training_state)
            store = SampleStore(samples, classes, target_bytes, input_bytes, adapter_bytes, training_bytes)
        state_bytes += replay_bytes(store, latent.nbytes if latent is not None else 0)

    def plan(changed: Graph | None) -> ArenaPlan:
        graphs = [changed if graph is training and changed is not None else graph for graph in present]
        return plan_graphs(graphs, package_bytes, regions, state_bytes)

    arena, recomputed = plan(training), None
    if budget is not None and arena.arena_bytes + state_bytes + budget.beside > budget.total:
        remedies = _remedies(training_config, latent is not None) if training is not None else []
        recomputed, arena = _within_budget(name, training, arena, budget, state_bytes + budget.beside, plan, remedies)
        training = recomputed.graph
    return CompiledModel(
        name,
        fingerprint,
        base,
        inference,
        training,
        update,
        reset,
        requantize,
        restore,
        adapted.parameters,
        adapter,
        training_config,
        arena,
        adapter_weights,
        training_state,
        adapted.kinds,
        recomputed,
        evaluate,
        store,
        latent,
    )


def _within_budget(
    name: str,
    training: Graph | None,
    arena: ArenaPlan,
    budget: RamBudget,
    beside: int,
    plan: Callable[[Graph | None], ArenaPlan],
    remedies: list[str],
) -> tuple[Recomputed, ArenaPlan]:
    """A training graph that recomputes so much that the arena and what lies `beside` it fit, and its plan.

    `remedies` are what the error suggests beside a larger budget.
    """
    room = (budget.total - beside) // 8 * 8
    smallest, again, target = arena.arena_bytes, 0, room
    for _ in range(PLAN_ATTEMPTS if training is not None else 0):
        assert training is not None
        found = recompute(training, target, schedule_quickly)
        found = replace(found, graph=schedule(verify(found.graph, "recompute")))
        planned = plan(found.graph)
        if planned.arena_bytes <= room:
            return found, planned
        if planned.arena_bytes < smallest:
            smallest, again = planned.arena_bytes, len(found.again)
        if found.peak > target:
            break
        target = found.peak - (planned.arena_bytes - room)
    reached = f"; with {again} operations of training run again it needs {smallest + beside:,} B" if again else ""
    raise FitError(
        f"{name} needs {arena.arena_bytes + beside:,} B of RAM, the budget is {budget.total:,} B{reached}",
        ", or ".join([f"--ram-budget {smallest + beside}", *remedies]),
    )


def _remedies(config: TrainingConfig, latents: bool) -> list[str]:
    """What needs less RAM to train."""
    every = {
        "--grad-bits 8: gradients of half the size": config.grad_bits == 16,
        "a smaller rank: --r": True,
        "--no-latents: a step from latents runs no operation again": latents,
    }
    return [remedy for remedy, helps in every.items() if helps]


def _with_quantizers(adapted: AdaptedGraph) -> Graph:
    graph = adapted.graph
    return Graph(graph.name, graph.inputs, graph.outputs, [*adapted.quantizers, *graph.operations])


def _by_alignment(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Widest elements first, so that a struct of them has no padding inside; otherwise in order."""
    return sorted(tensors, key=lambda t: -np.dtype(DTYPES[t.dtype]).itemsize)

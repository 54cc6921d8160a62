"""The compiler: a base graph and configurations in, scheduled and planned graphs out. Reads top to bottom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tinypeft.adapter_store import AdapterStore
from tinypeft.adapters import ADAPTERS, AdaptedGraph, AdapterConfig, Parameter
from tinypeft.interpreter import run_graph
from tinypeft.ir import DTYPES, Graph, Purpose, Tensor, verify
from tinypeft.kernels import PORTABLE_KERNELS, Choice, KernelConfig, Target, choose_kernels
from tinypeft.losses import LABEL, LOSSES, Loss
from tinypeft.package.format import OVERHEAD_BYTES, SIGNATURE_BYTES
from tinypeft.package.info import PackageInfo, package_info
from tinypeft.planner import WHOLE, ArenaPlan, ArenaRegion
from tinypeft.ram_budget import remedies, within_budget
from tinypeft.replay import SampleStore, latent_room, replay_bytes
from tinypeft.stages.autodiff import TrainingConfig, differentiate
from tinypeft.stages.constant_channels import drop_constant_channels
from tinypeft.stages.evaluate import evaluation
from tinypeft.stages.insert import insert_adapters
from tinypeft.stages.latent import LatentGraphs, split_latents
from tinypeft.stages.logits import attach_logits
from tinypeft.stages.merged import MergedGraphs, merge_layers
from tinypeft.stages.plan import plan_graphs
from tinypeft.stages.recompute import RamBudget, Recomputed
from tinypeft.stages.schedule import schedule
from tinypeft.stages.unread import leave_out_unread


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
    kept        room for adapters that the firmware keeps on flash and switches between; None without
    merged      inference with LoRAs in copies of their layers' weights; None where there is no room for any
    kernels     operation -> what computes it on the target and why; empty where that was no question
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
    kept: AdapterStore | None = None
    merged: MergedGraphs | None = None
    kernels: dict[str, Choice] = field(default_factory=dict)

    @property
    def graphs(self) -> list[Graph]:
        """Every graph there is, inference first."""
        every = [self.inference, self.training, self.evaluate, self.update]
        every += [self.reset, self.requantize, self.restore]
        if self.latent is not None:
            every += [self.latent.encode, self.latent.training]
        if self.merged is not None:
            every += [self.merged.fill, self.merged.inference]
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
    def kept_bytes(self) -> int:
        """The RAM that several adapters take beside that of one; 0 where none are kept."""
        return self.kept.nbytes if self.kept is not None else 0

    @property
    def merged_bytes(self) -> int:
        """The RAM of the copies of weights that adapters merge into; 0 without any."""
        return self.merged.nbytes if self.merged is not None else 0

    @property
    def latent_room(self) -> int:
        """The latents of so many samples find room on the device."""
        return latent_room(self.store) if self.latent is not None else 0

    @property
    def package_bytes(self) -> int:
        """Size of the adapter package that the device writes, unsigned."""
        return OVERHEAD_BYTES + self.adapter_bytes

    @property
    def package_info(self) -> PackageInfo:
        """Which packages the firmware takes."""
        methods = {ADAPTERS[kind].method for kinds in self.adapted_by.values() for kind in kinds}
        return package_info(self.fingerprint, self.adapter_weights, sum(methods))

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
    adapters: int = 0,
    resident: int = 1,
    merge_room: int = 0,
    kernels: KernelConfig = PORTABLE_KERNELS,
    target: Target | None = None,
) -> CompiledModel:
    """Compile `base` with the adapters of `adapter` into planned graphs for inference and training.

    `regions` are the RAMs that the arena may use, in order of preference. Where training needs more than `budget`, it
    runs forward operations again instead of keeping what they gave; raises FitError where that is not enough. The
    firmware has room for so many `samples` to learn from by itself, and keeps so many `adapters`, a number of them
    `resident` in RAM; LoRAs merge into copies of weights of `merge_room` bytes. On `target`, `kernels` may compute what
    the portable ones compute on the host.
    """
    verify(base, "read")
    loss = LOSSES[training_config.loss]
    if adapter.modules_to_save is None and not loss.classifies:
        adapter = replace(adapter, modules_to_save=())
    adapted = insert_adapters(base, adapter)
    verify(_with_quantizers(adapted), "insert")
    adapted = replace(adapted, graph=drop_constant_channels(adapted.graph, 4))
    verify(_with_quantizers(adapted), "drop constant channels")
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
    written = {id(t): None for graph in every if graph is not None for t in graph.tensors()}  # before it is scheduled
    inference = schedule(verify(inference, "differentiate"))
    training = schedule(verify(training, "differentiate")) if training is not None else None
    evaluate = schedule(verify(evaluate, "evaluate")) if evaluate is not None else None
    update = schedule(verify(update, "differentiate")) if update is not None else None
    present = [g for g in (inference, training, evaluate, update, reset, requantize, restore) if g is not None]
    latent = split_latents(training) if training is not None and training_config.latents else None
    present += [] if latent is None else [latent.encode, latent.training]
    merged = merge_layers(inference, merge_room) if trains else None
    present += [] if merged is None else [merged.fill, merged.inference]
    for graph in present:
        verify(graph, "schedule")
    chosen = choose_kernels(present, target, kernels) if target is not None else {}
    found = {id(t): t for graph in present for t in graph.tensors()}
    tensors = [found[key] for key in (written | dict.fromkeys(found)) if key in found]
    adapter_weights = _by_alignment(t for t in tensors if t.purpose is Purpose.ADAPTER_WEIGHT)
    training_state = _by_alignment(t for t in tensors if t.purpose in (Purpose.MASTER, Purpose.OPTIMIZER_STATE))
    adapter_bytes = sum(t.nbytes for t in adapter_weights)
    training_bytes = sum(t.nbytes for t in training_state)
    package_bytes = OVERHEAD_BYTES + adapter_bytes + SIGNATURE_BYTES if trains else 0
    state_bytes = adapter_bytes + training_bytes + (merged.nbytes if merged is not None else 0)
    store = kept = None
    if training is not None:
        vectors = [t for t in training.inputs if t.purpose is Purpose.ARGUMENT and t.shape]
        target_bytes = sum(t.nbytes for t in vectors)
        state_bytes += target_bytes
        if adapters:
            kept = AdapterStore(adapters, resident, adapter_bytes, training_bytes)
            state_bytes += kept.nbytes
        if samples:
            classes = inference.outputs[0].shape[-1] if training_config.target == LABEL else 0
            input_bytes = inference.inputs[0].nbytes
            store = SampleStore(samples, classes, target_bytes, input_bytes, adapter_bytes, training_bytes)
        state_bytes += replay_bytes(store, latent.nbytes if latent is not None else 0)

    planned = [_beside_input(g, inference) if g is restore and kept is not None else g for g in present]

    def plan(changed: Graph | None) -> ArenaPlan:
        graphs = [changed if graph is training and changed is not None else graph for graph in planned]
        return plan_graphs(graphs, package_bytes, regions, state_bytes)

    arena, recomputed = plan(training), None
    if budget is not None and arena.arena_bytes + state_bytes + budget.beside > budget.total:
        help = remedies(training_config, latent is not None) if training is not None else []
        recomputed, arena = within_budget(name, training, arena, budget, state_bytes + budget.beside, plan, help)
        training = recomputed.graph
        inferring = {op.name for op in inference.operations}
        for op in training.operations:
            if op.kernel is None and op.name not in inferring and op.name in chosen and chosen[op.name].kernel:
                chosen[op.name] = Choice(op.name, None, "the RAM budget has no room for the scratch of others")
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
        kept,
        merged,
        chosen,
    )


def _beside_input(graph: Graph, inference: Graph) -> Graph:
    """The graph as one that leaves the input alone: masters follow an adapter when a step's input is in place."""
    scratch = any(op.scratch_bytes for op in graph.operations)
    if not scratch and not any(tensor.in_arena for tensor in graph.tensors()):
        return graph
    return replace(graph, inputs=inference.inputs[:1], outputs=inference.inputs[:1])


def _with_quantizers(adapted: AdaptedGraph) -> Graph:
    graph = adapted.graph
    return Graph(graph.name, graph.inputs, graph.outputs, [*adapted.quantizers, *graph.operations])


def _by_alignment(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Widest elements first, so that a struct of them has no padding inside; otherwise in order."""
    return sorted(tensors, key=lambda t: -np.dtype(DTYPES[t.dtype]).itemsize)

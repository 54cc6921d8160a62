"""What plans cost: quickly, from graphs that are not scheduled, to search by; and truly, compiled, to decide by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from tinypeft.adapters import AdapterConfig
from tinypeft.analysis.memory import memory_usage
from tinypeft.boards import Board
from tinypeft.compiler import CompiledModel
from tinypeft.errors import AdapterError, ModelError
from tinypeft.fitting import fits, flash_use, ram_needed, trainable_parameters
from tinypeft.frontend import LoadedModel
from tinypeft.generate import compile_for, sources_for
from tinypeft.ir import Graph
from tinypeft.kernels import DEFAULT_KERNELS, KernelConfig
from tinypeft.losses import LABEL, LOSSES
from tinypeft.memory import MemoryConfig
from tinypeft.planner import live_buffers, lower_bound
from tinypeft.planning.candidates import Candidates
from tinypeft.planning.choices import Choice, Plan, adapter_config
from tinypeft.planning.instructions import estimated_instructions
from tinypeft.stages.autodiff import differentiate
from tinypeft.stages.constant_channels import drop_constant_channels
from tinypeft.stages.insert import insert_adapters
from tinypeft.stages.logits import attach_logits
from tinypeft.training import TrainingConfig

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Setting:
    """What a plan is compiled for."""

    source: LoadedModel
    board: Board
    base: AdapterConfig
    training: TrainingConfig
    memory: MemoryConfig
    stack_bytes: int
    kernels: KernelConfig = DEFAULT_KERNELS


@dataclass(frozen=True)
class Cost:
    """Bytes of the arena and of adapter and optimiser, and instructions of a step."""

    arena: int
    state: int
    instructions: int

    @property
    def ram(self) -> int:
        """Bytes of both."""
        return self.arena + self.state


@dataclass(frozen=True)
class Compiled:
    """The figures of a plan that was compiled.

    parameters  trained numbers
    adapter_bytes, state_bytes
                of the adapter's weights; of masters and optimiser
    arena_bytes, ram_bytes
                of the arena; all RAM of the firmware, stack and runtime included
    flash_bytes constants, exact, and code, estimated
    instructions
                of a training step, estimated
    fits        whether every memory of the board has what is used of it
    """

    parameters: int
    adapter_bytes: int
    state_bytes: int
    arena_bytes: int
    ram_bytes: int
    flash_bytes: int
    instructions: int
    fits: bool


class Estimator:
    """Quick costs, which depend on the model alone.

    A plan's arena and instructions are those of its dearest layer alone, which pays for the way back to it, and what
    each layer's choice takes beyond the cheapest choice there; adapter and optimiser add up. `candidates` are those
    that can be inserted.
    """

    def __init__(self, setting: Setting, candidates: Candidates, progress: Progress = lambda *_: None) -> None:
        self._single: dict[tuple[str, Choice], Cost] = {}
        self.candidates: Candidates = {}
        for number, (layer, choices) in enumerate(candidates.items()):
            for choice, score in choices.items():
                try:
                    self._single[layer, choice] = _quick_cost(setting, layer, choice)
                except (AdapterError, ModelError):  # say, an accumulator that has no room for it
                    continue
                self.candidates.setdefault(layer, {})[choice] = score
            progress("costs of layers", number + 1, len(candidates))
        singles = {
            layer: [self._single[layer, choice] for choice in choices] for layer, choices in self.candidates.items()
        }
        self._front = {
            layer: (min(cost.arena for cost in costs), min(cost.instructions for cost in costs))
            for layer, costs in singles.items()
        }

    def score(self, plan: Plan) -> float:
        """The sum of the scores of its choices."""
        return math.fsum(self.candidates[layer][choice] for layer, choice in plan.choices)

    def cost(self, plan: Plan) -> Cost:
        """The quick cost of `plan`."""
        if not plan.choices:
            return Cost(0, 0, 0)
        fronts = [self._front[layer] for layer, _ in plan.choices]
        singles = [self._single[item] for item in plan.choices]
        arena = max(arena for arena, _ in fronts) + sum(c.arena - f[0] for c, f in zip(singles, fronts, strict=True))
        instructions = max(instructions for _, instructions in fronts)
        instructions += sum(c.instructions - f[1] for c, f in zip(singles, fronts, strict=True))
        return Cost(arena, sum(cost.state for cost in singles), instructions)


def _quick_cost(setting: Setting, layer: str, choice: Choice) -> Cost:
    training = _training_graph(setting, adapter_config(Plan(((layer, choice),)), setting.base))
    state = sum(t.nbytes for t in training.tensors() if t.persistent)
    return Cost(lower_bound(live_buffers(training))[0], state, estimated_instructions(training))


def _training_graph(setting: Setting, config: AdapterConfig) -> Graph:
    loss = LOSSES[setting.training.loss]
    adapted = insert_adapters(setting.source.graph, config)
    adapted = replace(adapted, graph=drop_constant_channels(adapted.graph))
    forward, logits = attach_logits(adapted.graph, loss.passed_over, classes=setting.training.target == LABEL)
    return differentiate(forward, logits, adapted, setting.training)[0]


def compile_plan(setting: Setting, plan: Plan) -> CompiledModel:
    """The model of `plan`, without a RAM budget, so that nothing is recomputed."""
    config = adapter_config(plan, setting.base)
    memory = MemoryConfig(setting.memory.arena_regions, setting.memory.weights_region)
    return compile_for(
        setting.source, setting.board, config, setting.training, setting.stack_bytes, memory, setting.kernels
    )


def figures(setting: Setting, model: CompiledModel) -> Compiled:
    """What the firmware of a compiled plan takes."""
    usage = memory_usage(model, sources_for(model, setting.board, setting.memory), setting.stack_bytes, None)
    step = sum(estimated_instructions(graph) for graph in (model.training,) if graph is not None)
    if model.update is not None:
        step += estimated_instructions(model.update) // model.training_config.batch_size
    return Compiled(
        trainable_parameters(model),
        model.adapter_bytes,
        model.training_bytes,
        model.arena.arena_bytes,
        ram_needed(model, setting.stack_bytes),
        usage.flash.bytes,
        step,
        setting.board.is_host or _fits(setting, model, *usage.constants_and_code),
    )


def _fits(setting: Setting, model: CompiledModel, constants: int, code: int) -> bool:
    flash = flash_use(setting.board, setting.memory, constants, code)
    return fits(model, flash, setting.board, setting.stack_bytes)

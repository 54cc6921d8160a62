"""A compiled model and a board into an `Analysis`; every number that a person is shown is computed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from tinypeft import __version__
from tinypeft.analysis.graphs import graph_facts
from tinypeft.analysis.operations import frozen_weights, tensor_facts
from tinypeft.analysis.report import (
    SCHEMA,
    Analysis,
    BoardFacts,
    Configuration,
    Fit,
    GraphFacts,
    Memory,
    MemoryUse,
    ModelFacts,
    Totals,
    WayFacts,
)
from tinypeft.boards import Board
from tinypeft.compiler import CompiledModel
from tinypeft.fitting import Way, flash_use, ram_use, trainable_parameters
from tinypeft.ir import Graph, Tensor
from tinypeft.memory import MemoryConfig

#: How many ways to fit are shown
WAYS = 3


def analyse(
    model: CompiledModel,
    usage: Memory,
    *,
    file: str,
    stack_bytes: int,
    board: Board | None = None,
    memory: MemoryConfig | None = None,
    fits: bool | None = None,
    ways: Sequence[Way] = (),
    notes: Sequence[str] = (),
) -> Analysis:
    """Everything about `model`, read from `file`; `fits` and `ways` say how it goes with `board`, None without one."""
    memory = memory or MemoryConfig()
    graphs = tuple(graph_facts(graph, model.arena, model.kernels) for graph in model.graphs)
    return Analysis(
        SCHEMA,
        __version__,
        ModelFacts(
            model.name,
            file,
            model.fingerprint.hex(),
            tensor_facts(model.inference.inputs[0]),
            tensor_facts(model.output),
        ),
        Configuration(asdict(model.adapter), asdict(model.training_config), asdict(memory), stack_bytes),
        None if board is None else _board(board, model, usage, stack_bytes, memory),
        _totals(model, {graph.name: graph for graph in graphs}),
        usage,
        Fit(fits, tuple(_way(way, model) for way in ways[:WAYS])),
        graphs,
        tuple(notes),
    )


def _board(board: Board, model: CompiledModel, usage: Memory, stack_bytes: int, memory: MemoryConfig) -> BoardFacts:
    """The board with the memories that are used; what runtime takes is what `usage` says, not the most it may."""
    ram = ram_use(model, board, stack_bytes)
    ram[board.ram.name] = usage.ram.bytes - sum(used for name, used in ram.items() if name != board.ram.name)
    flash = flash_use(board, memory, *usage.constants_and_code)
    lengths = {region.name: region.length for region in board.memories}
    kinds = (("ram", ram, usage.ram.basis), ("flash", flash, usage.flash.basis))
    memories = tuple(
        MemoryUse(n, kind, lengths[n], used, basis) for kind, use, basis in kinds for n, used in use.items()
    )
    return BoardFacts(board.name, board.title, board.core, memories)


def _totals(model: CompiledModel, graphs: dict[str, GraphFacts]) -> Totals:
    base = frozen_weights(model.base)
    training = graphs.get("training")
    return Totals(
        macs=graphs["inference"].macs,
        training_macs=training.macs if training else 0,
        weight_bytes=sum(t.nbytes for t in _frozen(model.graphs)),
        base_parameters=sum(t.size for t in base),
        trainable_parameters=trainable_parameters(model),
        adapter_bytes=model.adapter_bytes,
        optimizer_bytes=model.training_bytes,
        package_bytes=model.package_bytes if model.parameters else 0,
        arena_bytes=model.arena.arena_bytes,
        arena_bound=max([model.arena.lower_bound, *((graph.bound + 7) // 8 * 8 for graph in graphs.values())]),
    )


def _frozen(graphs: list[Graph]) -> list[Tensor]:
    return list({id(t): t for graph in graphs for t in frozen_weights(graph)}.values())


def _way(way: Way, asked: CompiledModel) -> WayFacts:
    parameters = trainable_parameters(way.model)
    return WayFacts(
        way.what,
        way.options,
        way.ram_bytes,
        parameters,
        trainable_parameters(asked) - parameters,
        _step_macs(way.model) - _step_macs(asked) if way.model.training is not None else 0,
    )


def _step_macs(model: CompiledModel) -> int:
    graph = model.training or model.inference
    return sum(op.op.macs(op) for op in graph.operations)

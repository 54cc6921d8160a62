"""Does a compiled model fit a board, and if not, what would: a model and a board in, the cheapest ways to fit out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from tinypeft.adapters import AdapterConfig
from tinypeft.boards import Board, Region, board_names, load_board
from tinypeft.compiler import CompiledModel
from tinypeft.errors import AdapterError, BoardError, FitError, ModelError
from tinypeft.memory import GUARDS, RUNTIME_RAM, MemoryConfig
from tinypeft.planner import WHOLE

DEFAULT_STACK = 4096

_Choice = TypeVar("_Choice")


@dataclass(frozen=True)
class Changes:
    """What a way to fit sets beside adapter, board and stack; None: as it was asked for."""

    ram_budget: int | None = None
    samples: int | None = None
    grad_bits: int | None = None


AS_ASKED = Changes()


@dataclass(frozen=True)
class Recipe:
    """How a model is made, so that it can be made smaller or for another board.

    compile  (adapter, board, stack bytes, changes) -> the base model compiled with them
    flash    board -> bytes needed of each of its flashes, by name

    Both raise BoardError where the board lacks a memory that was named, `compile` FitError where a budget is too small.
    """

    compile: Callable[[AdapterConfig, Board, int, Changes], CompiledModel]
    flash: Callable[[Board], Mapping[str, int]]


@dataclass(frozen=True, eq=False)
class Way:
    """A configuration that fits: `what` it changes, the `options` to give, and the model compiled with them."""

    what: str
    options: str
    board: Board
    stack_bytes: int
    model: CompiledModel

    @property
    def ram_bytes(self) -> int:
        """The RAM that it needs."""
        return ram_needed(self.model, self.stack_bytes)


def ram_needed(model: CompiledModel, stack_bytes: int) -> int:
    """The most RAM that the firmware of `model` takes, stack and runtime included."""
    return model.arena.arena_bytes + state_bytes(model) + stack_bytes + runtime_ram(model)


def state_bytes(model: CompiledModel) -> int:
    """What lies in RAM between calls: adapters, masters, optimiser, target vector, samples, merged weights."""
    kept = model.replay_bytes + model.kept_bytes + model.merged_bytes
    return model.adapter_bytes + model.training_bytes + model.target_bytes + kept


def runtime_ram(model: CompiledModel) -> int:
    """The most RAM that the firmware takes beside the model and the stack."""
    return RUNTIME_RAM + GUARDS * (len(model.arena.parts) - 1)


def ram_use(model: CompiledModel, board: Board, stack_bytes: int) -> dict[str, int]:
    """The most that the firmware takes of each RAM of `board` that it uses, by name, that of ordinary data first."""
    use = {board.ram.name: state_bytes(model) + stack_bytes + RUNTIME_RAM}
    for part in model.arena.parts:
        name = board.ram.name if part.name == WHOLE else part.name
        use[name] = use.get(name, GUARDS) + part.size
    return use


def flash_use(board: Board, memory: MemoryConfig, constants: int, code: int = 0) -> dict[str, int]:
    """Bytes of each flash of `board` that constants and code take, by name, that of the code first."""
    use = {board.flash.name: code}
    weights = memory.weights(board) or board.flash
    use[weights.name] = use.get(weights.name, 0) + constants
    return use


def fits(model: CompiledModel, flash: Mapping[str, int], board: Board, stack_bytes: int) -> bool:
    """Whether `board` has the RAM that the firmware of `model` takes, and `flash`, by name."""
    return not _short(flash, board) and not _short(ram_use(model, board, stack_bytes), board)


def _short(use: Mapping[str, int], board: Board) -> list[Region]:
    """The memories of which `board` has less than `use` says."""
    return [region for region in board.memories if use.get(region.name, 0) > region.length]


def trainable_parameters(model: CompiledModel) -> int:
    """How many numbers training changes."""
    return sum(parameter.master.size for parameter in model.parameters)


def check_fit(model: CompiledModel, board: Board, stack_bytes: int, recipe: Recipe) -> None:
    """Raise FitError, with a way to fit, where `model` needs more than `board` has."""
    flash = recipe.flash(board)
    for region in _short(flash, board):
        raise FitError(
            f"the constants of {model.name} need {flash[region.name]:,} B of flash, {board.name} has "
            f"{region.length:,} B in {region.name}",
            "use a smaller model, or a board with more flash: tinypeft boards",
        )
    if fits(model, flash, board, stack_bytes):
        return
    needed = ram_needed(model, stack_bytes)
    replay = f"samples and latents {model.replay_bytes:,}, " if model.replay_bytes else ""
    largest = next(g for g in model.graphs if g.name == model.arena.largest)
    plan = model.arena.plans[largest.name]
    peak = largest.operations[min(plan.peak_operation, len(largest.operations) - 1)]
    ways = ways_to_fit(model, board, stack_bytes, recipe)
    ways.sort(key=lambda way: way.board.name != board.name)
    raise FitError(
        f"{model.name} needs {needed:,} B of RAM (arena {model.arena.arena_bytes:,}, adapter and optimiser "
        f"{state_bytes(model) - model.replay_bytes:,}, {replay}stack {stack_bytes:,}, "
        f"runtime {runtime_ram(model):,}), {board.name} has "
        f"{board.ram.length:,} B in {board.ram.name}; the arena peaks at op {plan.peak_operation} of {largest.name}, "
        f"{peak.name}",
        f"{ways[0].options}, which needs {ways[0].ram_bytes:,} B"
        if ways
        else "a smaller model, or a board with more RAM: tinypeft boards",
    )


def ways_to_fit(model: CompiledModel, board: Board, stack_bytes: int, recipe: Recipe) -> list[Way]:
    """The best way of every sort that fits, those that lose the fewest trained parameters first.

    Sorts: a smaller stack, room for fewer samples, recomputing, gradients of 8 bits, a smaller rank, fewer adapted
    layers, a classifier that is not retrained, no adapter, and the board with the least RAM that is enough, one that
    can be bought if there is one. Empty where nothing helps.
    """
    return _Search(model, board, stack_bytes, recipe).ways()


class _Search:
    def __init__(self, model: CompiledModel, board: Board, stack_bytes: int, recipe: Recipe) -> None:
        self.model, self.board, self.stack_bytes, self.recipe = model, board, stack_bytes, recipe
        self.stacks = [stack_bytes] if stack_bytes <= DEFAULT_STACK else [stack_bytes, DEFAULT_STACK]

    def ways(self) -> list[Way]:
        found: list[Way] = []
        if not _short(self.recipe.flash(self.board), self.board):
            lossless = self._smaller_stack, self._fewer_samples, self._recomputing, self._narrower_gradients
            smaller = self._rank, self._fewer_layers, self._not_retrained
            found += filter(None, (attempt() for attempt in (*lossless, *smaller)))
            if not any(way.model.parameters for way in found):
                found += filter(None, (self._fewer_layers(r=1),))
            found += filter(None, (self._no_adapter(),))
        found += filter(None, (self._larger_board(),))
        asked = trainable_parameters(self.model)
        return sorted(found, key=lambda way: max(asked - trainable_parameters(way.model), 0))

    def _smaller_stack(self) -> Way | None:
        return self._fitting("", "", self.model.adapter) if len(self.stacks) > 1 else None

    def _fewer_samples(self) -> Way | None:
        """As many samples in the store as there is room for."""
        stored = self.model.store.samples if self.model.store is not None else 0

        def room(samples: int) -> Way | None:
            what = f"room for {samples} samples instead of {stored}"
            return self._fitting(what, f"--samples {samples}", self.model.adapter, Changes(samples=samples))

        return _largest(list(range(stored)), room)

    def _narrower_gradients(self) -> Way | None:
        if self.model.training is None or self.model.training_config.grad_bits == 8:
            return None
        changes = Changes(grad_bits=8)
        return self._fitting("gradients of 8 bits, each computed twice", "--grad-bits 8", self.model.adapter, changes)

    def _recomputing(self) -> Way | None:
        """What the forward pass keeps for the backward pass, computed once more where that makes it fit."""
        if self.model.training is None:
            return None
        budget = _usable_ram(self.board)
        way = self._fitting("", f"--ram-budget {budget}", self.model.adapter, Changes(ram_budget=budget))
        if way is None or way.model.recomputed is None:
            return None
        what = f"a training step that runs {len(way.model.recomputed.again)} operations again"
        return replace(way, what=", ".join([what, *([way.what] if way.what else [])]))

    def _rank(self) -> Way | None:
        config = self.model.adapter
        if not self._adapted_layers():
            return None

        def smaller(r: int) -> Way | None:
            return self._fitting(f"rank {r} instead of {config.r}", f"--r {r}", replace(config, r=r))

        return _largest(list(range(1, config.r)), smaller)

    def _fewer_layers(self, r: int | None = None) -> Way | None:
        """The last layers alone, as many as fit: what lies in front of them then needs no gradient."""
        layers, config = self._adapted_layers(), self.model.adapter
        rank, also = ("", "") if r is None else (f" --r {r}", f", with rank {r}")

        def last(count: int) -> Way | None:
            names = "|".join(map(re.escape, layers[len(layers) - count :]))
            what = f"adapters on the last {count} of {len(layers)} layers{also}" if count else "the classifier alone"
            changed = replace(config, target_modules=names, r=config.r if r is None else r)
            return self._fitting(what, f"--target-modules '{names}'{rank}", changed)

        return _largest(list(range(len(layers))), last) if r != config.r else None

    def _not_retrained(self) -> Way | None:
        layers = self._adapted_layers()
        if not layers or len({p.layer for p in self.model.parameters}) == len(layers):
            return None
        changed = replace(self.model.adapter, modules_to_save=())
        return self._fitting("the classifier is not retrained whole", "--modules-to-save none", changed)

    def _no_adapter(self) -> Way | None:
        if self.model.adapter.adapter == "none":
            return None
        return self._fitting(
            "no adapter: it infers only", "--adapter none", replace(self.model.adapter, adapter="none")
        )

    def _larger_board(self) -> Way | None:
        boards = [board for board in map(load_board, board_names()) if not board.is_host]
        for board in sorted(boards, key=lambda b: (not b.flashers, _usable_ram(b), b.flash.length, b.name)):
            if board.name == self.board.name or ram_needed(self.model, self.stack_bytes) > _usable_ram(board):
                continue
            try:
                flash = self.recipe.flash(board)
                model = self.recipe.compile(self.model.adapter, board, self.stack_bytes, AS_ASKED)
            except (BoardError, FitError):  # it lacks a memory that was named
                continue
            if fits(model, flash, board, self.stack_bytes):
                what = f"a board with {_usable_ram(board):,} B of RAM"
                return Way(what, f"--board {board.name}", board, self.stack_bytes, model)
        return None

    def _adapted_layers(self) -> list[str]:
        """The layers with an adapter, in order; the retrained one has none."""
        names = (p.layer for p in self.model.parameters if p.name.endswith("_lora_A"))
        return list(dict.fromkeys(names))

    def _fitting(self, what: str, options: str, adapter: AdapterConfig, changes: Changes = AS_ASKED) -> Way | None:
        """The way where it fits, with the default stack if it must; None where it does not or cannot be compiled."""
        for stack in self.stacks:
            try:
                model = self.recipe.compile(adapter, self.board, stack, changes)
            except (AdapterError, ModelError, FitError):
                # Say, no gradient passes what lies behind the layers that are left, or a budget is too small.
                continue
            if not fits(model, {}, self.board, stack):
                continue
            if stack == self.stack_bytes:
                return Way(what, options, self.board, stack, model) if options else None
            reasons, flags = [what] if what else [], [options] if options else []
            reasons.append(f"a stack of {stack:,} B instead of {self.stack_bytes:,}")
            return Way(", ".join(reasons), " ".join([f"--stack-bytes {stack}", *flags]), self.board, stack, model)
        return None


def _usable_ram(board: Board) -> int:
    """Bytes of all RAMs that the arena may use."""
    return sum(region.length for region in board.memories if region.kind == "ram" and region.arena)


def _largest(choices: list[_Choice], attempt: Callable[[_Choice], Way | None]) -> Way | None:
    """The way of the last of `choices` that fits; memory grows along them, so half of them is asked at a time."""
    low, high, best = 0, len(choices) - 1, None
    while low <= high:
        middle = (low + high) // 2
        way = attempt(choices[middle])
        if way is None:
            high = middle - 1
        else:
            best, low = way, middle + 1
    return best

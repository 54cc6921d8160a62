"""What would fit: every way does, loses no less than the ways before it, and nothing larger of its sort fits."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import small_models
from small_models import Net

from tinypeft.adapters import AdapterConfig
from tinypeft.boards import Board, board_names, load_board
from tinypeft.compiler import CompiledModel
from tinypeft.errors import FitError
from tinypeft.fitting import Way, check_fit, fits, ram_needed, ram_use, trainable_parameters, ways_to_fit
from tinypeft.frontend import LoadedModel, load_tflite
from tinypeft.generate import compile_for, recipe
from tinypeft.memory import MemoryConfig
from tinypeft.stages.autodiff import TrainingConfig

STACK = 4096
TRAINING = TrainingConfig()


def small_board(ram: int, flash: int = 1 << 20) -> Board:
    """A board with that much memory."""
    board = load_board("bbc_microbit")
    memories = tuple(replace(m, length=ram if m.kind == "ram" else flash) for m in board.memories)
    return replace(board, memories=memories)


def wide_model() -> LoadedModel:
    """Convolutions of much weight and little activation: the rank decides the memory."""
    net = Net((1, 4, 4, 8), 3)
    for name in ("first", "second", "third"):
        net.conv(name, 32)
    net.mean("pool")
    net.dense("head", 6)
    return load_tflite("wide", net.build(), {})


def deep_model() -> LoadedModel:
    """Convolutions of much activation: what they keep for the backward pass decides the memory."""
    net = Net((1, 12, 12, 4), 4)
    for name in ("first", "second", "third", "fourth"):
        net.conv(name, 8)
    net.mean("pool")
    net.dense("head", 4)
    return load_tflite("deep", net.build(), {})


def ways(
    source: LoadedModel, config: AdapterConfig, board: Board, stack: int = STACK
) -> tuple[CompiledModel, list[Way]]:
    model = compile_for(source, board, config, TRAINING, stack)
    return model, ways_to_fit(model, board, stack, recipe(source, TRAINING, MemoryConfig(), 10_000))


def of_sort(found: list[Way], option: str) -> Way:
    return next(way for way in found if way.options.startswith(option))


def test_the_largest_rank_that_fits() -> None:
    source, config = wide_model(), AdapterConfig(r=16)
    needs = {r: ram_needed(compile_for(source, None, replace(config, r=r), TRAINING, STACK), STACK) for r in (5, 6, 16)}
    board = small_board(needs[6] - 4)
    model, found = ways(source, config, board)
    assert needs[5] <= board.ram.length < needs[6] < needs[16] == ram_needed(model, STACK)
    way = of_sort(found, "--r")
    assert way.options == "--r 5" and way.ram_bytes == needs[5] and way.model.adapter.r == 5


def test_ways_fit_and_come_in_order_of_what_they_lose() -> None:
    model, found = ways(wide_model(), AdapterConfig(r=16), small_board(20_000))
    assert {way.options.split()[0] for way in found} >= {"--r", "--target-modules", "--adapter", "--board"}
    kept = [trainable_parameters(way.model) for way in found]
    assert kept == sorted(kept, reverse=True)
    for way in found:
        assert fits(way.model, {}, way.board, way.stack_bytes)
    assert of_sort(found, "--board").model.adapter == model.adapter
    assert not of_sort(found, "--adapter none").model.parameters
    assert of_sort(found, "--board").board.flashers, "a board that can be bought comes before one of an emulator"


def test_the_last_layers_stay() -> None:
    """The regular expression names the layers at the end, and one more would not fit."""
    source, config = wide_model(), AdapterConfig(r=16)
    two = compile_for(source, None, replace(config, target_modules="second|third"), TRAINING, STACK)
    _, found = ways(source, config, small_board(ram_needed(two, STACK) + 8))
    way = of_sort(found, "--target-modules")
    assert way.options == "--target-modules 'second|third'" and way.what == "adapters on the last 2 of 3 layers"
    alone = compile_for(source, None, replace(config, target_modules=""), TRAINING, STACK)
    _, found = ways(source, config, small_board(ram_needed(alone, STACK) + 8))
    assert of_sort(found, "--target-modules").what == "the classifier alone"


def test_a_large_stack_is_the_cheapest_to_give_up() -> None:
    source = small_models.load("plain")
    model, found = ways(source, AdapterConfig(), small_board(20_000), stack=20_000)
    way = found[0]
    assert way.options == "--stack-bytes 4096" and way.what == "a stack of 4,096 B instead of 20,000"
    assert trainable_parameters(way.model) == trainable_parameters(model) and way.stack_bytes == 4096


def test_a_training_step_that_computes_again() -> None:
    """Where that is enough nothing is lost, it costs multiply-accumulates, and the option says so."""
    source = deep_model()
    needed = ram_needed(compile_for(source, None, AdapterConfig(), TRAINING, STACK), STACK)
    board = small_board((needed - 64) // 8 * 8)
    model, found = ways(source, AdapterConfig(), board)
    way = of_sort(found, "--ram-budget")
    assert way.options == f"--ram-budget {board.ram.length}" and way.model.recomputed is not None
    assert way.ram_bytes <= board.ram.length and found.index(way) == 0
    assert trainable_parameters(way.model) == trainable_parameters(model)
    assert way.what == f"a training step that runs {len(way.model.recomputed.again)} operations again"
    assert way.model.recomputed.macs > 0 or way.model.recomputed.again
    assert not [
        w for w in ways(source, AdapterConfig(adapter="none"), board)[1] if w.options.startswith("--ram-budget")
    ]


def test_room_for_fewer_samples() -> None:
    """As many as fit; the store of one more does not, and nothing else is lost."""
    source, config = small_models.load("plain"), AdapterConfig()
    memory = MemoryConfig(samples=40)
    needs = {
        samples: ram_needed(compile_for(source, None, config, TRAINING, STACK, replace(memory, samples=samples)), STACK)
        for samples in (13, 14, 40)
    }
    board = small_board(needs[14] - 4)
    model = compile_for(source, board, config, TRAINING, STACK, memory)
    found = ways_to_fit(model, board, STACK, recipe(source, TRAINING, memory, 10_000))
    way = of_sort(found, "--samples")
    assert needs[13] <= board.ram.length < needs[14] < needs[40]
    assert way.options == "--samples 13" and way.what == "room for 13 samples instead of 40"
    assert way.ram_bytes == needs[13] and way is found[0]
    assert not [w for w in ways(source, config, board)[1] if w.options.startswith("--samples")]


def test_gradients_of_half_the_size() -> None:
    source, config = deep_model(), AdapterConfig()
    narrow = replace(TRAINING, grad_bits=8)
    needed = ram_needed(compile_for(source, None, config, narrow, STACK), STACK)
    board = small_board(needed)
    model, found = ways(source, config, board)
    way = of_sort(found, "--grad-bits 8")
    assert way.ram_bytes == needed < ram_needed(model, STACK) and way.model.training_config.grad_bits == 8
    small = small_board(needed - 4)
    model = compile_for(source, small, config, narrow, STACK)
    assert not [
        w
        for w in ways_to_fit(model, small, STACK, recipe(source, narrow, MemoryConfig(), 10_000))
        if w.options.startswith("--grad-bits")
    ]


def test_nothing_helps() -> None:
    """A flash that is too small on every board; a RAM that is too small on this one."""
    source, board = small_models.load("plain"), small_board(1000)
    model = compile_for(source, board, AdapterConfig(), TRAINING, STACK)
    huge = recipe(source, TRAINING, MemoryConfig(), 1 << 30)
    assert ways_to_fit(model, board, STACK, huge) == []
    with pytest.raises(FitError, match=r"need 1,073,741,824 B of flash, bbc_microbit has 1,048,576 B in flash"):
        check_fit(model, board, STACK, huge)
    with pytest.raises(FitError, match=r"needs [\d,]+ B of RAM") as refusal:
        check_fit(model, board, STACK, recipe(source, TRAINING, MemoryConfig(), 100))
    assert refusal.value.hint is not None and re.match(r"--board \w+, which needs", refusal.value.hint)


def test_several_memories() -> None:
    """The arena in a RAM of its own, constants in a flash of their own; no board is proposed that lacks them."""
    board = load_board("nucleo_h743zi")
    rams = [region for region in board.memories if region.kind == "ram" and region.arena and region is not board.ram]
    memory = MemoryConfig((rams[0].name,))
    source = small_models.load("residual")
    model = compile_for(source, board, AdapterConfig(), TRAINING, STACK, memory)
    use = ram_use(model, board, STACK)
    assert set(use) == {board.ram.name, rams[0].name}
    assert model.arena.arena_bytes <= use[rams[0].name] <= model.arena.arena_bytes + 64
    assert sum(use.values()) >= ram_needed(model, STACK)
    assert fits(model, {}, board, STACK) and not fits(model, {board.flash.name: 1 << 30}, board, STACK)
    narrow = replace(board, memories=tuple(replace(m, length=64 if m is rams[0] else m.length) for m in board.memories))
    assert not fits(model, {}, narrow, STACK)
    others = [
        w.board.name
        for w in ways_to_fit(model, narrow, STACK, recipe(source, TRAINING, memory, 0))
        if w.board != narrow
    ]
    assert set(others) <= {b for b in board_names() if rams[0].name in [m.name for m in load_board(b).memories]}

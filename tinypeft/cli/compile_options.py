"""The options that compile a model, shared by commands; flags and file in, what the compiler takes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import click
import numpy as np

from tinypeft.adapter_store import MAX_ADAPTERS, MAX_RESIDENT
from tinypeft.adapters import ADAPTERS, AdapterConfig, Option
from tinypeft.cli.byte_size import ByteSize, parse_bytes
from tinypeft.config import load_config
from tinypeft.data import load_array
from tinypeft.fitting import DEFAULT_STACK
from tinypeft.kernels import ARENA_GROWTH, BACKENDS, DEFAULT_KERNELS, KernelConfig
from tinypeft.losses import LOSSES, TARGETS
from tinypeft.memory import MemoryConfig
from tinypeft.optimizers import OPTIMIZERS
from tinypeft.replay import MAX_SAMPLES
from tinypeft.stages.autodiff import TrainingConfig

_Command = TypeVar("_Command", bound=Callable[..., Any])

_STACK_MIN, _STACK_MAX = 512, 1 << 20
_DEFAULTS: dict[str, Any] = {
    "adapter.kind": "lora",
    "adapter.r": 4,
    "adapter.lora_alpha": 8.0,
    "board.stack_bytes": DEFAULT_STACK,
}
#: parameter of a command -> key of tinypeft.toml
_KEYS = {
    "model": "model.path",
    "board": "board.name",
    "calibration": "model.calibration",
    "adapter": "adapter.kind",
    "rank": "adapter.r",
    "lora_alpha": "adapter.lora_alpha",
    "target_modules": "adapter.target_modules",
    "modules_to_save": "adapter.modules_to_save",
    "targets": "adapter.targets",
    **{field.name: f"training.{field.name}" for field in fields(TrainingConfig)},
    "stack_bytes": "board.stack_bytes",
    "arena_regions": "board.arena_regions",
    "weights_region": "board.weights_region",
    "ram_budget": "board.ram_budget",
    "samples": "board.samples",
    "adapters": "board.adapters",
    "resident": "board.resident",
    "merge_room": "board.merge_room",
    "kernels": "kernels.backends",
    "optimize": "kernels.optimize",
    "cmsis_nn": "kernels.cmsis_nn",
    "output": "output.directory",
}
_ADAPTER_OPTIONS = {option.name: option for kind in ADAPTERS.values() for option in kind.options}
_KEYS |= {name: f"adapter.{name}" for name in _ADAPTER_OPTIONS}
#: The options that a command may require, as its messages call them
_NAMES = {"model.path": "MODEL", "board.name": "--board", "output.directory": "--output"}

_MODEL_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("model", required=False),
    click.option("--board", help="The board to build for; `tinypeft boards` lists them."),
    click.option("--calibration", metavar="F.npz:KEY", help="Samples of the input, to quantise a .keras or .h5."),
)
_ADAPTER_FLAGS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--adapter",
        metavar="KIND[+KIND…]",
        help=f"One or more of {', '.join(ADAPTERS)}; or none to infer only. Default lora.",
    ),
    click.option("--r", "rank", type=int, help="LoRA's rank. Default 4."),
    click.option("--lora-alpha", type=float, help="LoRA's output is scaled by lora_alpha / r. Default 8."),
    click.option(
        "--target-modules",
        metavar="REGEX",
        help="Layers to adapt: must match the whole name. Default: all but depthwise.",
    ),
    click.option(
        "--targets",
        metavar="KIND=REGEX",
        multiple=True,
        help="Layers for one of several kinds, instead of --target-modules; may be repeated.",
    ),
    click.option(
        "--modules-to-save",
        metavar="NAME,…",
        help="The layers to retrain whole, or `none`. Default: the classifier; none for mean_squared_error.",
    ),
)
_TRAINING_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--optimizer", type=click.Choice(sorted(OPTIMIZERS)), help="Default sgd."),
    click.option("--momentum", type=click.FloatRange(0, 1, max_open=True), help="SGD's momentum. Default 0."),
    click.option("--nesterov/--no-nesterov", default=None, help="SGD steps by gradient + momentum * velocity."),
    click.option("--weight-decay", type=float, help="Of SGD joins the gradient, of Adam is decoupled. Default 0."),
    click.option("--beta-1", type=float, help="How much of its first moment Adam keeps. Default 0.9."),
    click.option("--beta-2", type=float, help="How much of its second moment Adam keeps. Default 0.999."),
    click.option("--epsilon", type=float, help="Joins the root of Adam's second moment. Default 1e-7."),
    click.option("--batch-size", type=click.IntRange(1, 65535), help="Samples averaged before an update. Default 1."),
    click.option("--clip-norm", type=float, help="Largest norm of a batch's whole gradient. Default 0: any."),
    click.option(
        "--latents/--no-latents",
        default=None,
        help="Keep what the layers in front of the first adapter give for each of --samples, and train from that.",
    ),
    click.option("--grad-bits", type=int, help="16, or 8: gradients of half the size, computed twice. Default 16."),
    click.option("--loss", type=click.Choice(sorted(LOSSES)), help="Default softmax_cross_entropy."),
    click.option("--target", type=click.Choice(TARGETS), help="What the loss compares with. Default: its first."),
    click.option("--label-smoothing", type=click.FloatRange(0, 1, max_open=True), help="Of labels. Default 0."),
    click.option("--class-weights", metavar="W,…", help="A weight for each class's loss, in order. Default: all 1."),
    click.option("--stack-bytes", type=click.IntRange(_STACK_MIN, _STACK_MAX), help=f"Default {DEFAULT_STACK}."),
    click.option(
        "--arena-regions",
        metavar="RAM,…",
        help="The RAMs for the arena, the fastest first. Default: those of the board, in its order.",
    ),
    click.option("--weights-region", metavar="FLASH", help="The flash for weights. Default: that of the code."),
    click.option(
        "--samples",
        metavar="N",
        type=click.IntRange(0, MAX_SAMPLES),
        help="Room in RAM for N samples that the board learns from by itself. Default 0: a host gives them one by one.",
    ),
    click.option(
        "--adapters",
        metavar="N",
        type=click.IntRange(0, MAX_ADAPTERS),
        help="Keep up to N adapters on the board's flash, to switch between, update and confirm. Default 0.",
    ),
    click.option(
        "--resident",
        metavar="N",
        type=click.IntRange(1, MAX_RESIDENT),
        help="How many of --adapters are in RAM at a time. Default 2.",
    ),
    click.option(
        "--merge-room",
        metavar="SIZE",
        help="RAM for copies of weights, such as 16KiB, into which the board merges a LoRA. Default 0.",
    ),
    click.option(
        "--kernels",
        metavar="NAME,…",
        multiple=True,
        help=f"What may compute operations beside the portable kernels: {', '.join(BACKENDS)}, or auto for all that "
        "suit the core. OPERATION=NAME for a single one. Default auto.",
    ),
    click.option(
        "--optimize", type=click.Choice(list(ARENA_GROWTH)), help="Fewer bytes or fewer cycles. Default balanced."
    ),
    click.option(
        "--cmsis-nn",
        metavar="FOLDER",
        envvar="CMSIS_NN_PATH",
        help="CMSIS-NN and what its CMake built for the core, see docs/cmsis-nn.md. Also $CMSIS_NN_PATH.",
    ),
    click.option("--config", metavar="tinypeft.toml", help="A file with these options; flags override it."),
)


def _click_option(option: Option) -> Callable[[_Command], _Command]:
    """The flag of a setting that one or several adapter kinds declare."""
    kinds = ", ".join(kind.name for kind in ADAPTERS.values() if option in kind.options)
    text = f"{kinds}: {option.help} Default {option.default}."
    if isinstance(option.default, bool):
        return click.option(f"{option.flag}/--no-{option.flag[2:]}", option.name, default=None, help=text)
    choice = click.Choice(option.choices) if option.choices else type(option.default)
    return click.option(option.flag, option.name, type=choice, help=text)


_RAM_BUDGET = click.option(
    "--ram-budget",
    metavar="SIZE",
    type=ByteSize(),
    help="All RAM the firmware may take, such as 40KB, 40KiB or 65536; stack and runtime count. Training runs "
    "operations again instead of keeping their results.",
)
_KIND_OPTIONS = tuple(_click_option(option) for option in _ADAPTER_OPTIONS.values())


@dataclass(frozen=True, eq=False)
class CompileSettings:
    """What a model is compiled with; `board` and `output` are empty where a command does without."""

    model: str
    board: str
    output: str
    calibration: np.ndarray | None
    adapter: AdapterConfig
    training: TrainingConfig
    memory: MemoryConfig
    kernels: KernelConfig
    stack_bytes: int

    @property
    def compilation(self) -> dict[str, Any]:
        """What generating and analysing take of it by name, beside model, board and output."""
        names = ("calibration", "adapter", "training", "memory", "kernels", "stack_bytes")
        return {name: getattr(self, name) for name in names}


def compile_options(command: _Command) -> _Command:
    """Decorator: MODEL and the options of its compilation, passed to the command as `config` and others."""
    return _decorated(command, (*_MODEL_OPTIONS, *_ADAPTER_FLAGS, *_TRAINING_OPTIONS, _RAM_BUDGET, *_KIND_OPTIONS))


def training_options(command: _Command) -> _Command:
    """Decorator: the same without adapters and the RAM budget, for a command that chooses those."""
    return _decorated(command, (*_MODEL_OPTIONS, *_TRAINING_OPTIONS))


def _decorated(command: _Command, options: tuple[Callable[[Any], Any], ...]) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command


def compile_settings(config: str | None, flags: dict[str, Any], *required: str) -> CompileSettings:
    """The settings of the file `config`, overridden by those `flags` that are given.

    Raises UsageError where a key of `required`, such as "board.name", is nowhere, or the stack is no size of one.
    """
    given = {_KEYS[name]: value for name, value in flags.items() if value is not None and value != ()}
    values: dict[str, Any] = _DEFAULTS | (load_config(config) if config else {}) | given
    for key in required:
        if key not in values:
            raise click.UsageError(f"Missing {_NAMES[key]}.")
    stack = values["board.stack_bytes"]
    if stack % 8 or not _STACK_MIN <= stack <= _STACK_MAX:
        raise click.UsageError(f"The stack of {stack} bytes is no multiple of 8 from {_STACK_MIN} to {_STACK_MAX}.")
    return CompileSettings(
        values["model.path"],
        values.get("board.name", ""),
        values.get("output.directory", ""),
        load_array(values["model.calibration"]) if "model.calibration" in values else None,
        _adapter(values),
        _training(values),
        _memory(values),
        _kernels(values),
        stack,
    )


def _training(values: dict[str, Any]) -> TrainingConfig:
    given: dict[str, Any] = {}
    for field in fields(TrainingConfig):
        value = values.get(f"training.{field.name}", field.default)
        given[field.name] = float(value) if field.type == "float" else value
    if isinstance(given["class_weights"], str):
        try:
            given["class_weights"] = [float(weight) for weight in given["class_weights"].split(",")]
        except ValueError:
            text = given["class_weights"]
            raise click.UsageError(f"--class-weights {text} is no list of numbers such as 1,2,0.5.") from None
    given["class_weights"] = tuple(float(weight) for weight in given["class_weights"])
    if "training.target" not in values and given["loss"] in LOSSES:
        given["target"] = LOSSES[given["loss"]].targets[0]
    return TrainingConfig(**given)


def _memory(values: dict[str, Any]) -> MemoryConfig:
    regions = values.get("board.arena_regions", ())
    if isinstance(regions, str):
        regions = [name.strip() for name in regions.split(",")]
    budget, merge_room = (_size(values, name) for name in ("ram_budget", "merge_room"))
    limits = {"samples": (0, MAX_SAMPLES, 0), "adapters": (0, MAX_ADAPTERS, 0), "resident": (1, MAX_RESIDENT, 2)}
    rooms = []
    for name, (least, most, default) in limits.items():
        room = values.get(f"board.{name}", default)
        if not least <= room <= most:
            raise click.UsageError(f"board.{name} is {room}, the limits are {least} and {most}.")
        rooms.append(room)
    samples, adapters, resident = rooms
    weights = values.get("board.weights_region", "")
    return MemoryConfig(tuple(regions), weights, budget, samples, adapters, resident, merge_room)


def _kernels(values: dict[str, Any]) -> KernelConfig:
    """The kernels from a list of names and OPERATION=NAME, each of which may hold several with commas between."""
    given = values.get("kernels.backends", ())
    texts = [given] if isinstance(given, str) else list(given)
    names = [name.strip() for text in texts for name in text.split(",")]
    backends = tuple(name for name in names if "=" not in name)
    overrides = tuple((left, right) for left, right in (name.split("=", 1) for name in names if "=" in name))
    settings: dict[str, Any] = {"overrides": overrides}
    if backends:
        settings["backends"] = backends
    for name in ("optimize", "cmsis_nn"):
        if f"kernels.{name}" in values:
            settings[name] = values[f"kernels.{name}"]
    return replace(DEFAULT_KERNELS, **settings)


def _size(values: dict[str, Any], name: str) -> int:
    size = values.get(f"board.{name}", 0)
    if isinstance(size, str):
        try:
            size = parse_bytes(size)
        except ValueError as error:
            raise click.UsageError(f"{name}: {error}.") from None
    if size < 0:
        raise click.UsageError(f"{name} is {size} bytes, it must not be negative.")
    return int(size)


def _adapter(values: dict[str, Any]) -> AdapterConfig:
    targets, saved = values.get("adapter.target_modules"), values.get("adapter.modules_to_save")
    if isinstance(targets, list):
        targets = tuple(targets)
    if isinstance(saved, str):
        saved = [] if saved == "none" else [name.strip() for name in saved.split(",")]
    kinds = values["adapter.kind"]
    return AdapterConfig(
        kinds if isinstance(kinds, str) else "+".join(kinds),
        values["adapter.r"],
        float(values["adapter.lora_alpha"]),
        targets,
        None if saved is None else tuple(saved),
        _targets(values.get("adapter.targets", {})),
        tuple((name, values[f"adapter.{name}"]) for name in _ADAPTER_OPTIONS if f"adapter.{name}" in values),
    )


def _targets(given: dict[str, Any] | tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...] | str], ...]:
    """(kind, layers) from a section of the file, or from flags KIND=REGEX."""
    if isinstance(given, tuple):
        for text in given:
            if "=" not in text:
                raise click.UsageError(f"--targets takes KIND=REGEX, such as bitfit=conv.*; {text!r} has no '='.")
        given = dict(text.split("=", 1) for text in given)
    return tuple((kind, tuple(names) if isinstance(names, list) else str(names)) for kind, names in given.items())

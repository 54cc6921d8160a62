"""adapter_config.json of PEFT: its bytes into a PeftConfig and back, and what it says of a module."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tinypeft.errors import AdapterError

CONFIG_FILE = "adapter_config.json"

_TYPES = ("LORA", "IA3")
_BIASES = ("none", "all", "lora_only")
#: initialisations that leave the base weights as they are, so that the adapter fits the base model
_INITIALISATIONS = ("gaussian", "orthogonal", "eva")
_REQUIRED = {"LORA": ("r", "lora_alpha", "target_modules"), "IA3": ("target_modules", "feedforward_modules")}
_KEYS = (
    *("peft_type", "target_modules", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "bias"),
    *("modules_to_save", "feedforward_modules", "init_lora_weights", "tinypeft"),
)
#: keys that do not change what trained tensors mean; any other key that is set is refused
_IGNORED = (
    *("auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "eva_config", "exclude_modules"),
    *("fan_in_fan_out", "inference_mode", "init_ia3_weights", "layers_pattern", "layers_to_transform", "lora_dropout"),
    *("megatron_config", "megatron_core", "peft_version", "qalora_group_size", "revision", "task_type"),
)


@dataclass(frozen=True)
class PeftConfig:
    """What PEFT's LoraConfig or IA3Config say that matters here, under their names.

    target_modules and feedforward_modules are names, or suffixes behind a dot, or one regular expression of the whole
    module path; `tinypeft` is our own data.
    """

    peft_type: str
    target_modules: tuple[str, ...] | str
    r: int = 8
    lora_alpha: float = 8.0
    use_rslora: bool = False
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    bias: str = "none"
    modules_to_save: tuple[str, ...] = ()
    feedforward_modules: tuple[str, ...] | str = ()
    init_lora_weights: bool | str = True
    tinypeft: Mapping[str, Any] = field(default_factory=dict)

    def rank(self, module: str) -> int:
        """The rank of `module`'s A and B."""
        return int(_pattern(self.rank_pattern, module, self.r))

    def scaling(self, module: str) -> float:
        """What B A of `module` is multiplied by: lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora."""
        rank = self.rank(module)
        alpha = float(_pattern(self.alpha_pattern, module, self.lora_alpha))
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def is_target(self, module: str) -> bool:
        """Whether target_modules name `module`."""
        return self.target_modules == "all-linear" or matches(self.target_modules, module)

    def is_feedforward(self, module: str) -> bool:
        """Whether IA3 scales the inputs of `module` instead of its outputs."""
        return matches(self.feedforward_modules, module)

    def is_saved(self, module: str) -> bool:
        """Whether `module` is in modules_to_save or inside one of them."""
        return any(re.match(rf"(^|.*\.){name}($|\..*)", module) for name in self.modules_to_save)


def matches(names: tuple[str, ...] | str, module: str) -> bool:
    """PEFT's rule: `names` is a regular expression of the whole path, or has it or what follows a dot in it."""
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)


def _pattern(values: Mapping[str, float], module: str, default: float) -> float:
    return next((value for key, value in values.items() if re.match(rf"(.*\.)?({key})$", module)), default)


def parse_config(data: bytes) -> PeftConfig:
    """The configuration of adapter_config.json's bytes; AdapterError names a key that is missing, unknown or wrong.

    Keys that PEFT may add later are accepted where they are off: null, false or empty.
    """
    try:
        given = json.loads(data)
    except ValueError as error:
        raise AdapterError(f"{CONFIG_FILE} is no JSON: {error}", "save the adapter again") from error
    if not isinstance(given, dict):
        raise AdapterError(f"{CONFIG_FILE} holds a {type(given).__name__}, not an object", "save the adapter again")
    kind = given.get("peft_type")
    if kind not in _TYPES:
        raise AdapterError(f"{CONFIG_FILE}: peft_type is {kind!r}, supported are {', '.join(_TYPES)}")
    _check_keys(given, kind)
    checked = {
        "peft_type": kind,
        "target_modules": _modules(given, "target_modules"),
        "modules_to_save": _names(given, "modules_to_save"),
        "tinypeft": given.get("tinypeft") or {},
    }
    if kind == "IA3":
        return PeftConfig(**checked, feedforward_modules=_modules(given, "feedforward_modules"))
    initial = given.get("init_lora_weights", True)
    if isinstance(initial, str) and initial not in _INITIALISATIONS:
        raise AdapterError(
            f"{CONFIG_FILE}: init_lora_weights is {initial!r}, which may change the base model's weights too; "
            f"supported are true, false, {', '.join(_INITIALISATIONS)}",
            "save it with path_initial_model_for_weight_conversion, which makes a plain LoRA of it",
        )
    ranks = {key: _number(f"rank_pattern of {key}", value, whole=True) for key, value in _table(given, "rank_pattern")}
    alphas = {key: _number(f"alpha_pattern of {key}", value) for key, value in _table(given, "alpha_pattern")}
    return PeftConfig(
        **checked,
        r=int(_number("r", given["r"], whole=True)),
        lora_alpha=_number("lora_alpha", given["lora_alpha"]),
        use_rslora=bool(given.get("use_rslora", False)),
        rank_pattern={key: int(value) for key, value in ranks.items()},
        alpha_pattern=alphas,
        bias=_choice(given, "bias", _BIASES),
        init_lora_weights=initial,
    )


def config_bytes(config: PeftConfig) -> bytes:
    """adapter_config.json for `config`, as PEFT reads it: sorted keys, and "tinypeft" where that holds anything."""
    written: dict[str, Any] = {
        "peft_type": config.peft_type,
        "target_modules": _listed(config.target_modules),
        "modules_to_save": list(config.modules_to_save) or None,
        "inference_mode": True,
    }
    if config.peft_type == "IA3":
        written["feedforward_modules"] = _listed(config.feedforward_modules)
    else:
        written |= {
            "r": config.r,
            "lora_alpha": config.lora_alpha,
            "lora_dropout": 0.0,
            "use_rslora": config.use_rslora,
            "rank_pattern": dict(config.rank_pattern),
            "alpha_pattern": dict(config.alpha_pattern),
            "bias": config.bias,
            "init_lora_weights": config.init_lora_weights,
        }
    if config.tinypeft:
        written["tinypeft"] = dict(config.tinypeft)
    return (json.dumps(written, indent=2, sort_keys=True) + "\n").encode()


def _listed(names: tuple[str, ...] | str) -> list[str] | str:
    return names if isinstance(names, str) else list(names)


def _check_keys(given: dict[str, Any], kind: str) -> None:
    for key in _REQUIRED[kind]:
        if key not in given:
            raise AdapterError(f"{CONFIG_FILE} has no {key}, which {kind} needs{_similar(key, given)}")
    for key, value in given.items():
        if key not in _KEYS and key not in _IGNORED and value:
            raise AdapterError(
                f"{CONFIG_FILE}: {key} is {value!r}, which is not supported{_similar(key, _KEYS)}",
                f"train without {key}, or remove it",
            )


def _similar(key: str, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(key, [name for name in names if name != key], 1, 0.7)
    return f"; there is {found[0]}" if found else ""


def _modules(given: dict[str, Any], key: str) -> tuple[str, ...] | str:
    value = given.get(key)
    if not isinstance(value, str):
        return _names(given, key)
    try:
        re.compile(value)
    except re.error as error:
        raise AdapterError(f"{CONFIG_FILE}: {key} is {value!r}, no regular expression: {error}") from error
    return value


def _names(given: dict[str, Any], key: str) -> tuple[str, ...]:
    value = given.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise AdapterError(f"{CONFIG_FILE}: {key} is {value!r}, it must be a list of module names")
    return tuple(value)


def _table(given: dict[str, Any], key: str) -> Iterable[tuple[str, Any]]:
    value = given.get(key) or {}
    if not isinstance(value, dict):
        raise AdapterError(f"{CONFIG_FILE}: {key} is {value!r}, it must be an object of module patterns")
    for pattern in value:
        try:
            re.compile(pattern)
        except re.error as error:
            raise AdapterError(f"{CONFIG_FILE}: {pattern!r} in {key} is no regular expression: {error}") from error
    return value.items()


def _number(name: str, value: Any, whole: bool = False) -> float:
    fits = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value) and not whole)
    if isinstance(value, bool) or not fits or (whole and value < 1):
        raise AdapterError(
            f"{CONFIG_FILE}: {name} is {value!r}, it must be a {'whole number from 1' if whole else 'number'}"
        )
    return value


def _choice(given: dict[str, Any], key: str, choices: tuple[str, ...]) -> str:
    value = given.get(key, choices[0])
    if value not in choices:
        raise AdapterError(f"{CONFIG_FILE}: {key} is {value!r}, supported are {', '.join(choices)}")
    return str(value)

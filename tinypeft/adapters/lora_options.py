"""LoRA's settings, PEFT's names for them: a configuration and a layer in, that layer's rank and scaling out."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence

from tinypeft.adapters.base import AdapterConfig, Option
from tinypeft.errors import AdapterError

RANK_MAX, ALPHA_MAX = 256, 1e6

USE_RSLORA = Option("use_rslora", False, "Scale by lora_alpha / sqrt(r) instead of lora_alpha / r.")
RANK_PATTERN = Option(
    "rank_pattern",
    "",
    "Ranks of single layers: PATTERN=R,… where a pattern is a name, its end behind a dot, or a regex.",
)
ALPHA_PATTERN = Option("alpha_pattern", "", "The same for lora_alpha.")
INIT_LORA_WEIGHTS = Option(
    "init_lora_weights",
    "uniform",
    "What A starts from: uniform, of variance 1/fan_in; default, PEFT's, of a third of it; gaussian, of deviation 1/r; "
    "loftq: A and B take up what the base lost when it was quantised, which needs a .keras or .h5.",
    choices=("uniform", "default", "gaussian", "loftq"),
)
LORA_BITS = Option("lora_bits", 8, "Bits of A and B in the package: 8 or 4.", limits=(4, 8))
OPTIONS = (USE_RSLORA, RANK_PATTERN, ALPHA_PATTERN, INIT_LORA_WEIGHTS, LORA_BITS)

_ENTRY = re.compile(r"\s*([^=]+?)\s*=\s*(\d+(?:\.\d*)?)\s*(?:,|$)")


def layer_rank(config: AdapterConfig, layer: str) -> int:
    """The rank of a layer's LoRA."""
    return int(_first_match(config, RANK_PATTERN, layer, config.r))


def layer_alpha(config: AdapterConfig, layer: str) -> float:
    """The lora_alpha of a layer."""
    return _first_match(config, ALPHA_PATTERN, layer, config.lora_alpha)


def layer_scaling(config: AdapterConfig, layer: str) -> float:
    """What B A is multiplied with in a layer."""
    alpha, rank = layer_alpha(config, layer), layer_rank(config, layer)
    return alpha / math.sqrt(rank) if config.option(USE_RSLORA) else alpha / rank


def starts_from_factors(config: AdapterConfig) -> bool:
    """Whether A and B start from factors of the base's quantisation error."""
    return "lora" in config.kinds and config.option(INIT_LORA_WEIGHTS) == "loftq"


def largest_rank(config: AdapterConfig) -> int:
    """The largest rank that any layer may have."""
    return max(config.r, *(int(value) for _, value in _entries(config, RANK_PATTERN)), 1)


def check_options(config: AdapterConfig, layers: Sequence[str]) -> None:
    """Raise AdapterError for settings that cannot be, or patterns that match none of the adapted `layers`."""
    bits = config.option(LORA_BITS)
    if bits not in (4, 8):
        raise AdapterError(f"lora_bits is {bits}, A and B can have 4 or 8", "try --lora-bits 8")
    for option, low, high in ((RANK_PATTERN, 1.0, RANK_MAX), (ALPHA_PATTERN, 0.0, ALPHA_MAX)):
        for pattern, value in _entries(config, option):
            whole = option is ALPHA_PATTERN or value == int(value)
            if not (low <= value <= high and value > 0 and whole):
                kind = "whole number" if option is RANK_PATTERN else "number above 0"
                raise AdapterError(f"{option.name} gives {pattern} {value:g}, it must be a {kind} up to {high:g}")
            if not any(_matches(option, pattern, layer) for layer in layers):
                close = difflib.get_close_matches(pattern, layers, 1)
                meant = f"did you mean {close[0]}? " if close else ""
                raise AdapterError(
                    f"{option.name} {pattern!r} matches no layer that lora adapts",
                    f"{meant}candidates: {', '.join(dict.fromkeys(layers)) or 'none'}",
                )


def _first_match(config: AdapterConfig, option: Option, layer: str, otherwise: float) -> float:
    return next((value for key, value in _entries(config, option) if _matches(option, key, layer)), otherwise)


def _entries(config: AdapterConfig, option: Option) -> list[tuple[str, float]]:
    """(pattern, number) of a setting PATTERN=NUMBER,…"""
    text, entries, at = config.option(option), [], 0
    while at < len(text):
        entry = _ENTRY.match(text, at)
        if entry is None:
            raise AdapterError(
                f"{option.name} {text!r} is not PATTERN=NUMBER,…: cannot read {text[at:]!r}",
                f"try {option.flag} conv_1=8,dense.*=2",
            )
        entries.append((entry[1], float(entry[2])))
        at = entry.end()
    return entries


def _matches(option: Option, pattern: str, layer: str) -> bool:
    """PEFT's rule: the pattern is the whole name, or what follows a dot in it."""
    try:
        return re.match(rf"(.*\.)?({pattern})$", layer) is not None
    except re.error as error:
        raise AdapterError(
            f"{option.name} {pattern!r} is no regular expression: {error}", "escape special characters with \\"
        ) from None

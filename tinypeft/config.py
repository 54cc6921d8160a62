"""tinypeft.toml: the options of `tinypeft generate` in a file. Flags override it; unknown keys get a suggestion."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tinypeft.adapters import ADAPTERS
from tinypeft.errors import TinypeftError

#: a setting of an adapter kind takes what its default is of, and a whole number for a fraction
_ADAPTER_OPTIONS: dict[str, tuple[type, ...]] = {
    option.name: (float, int) if isinstance(option.default, float) else (type(option.default),)
    for kind in ADAPTERS.values()
    for option in kind.options
}

#: section -> key -> accepted types. A dotted key in a message is section.key.
KEYS: dict[str, dict[str, tuple[type, ...]]] = {
    "model": {"path": (str,), "calibration": (str,)},
    "board": {
        "name": (str,),
        "stack_bytes": (int,),
        "arena_regions": (str, list),
        "weights_region": (str,),
        "ram_budget": (int, str),
        "samples": (int,),
        "adapters": (int,),
        "resident": (int,),
        "merge_room": (int, str),
    },
    "adapter": {
        "kind": (str, list),
        "r": (int,),
        "lora_alpha": (int, float),
        "target_modules": (str, list),
        "modules_to_save": (str, list),
        "targets": (dict,),
        **_ADAPTER_OPTIONS,
    },
    "training": {
        "optimizer": (str,),
        "batch_size": (int,),
        "nesterov": (bool,),
        "latents": (bool,),
        "grad_bits": (int,),
        **dict.fromkeys(("momentum", "weight_decay", "beta_1", "beta_2", "epsilon", "clip_norm"), (int, float)),
        "loss": (str,),
        "label_smoothing": (int, float),
        "class_weights": (str, list),
        "target": (str,),
    },
    "kernels": {"backends": (str, list), "optimize": (str,), "cmsis_nn": (str,)},
    "output": {"directory": (str,)},
}
#: keys whose lists hold numbers
_NUMBERS = ("training.class_weights",)
_PATHS = ("model.path", "model.calibration", "kernels.cmsis_nn", "output.directory")


class ConfigError(TinypeftError):
    """A configuration file that cannot be read or has an unknown key or a value of the wrong type."""


def load_config(path: Path | str) -> dict[str, Any]:
    """The file's values by dotted key; its paths are relative to its folder. Raises ConfigError."""
    file = Path(path)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}", "check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is no TOML: {error}", "correct that line") from error
    values: dict[str, Any] = {}
    for section, entries in content.items():
        if section not in KEYS:
            raise ConfigError(f"{file}: unknown section [{section}]", suggestion(section, KEYS))
        if not isinstance(entries, dict):
            raise ConfigError(f"{file}: {section} is a value, expected a section", f"write [{section}]")
        for key, value in dict(entries).items():
            dotted = f"{section}.{key}"
            if key not in KEYS[section]:
                raise ConfigError(f"{file}: unknown key {dotted}", suggestion(key, KEYS[section]))
            accepted = KEYS[section][key]
            if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
                wanted = " or ".join(kind.__name__ for kind in accepted)
                raise ConfigError(f"{file}: {dotted} is {value!r}, expected {wanted}", "correct that line")
            element = (int, float) if dotted in _NUMBERS else (str,)
            if isinstance(value, list) and not all(isinstance(e, element) and not isinstance(e, bool) for e in value):
                wanted = "numbers" if dotted in _NUMBERS else "str"
                raise ConfigError(f"{file}: {dotted} is {value!r}, expected a list of {wanted}", "correct that line")
            values[dotted] = str(file.parent / str(value)) if dotted in _PATHS else value
    return values


def suggestion(name: str, known: Iterable[str]) -> str:
    """What may have been meant by `name`, and all that is known."""
    known = list(known)
    close = difflib.get_close_matches(name, known, 1) or [other for other in known if name and other.startswith(name)]
    return (f"did you mean {close[0]}? " if close else "") + f"known: {', '.join(known)}"

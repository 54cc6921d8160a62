"""An adapter in PEFT's form: adapter_config.json and adapter_model.safetensors into a PeftAdapter and back."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from tinypeft.errors import AdapterError
from tinypeft.exchange.peft_config import CONFIG_FILE, PeftConfig, config_bytes, parse_config

WEIGHTS_FILE = "adapter_model.safetensors"

_PREFIX = "base_model.model."
#: ends of a key -> our names; what is None is the base model's and is left out
_ENDS = {
    "lora_A.weight": "lora_A",
    "lora_B.weight": "lora_B",
    "ia3_l": "ia3_l",
    "base_layer.bias": "bias",
    "modules_to_save.weight": "weight",
    "modules_to_save.bias": "bias",
    "original_module.weight": None,
    "original_module.bias": None,
    "weight": "weight",
    "bias": "bias",
}
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, eq=False)
class PeftAdapter:
    """The configuration, and module path -> tensors by name, float32 in PyTorch's layouts.

    lora_A  (r,in) or (r,in,kh,kw)
    lora_B  (out,r) or (out,r,1,1)
    ia3_l   (out,1) of a linear layer or (1,in) where the inputs are scaled; (1,channels,1,1) of a convolution
    weight  (out,in) or (out,in,kh,kw) of a module in modules_to_save
    bias    (out) of one, or trained with bias "all" or "lora_only"
    """

    config: PeftConfig
    tensors: Mapping[str, Mapping[str, np.ndarray]]


def read_peft(folder: Path | str) -> PeftAdapter:
    """The adapter in a folder as PEFT's save_pretrained writes it. AdapterError: see `parse_peft`; a missing file."""
    try:
        config, weights = (Path(folder, name).read_bytes() for name in (CONFIG_FILE, WEIGHTS_FILE))
    except OSError as error:
        raise AdapterError(
            f"cannot read {error.filename}: {error.strerror}",
            "give a folder that PEFT's save_pretrained or `tinypeft train` wrote",
        ) from error
    try:
        return parse_peft(config, weights)
    except AdapterError as error:
        raise AdapterError(f"{folder}: {error.message}", error.hint) from error


def parse_peft(config: bytes, weights: bytes) -> PeftAdapter:
    """The adapter of the two files' bytes.

    AdapterError: a key that is missing, unknown or misspelt, a tensor of a shape that contradicts the configuration,
    or of values that are not finite.
    """
    parsed = parse_config(config)
    tensors: dict[str, dict[str, np.ndarray]] = {}
    for key, array in _safetensors(weights).items():
        module, name = _split(key)
        if name is None:
            continue
        seen = tensors.setdefault(module, {}).setdefault(name, array)
        if not np.array_equal(seen, array):
            raise AdapterError(f"{WEIGHTS_FILE} holds two different {name} of {module}, one of them as {key}")
    adapter = PeftAdapter(parsed, {module: tensors[module] for module in sorted(tensors)})
    check_adapter(adapter)
    return adapter


def peft_files(adapter: PeftAdapter) -> dict[str, bytes]:
    """The two files by name, as PEFT reads them; the same adapter gives the same bytes.

    AdapterError: see `check_adapter`.
    """
    check_adapter(adapter)
    arrays = {
        _PREFIX + key: np.ascontiguousarray(array, np.float32)
        for module, tensors in sorted(adapter.tensors.items())
        for key, array in ((_key(adapter.config, module, name), array) for name, array in sorted(tensors.items()))
    }
    return {CONFIG_FILE: config_bytes(adapter.config), WEIGHTS_FILE: save(arrays, {"format": "pt"})}


def check_adapter(adapter: PeftAdapter) -> None:
    """AdapterError unless configuration and tensors agree: modules, names, ranks and shapes."""
    config = adapter.config
    for module, tensors in adapter.tensors.items():
        if config.is_saved(module):
            _expect(module, tensors, "it is in modules_to_save", needed=(), allowed=("weight", "bias"))
        elif set(tensors) == {"bias"} and config.bias == "all":
            pass  # of a layer without adapter
        elif not config.is_target(module):
            raise AdapterError(
                f"module {module} has {', '.join(sorted(tensors))}, but neither target_modules "
                f"{config.target_modules} nor modules_to_save {config.modules_to_save} name it",
                f"correct {CONFIG_FILE}, or the key's spelling",
            )
        elif config.peft_type == "IA3":
            _expect(module, tensors, "it is an IA3 target", needed=("ia3_l",), allowed=("ia3_l",))
            _check_ia3(config, module, tensors["ia3_l"])
        else:
            biases = () if config.bias == "none" else ("bias",)
            needed = ("lora_A", "lora_B")
            _expect(module, tensors, f"it is a LoRA target, bias {config.bias}", needed, (*needed, *biases))
            _check_lora(config, module, tensors["lora_A"], tensors["lora_B"])
    _check_named(config, adapter.tensors)


def _check_lora(config: PeftConfig, module: str, lora_A: np.ndarray, lora_B: np.ndarray) -> None:
    rank, dims = config.rank(module), lora_A.ndim
    if dims not in (2, 3, 4) or lora_A.shape[0] != rank:
        raise AdapterError(f"{module}: lora_A has the shape {lora_A.shape}, expected ({rank},in) or ({rank},in,kh,kw)")
    expected = (lora_B.shape[0], rank) + (1,) * (dims - 2)
    if lora_B.shape != expected:
        raise AdapterError(
            f"{module}: lora_B has the shape {lora_B.shape}, lora_A {lora_A.shape} needs (out,{str(expected[1:])[1:]}"
        )


def _check_ia3(config: PeftConfig, module: str, ia3_l: np.ndarray) -> None:
    channels = ia3_l.size
    linear = (1, channels) if config.is_feedforward(module) else (channels, 1)
    if ia3_l.shape not in (linear, *((1, channels, *[1] * dims) for dims in (1, 2))):
        side = "inputs" if config.is_feedforward(module) else "outputs"
        raise AdapterError(
            f"{module}: ia3_l has the shape {ia3_l.shape}; it scales {side}: {linear} or (1,channels,1,1)"
        )


def _check_named(config: PeftConfig, modules: Iterable[str]) -> None:
    """What the configuration names has tensors."""
    modules = list(modules)
    adapted = [module for module in modules if not config.is_saved(module)]
    names = config.target_modules if isinstance(config.target_modules, tuple) else ()
    for name in names:
        if not any(module == name or module.endswith(f".{name}") for module in adapted):
            raise AdapterError(f"target_modules name {name}, for which there are no tensors{_near(name, adapted)}")
    if isinstance(config.target_modules, str) and not any(map(config.is_target, adapted)):
        raise AdapterError(
            f"target_modules {config.target_modules!r} match none of {', '.join(adapted) or 'no modules'}"
        )
    for name in config.modules_to_save:
        if not any(f".{name}." in f".{module}." for module in modules):
            raise AdapterError(f"modules_to_save name {name}, for which there are no tensors{_near(name, modules)}")


def _expect(
    module: str, tensors: Mapping[str, np.ndarray], reason: str, needed: tuple[str, ...], allowed: tuple[str, ...]
) -> None:
    if missing := [name for name in needed if name not in tensors]:
        raise AdapterError(f"module {module} has no {', '.join(missing)}; {reason}", "save the adapter again")
    if other := sorted(set(tensors) - set(allowed)):
        raise AdapterError(f"module {module} has {', '.join(other)}; {reason}, which gives {', '.join(allowed)}")


def _key(config: PeftConfig, module: str, name: str) -> str:
    """PEFT's key, without its prefix, of a tensor; a target's own bias lies in the layer that PEFT wraps."""
    if name == "bias" and not config.is_saved(module) and config.is_target(module):
        return f"{module}.base_layer.bias"
    return f"{module}.{name}" + (".weight" if name.startswith("lora_") else "")


def _split(key: str) -> tuple[str, str | None]:
    """(module path, our name) of a key; the name is None for a tensor of the base model."""
    if not key.startswith(_PREFIX):
        raise AdapterError(f"{WEIGHTS_FILE}: key {key} does not start with {_PREFIX}", "save the adapter with PEFT")
    path = key.removeprefix(_PREFIX)
    for end, name in _ENDS.items():
        if path.endswith(f".{end}"):
            module = path.removesuffix(f".{end}")
            if ".lora_" not in f".{module}":
                return module, name
    raise AdapterError(
        f"{WEIGHTS_FILE}: key {key} is not supported; known ends: {', '.join(e for e, n in _ENDS.items() if n)}",
        "check the key's spelling, or train plain LoRA or IA3",
    )


def _safetensors(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file as float32."""
    try:
        entries = deserialize(data)
    except SafetensorError as error:
        raise AdapterError(f"{WEIGHTS_FILE} is damaged: {error}", "save or copy the adapter again") from error
    arrays = {}
    for key, entry in entries:
        if entry["dtype"] not in _FLOATS:
            raise AdapterError(f"{WEIGHTS_FILE}: {key} is {entry['dtype']}, supported are {', '.join(_FLOATS)}")
        raw = np.frombuffer(bytes(entry["data"]), _FLOATS[entry["dtype"]])
        if entry["dtype"] == "BF16":  # the upper half of a float32
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        arrays[key] = raw.astype(np.float32).reshape(entry["shape"])
        if not np.isfinite(arrays[key]).all():
            raise AdapterError(f"{WEIGHTS_FILE}: {key} has values that are not finite", "train with a smaller rate")
    return arrays


def _near(name: str, modules: Iterable[str]) -> str:
    modules = list(modules)
    found = difflib.get_close_matches(name, [module.rsplit(".", 1)[-1] for module in modules], 1, 0.6)
    return f"; there is {found[0]}" if found else f"; there are {', '.join(modules) or 'none'}"

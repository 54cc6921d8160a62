"""What a PeftAdapter adds to a model: its modules matched with layers, and their deltas, scales and new weights."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import numpy as np

from tinypeft.errors import AdapterError
from tinypeft.exchange.layouts import filters_from_torch
from tinypeft.exchange.peft_files import PeftAdapter


def match_layers(
    adapter: PeftAdapter, layers: Sequence[str], mapping: Mapping[str, str] | None = None
) -> dict[str, str]:
    """module path -> layer, for every module of the adapter.

    A module is the layer of its very name, or of what stands behind a dot of its path, the longest such; `mapping`
    goes first. AdapterError: a module that is no layer, two modules of one layer, a mapping of other names.
    """
    mapping = dict(mapping or {})
    for module, layer in mapping.items():
        if module not in adapter.tensors:
            raise AdapterError(f"the mapping names the module {module}; the adapter has {', '.join(adapter.tensors)}")
        if layer not in layers:
            raise AdapterError(f"the mapping of {module} names the layer {layer}{_near(layer, layers)}")
    found: dict[str, str] = {}
    owners: dict[str, str] = {}
    for module in adapter.tensors:
        layer = mapping.get(module) or _layer(module, layers)
        if layer in owners:
            raise AdapterError(
                f"the modules {owners[layer]} and {module} are both the layer {layer}", "map one of them to its layer"
            )
        found[module], owners[layer] = layer, module
    return found


def _layer(module: str, layers: Sequence[str]) -> str:
    candidates = [layer for layer in layers if module == layer or module.endswith(f".{layer}")]
    if not candidates:
        raise AdapterError(
            f"the adapter's module {module} is no layer of the model{_near(module.rsplit('.', 1)[-1], layers)}",
            f"map {module} to a layer",
        )
    return max(candidates, key=len)


def _near(name: str, layers: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, layers, 3, 0.4)
    return f"; the model has {', '.join(close or layers)}"


def merge(
    adapter: PeftAdapter, module: str, filters: np.ndarray, bias: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """(filters, bias) of `module` with the adapter in them, all float32 and of the layouts of `merged_delta`.

    AdapterError: no such module, or weights of another shape.
    """
    tensors = adapter.tensors.get(module, {})
    bias = tensors.get("bias", bias)
    if "weight" in tensors:
        return saved_weights(adapter, module)[0], bias
    if "lora_A" in tensors:
        delta = merged_delta(adapter, module)
        if delta.shape != filters.shape:
            raise AdapterError(f"{module}: the adapter is of a layer {delta.shape}, the weights are {filters.shape}")
        return filters + delta, bias
    if "ia3_l" in tensors:
        side, scale = ia3_scale(adapter, module)
        channels = filters.shape[-1 if side == "input" else 0]
        if scale.size != channels:
            raise AdapterError(
                f"{module}: ia3_l scales {scale.size} {side}s, the weights {filters.shape} have {channels}"
            )
        if side == "input":
            return filters * scale, bias
        return filters * scale.reshape(-1, *[1] * (filters.ndim - 1)), None if bias is None else bias * scale
    if "bias" not in tensors:
        raise AdapterError(f"the adapter has no module {module}; it has {', '.join(adapter.tensors)}")
    return filters, bias


def merged_delta(adapter: PeftAdapter, module: str) -> np.ndarray:
    """What LoRA adds to the weights of `module`: float32 scaling * B A, (out,in), or (out,kh,kw,in) of a convolution.

    The products are summed in float64 and rounded once. AdapterError: `module` has no LoRA.
    """
    tensors = _tensors(adapter, module, "lora_A")
    lora_A, lora_B = tensors["lora_A"].astype(np.float64), tensors["lora_B"].astype(np.float64)
    product = np.tensordot(lora_B.reshape(lora_B.shape[:2]), lora_A, axes=(1, 0))
    return filters_from_torch((product * adapter.config.scaling(module)).astype(np.float32))


def ia3_scale(adapter: PeftAdapter, module: str) -> tuple[str, np.ndarray]:
    """("input", (in)) or ("output", (out)): what IA3 multiplies of `module`, its bias too where it is the outputs."""
    side = "input" if adapter.config.is_feedforward(module) else "output"
    return side, _tensors(adapter, module, "ia3_l")["ia3_l"].reshape(-1)


def saved_weights(adapter: PeftAdapter, module: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(weights as in `merged_delta`, bias (out) or None) of a module in modules_to_save."""
    tensors = _tensors(adapter, module, "weight")
    return filters_from_torch(tensors["weight"]), tensors.get("bias")


def _tensors(adapter: PeftAdapter, module: str, name: str) -> Mapping[str, np.ndarray]:
    tensors = adapter.tensors.get(module, {})
    if name not in tensors:
        having = [path for path, others in adapter.tensors.items() if name in others]
        raise AdapterError(f"module {module} has no {name}; modules that have: {', '.join(having) or 'none'}")
    return tensors

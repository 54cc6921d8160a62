"""A compiled model's trained tensors as PEFT sees them: modules with named tensors, and PEFT's configuration."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tinypeft.adapters import ADAPTERS, Parameter
from tinypeft.adapters.lora_options import USE_RSLORA, layer_alpha, layer_rank
from tinypeft.compiler import CompiledModel
from tinypeft.exchange.peft_config import PeftConfig
from tinypeft.ir import Operation

#: PEFT's types -> the kinds that one can hold, the first of which it is named after
_PEFT_KINDS = {"LORA": ("lora", "bitfit", "modules_to_save"), "IA3": ("ia3", "modules_to_save")}
PEFT_TYPES = tuple(_PEFT_KINDS)


@dataclass(eq=False)
class Module:
    """A module of an adapter, what PEFT calls a layer: its trained tensors by the names that follow it in a key.

    `name` is the Keras layer's; the operation's, where several of one layer are adapted. `operation` is the base's,
    None for what adapts no layer; `kinds` are those on it.
    """

    name: str
    operation: Operation | None
    kinds: tuple[str, ...]
    parameters: dict[str, Parameter] = field(default_factory=dict)

    @property
    def saved(self) -> bool:
        """Whether it is in modules_to_save."""
        return "modules_to_save" in self.kinds

    def keys(self) -> dict[str, Parameter]:
        """Its parameters by key, without PEFT's prefix."""
        return {f"{self.name}.{end}" if end else self.name: parameter for end, parameter in self.parameters.items()}

    def tensors(self) -> dict[str, Parameter]:
        """Its parameters by the names of PeftAdapter: lora_A, not lora_A.weight."""
        return {
            end.removesuffix(".weight") if end.startswith("lora_") else end: parameter
            for end, parameter in self.parameters.items()
        }


def modules_of(model: CompiledModel) -> list[Module]:
    """The modules that are trained, in the model's order."""
    adapted = [op for op in model.base.operations if op.name in model.adapted_by]
    counts = Counter(op.layer for op in adapted)
    found: dict[str, Module] = {}
    for parameter in model.parameters:
        operation = _operation(adapted, parameter)
        name, prefixes = parameter.layer, [parameter.layer]
        if operation is not None:
            name = operation.layer if counts[operation.layer] == 1 else operation.name
            prefixes.append(operation.name)
        kinds = tuple(model.adapted_by[operation.name]) if operation is not None else (parameter.layer,)
        module = found.setdefault(name, Module(name, operation, kinds))
        end = next((parameter.peft_name[len(p) + 1 :] for p in prefixes if parameter.peft_name.startswith(f"{p}.")), "")
        module.parameters[end] = parameter
    return list(found.values())


def kinds_of(model: CompiledModel) -> list[str]:
    """The kinds that adapt some layer or are configured, in the order in which they come on one."""
    present = {kind for kinds in model.adapted_by.values() for kind in kinds} | set(model.adapter.kinds)
    return sorted(present, key=lambda name: (ADAPTERS[name].order, name))


def peft_type(model: CompiledModel) -> str:
    """PEFT's type of the adapters, or ours: the types of all kinds, joined by "+"."""
    kinds = kinds_of(model)
    for name, held in _PEFT_KINDS.items():
        if set(kinds) <= set(held) and ("bitfit" not in kinds or held[0] in kinds):
            return name
    return "+".join(dict.fromkeys(ADAPTERS[kind].peft_type for kind in kinds if kind != "modules_to_save"))


def peft_config(model: CompiledModel, ours: dict[str, Any]) -> PeftConfig | None:
    """PEFT's configuration of the adapters, `ours` its entry "tinypeft"; None where PEFT has no type for them."""
    kind = peft_type(model)
    if kind not in _PEFT_KINDS:
        return None
    modules = modules_of(model)
    adapted = [module for module in modules if _PEFT_KINDS[kind][0] in module.kinds]
    saved = tuple(module.name for module in modules if module.saved)
    targets = tuple(module.name for module in adapted)
    if kind == "IA3":
        return PeftConfig(kind, targets, modules_to_save=saved, tinypeft=ours)
    config = model.adapter
    layers = {module.name: module.operation.layer for module in adapted if module.operation is not None}
    ranks = {name: layer_rank(config, layer) for name, layer in layers.items()}
    alphas = {name: layer_alpha(config, layer) for name, layer in layers.items()}
    return PeftConfig(
        kind,
        targets,
        r=config.r,
        lora_alpha=config.lora_alpha,
        use_rslora=config.option(USE_RSLORA),
        rank_pattern={re.escape(name): rank for name, rank in ranks.items() if rank != config.r},
        alpha_pattern={re.escape(name): alpha for name, alpha in alphas.items() if alpha != config.lora_alpha},
        bias="all" if "bitfit" in kinds_of(model) else "none",
        modules_to_save=saved,
        tinypeft=ours,
    )


def _operation(adapted: list[Operation], parameter: Parameter) -> Operation | None:
    """The operation that a parameter, which is named after it, adapts."""
    named = [op for op in adapted if op.layer == parameter.layer and parameter.name.startswith(f"{op.name}_")]
    return max(named, key=lambda op: len(op.name), default=None)

"""Insert adapters: which layers a configuration names, and their operands. Takes a base graph, returns an AdaptedGraph."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from tinypeft.adapters import ADAPTERS, AdaptedGraph, AdapterConfig, AdapterKind, Insertion
from tinypeft.errors import AdapterError
from tinypeft.ir import Graph, Operation


def insert_adapters(graph: Graph, config: AdapterConfig) -> AdaptedGraph:
    """A copy of `graph` with the adapters of `config`; the base graph is left as it is.

    Raises AdapterError for layers that do not exist, match nothing, or cannot be adapted.
    """
    adapted = AdaptedGraph(_copy(graph))
    if config.adapter == "none":
        return adapted
    kind = _kind(config)
    operations = adapted.graph.operations
    saved = _modules_to_save(operations, config)
    targets = _targets(operations, config, kind, saved)
    insertion = Insertion(adapted)
    result: list[Operation] = []
    for operation in operations:
        if operation in saved:
            result += ADAPTERS["modules_to_save"].insert(operation, config, insertion)
        elif operation in targets:
            result += kind.insert(operation, config, insertion)
        result.append(operation)
    adapted.graph.operations = result
    if not adapted.parameters:
        raise AdapterError("nothing would be trained", "name layers with --target-modules or --modules-to-save")
    return adapted


def _copy(graph: Graph) -> Graph:
    operations = [
        Operation(op.op, op.name, dict(op.inputs), dict(op.outputs), dict(op.attributes), op.layer)
        for op in graph.operations
    ]
    return Graph(graph.name, list(graph.inputs), list(graph.outputs), operations)


def _kind(config: AdapterConfig) -> AdapterKind:
    kinds = sorted(name for name in ADAPTERS if name != "modules_to_save")
    if config.adapter not in kinds:
        raise AdapterError(f"there is no adapter kind {config.adapter}", f"one of: {', '.join(kinds)}, none")
    if not 1 <= config.r <= 256:
        raise AdapterError(f"r is {config.r}, the limits are 1 and 256", "try --r 4")
    if not 0 < config.lora_alpha <= 1e6:
        raise AdapterError(f"lora_alpha is {config.lora_alpha:g}, it must be positive", "try --lora-alpha 8")
    return ADAPTERS[config.adapter]


def matches(layer: str, wanted: Sequence[str] | str) -> bool:
    """PEFT's rule: a list holds exact names or suffixes after a dot, a string is a regular expression of the whole name."""
    if isinstance(wanted, str):
        try:
            return re.fullmatch(wanted, layer) is not None
        except re.error as error:
            raise AdapterError(
                f"target_modules {wanted!r} is no regular expression: {error}", "escape special characters with \\"
            ) from None
    return any(layer == name or layer.endswith(f".{name}") for name in wanted)


def _modules_to_save(operations: list[Operation], config: AdapterConfig) -> list[Operation]:
    kind = ADAPTERS["modules_to_save"]
    if config.modules_to_save is None:
        dense = [op for op in operations if op.kind == "FULLY_CONNECTED"]
        return dense[-1:] if dense and kind.refuses(dense[-1]) is None else []
    saved = []
    for name in config.modules_to_save:
        found = [op for op in operations if matches(op.layer, [name])]
        candidates = [op.layer for op in operations if kind.refuses(op) is None]
        if not found:
            raise AdapterError(f"modules_to_save names {name}, which is no layer of the model", _suggest(name, candidates))
        accepted = [op for op in found if kind.refuses(op) is None]
        if not accepted:
            raise AdapterError(f"modules_to_save names {name}, which {kind.refuses(found[0])}", _suggest(name, candidates))
        saved += accepted
    if len(saved) > 1:
        names = ", ".join(op.layer for op in saved)
        raise AdapterError(f"modules_to_save names {names}; one layer, the classifier, can be retrained")
    last = [op for op in operations if op.kind == "FULLY_CONNECTED"][-1:]
    if saved and saved != last:
        raise AdapterError(
            f"modules_to_save names {saved[0].layer}; only the last dense layer, {last[0].layer}, can be retrained whole",
            f"use --modules-to-save {last[0].layer}, and LoRA for the others",
        )
    return saved


def _targets(
    operations: list[Operation], config: AdapterConfig, kind: AdapterKind, saved: list[Operation]
) -> list[Operation]:
    candidates = [op for op in operations if kind.refuses(op) is None and op not in saved]
    if config.target_modules is None:
        return candidates
    found = [op for op in operations if matches(op.layer, config.target_modules) and op not in saved]
    wanted = config.target_modules if isinstance(config.target_modules, str) else ", ".join(config.target_modules)
    names = list(dict.fromkeys(op.layer for op in candidates))
    accepted = [op for op in found if kind.refuses(op) is None]
    layers = {op.layer for op in accepted}
    for op in found:
        if op.layer not in layers and op.kind in ("DEPTHWISE_CONV_2D",):
            raise AdapterError(f"target_modules {wanted!r} names {op.layer}, which {kind.refuses(op)}", _suggest(wanted, names))
    if not accepted and not (config.target_modules == () and saved):
        reason = f": {found[0].layer} {kind.refuses(found[0])}" if found else ""
        raise AdapterError(f"target_modules {wanted!r} matches no layer that {kind.name} can adapt{reason}", _suggest(wanted, names))
    return accepted


def _suggest(name: str, candidates: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, candidates, 1)
    listed = ", ".join(dict.fromkeys(candidates)) or "none"
    return (f"did you mean {close[0]}? " if close else "") + f"candidates: {listed}"

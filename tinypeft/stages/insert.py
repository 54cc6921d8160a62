"""Insert adapters: the layers that a configuration names get their operands. A base graph in, an AdaptedGraph out."""

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
    if not config.kinds:
        return adapted
    kinds = _kinds(config)
    operations = adapted.graph.operations
    saved = _modules_to_save(operations, config)
    first = adapted.graph.consumers(adapted.graph.inputs[0])[:1]
    targets = {
        kind.name: _on_input(first, kind) if kind.on_input else _targets(operations, config, kind, saved)
        for kind in kinds
    }
    for kind in kinds:
        kind.check(targets[kind.name], config)
    insertion = Insertion(adapted)
    insertion.classifier = _classifier(operations, saved)
    result: list[Operation] = []
    for base, operation in zip(graph.operations, operations, strict=True):
        insertion.base = base
        chosen = [ADAPTERS["modules_to_save"]] if operation in saved else []
        chosen += [kind for kind in kinds if operation in targets[kind.name]]
        for kind in chosen:
            kind.insert(operation, config, insertion)
            adapted.kinds.setdefault(operation.name, []).append(kind.name)
        result += [*insertion.before, operation, *insertion.after]
        insertion.before, insertion.after = [], []
    adapted.graph.operations = result
    if insertion.classifier is not None:
        _carry_scale(adapted.graph, insertion.classifier)
    if not adapted.parameters:
        raise AdapterError("nothing would be trained", "name layers with --target-modules or --modules-to-save")
    return adapted


def _copy(graph: Graph) -> Graph:
    operations = [
        Operation(op.op, op.name, dict(op.inputs), dict(op.outputs), dict(op.attributes), op.layer)
        for op in graph.operations
    ]
    return Graph(graph.name, list(graph.inputs), list(graph.outputs), operations)


def _kinds(config: AdapterConfig) -> list[AdapterKind]:
    """The kinds of a configuration, whose settings are checked."""
    names = sorted(ADAPTERS)
    for name in (*config.kinds, *(kind for kind, _ in config.targets)):
        if name not in names:
            raise AdapterError(f"there is no adapter kind {name}", f"one of: {', '.join(names)}, none")
    kinds = [ADAPTERS[name] for name in dict.fromkeys(config.kinds) if name != "modules_to_save"]
    if not 1 <= config.r <= 256:
        raise AdapterError(f"r is {config.r}, the limits are 1 and 256", "try --r 4")
    if not 0 < config.lora_alpha <= 1e6:
        raise AdapterError(f"lora_alpha is {config.lora_alpha:g}, it must be positive", "try --lora-alpha 8")
    declared = {option.name: option for kind in ADAPTERS.values() for option in kind.options}
    for name, value in config.options:
        if name not in declared:
            raise AdapterError(f"no adapter kind has an option {name}", _suggest(name, sorted(declared)))
        declared[name].check(value)
    return kinds


def matches(layer: str, wanted: Sequence[str] | str) -> bool:
    """PEFT's rule: a list holds exact names or suffixes after a dot, a string is a regular expression of the whole."""
    if isinstance(wanted, str):
        try:
            return re.fullmatch(wanted, layer) is not None
        except re.error as error:
            raise AdapterError(
                f"target_modules {wanted!r} is no regular expression: {error}", "escape special characters with \\"
            ) from None
    return any(layer == name or layer.endswith(f".{name}") for name in wanted)


def _modules_to_save(operations: list[Operation], config: AdapterConfig) -> list[Operation]:
    """The layers to retrain whole; the last dense layer where the configuration does not say, if it is a classifier."""
    kind = ADAPTERS["modules_to_save"]
    candidates = [op for op in operations if kind.refuses(op) is None]
    if config.modules_to_save is None:
        last = [op for op in operations if op.kind == "FULLY_CONNECTED"][-1:]
        return [op for op in last if op in candidates and _classifier(operations, [op])]
    names = list(dict.fromkeys(op.layer for op in candidates))
    chosen = []
    for name in config.modules_to_save:
        named = [op for op in operations if matches(op.layer, [name])]
        found = [op for op in named if "filter" in op.inputs] or named
        if not found:
            raise AdapterError(f"modules_to_save names {name}, which is no layer of the model", _suggest(name, names))
        for op in found:
            if op not in candidates:
                raise AdapterError(f"modules_to_save names {name}, which {kind.refuses(op)}", _suggest(name, names))
        chosen += found
    return [op for op in operations if op in chosen]


def _classifier(operations: list[Operation], saved: list[Operation]) -> Operation | None:
    """Of the retrained layers the one that gives the model's logits: a linear last dense layer of one row."""
    for op in [op for op in operations if op.kind == "FULLY_CONNECTED"][-1:]:
        linear = op.attributes["activation"] == "NONE" and op.output.size == op.inputs["filter"].shape[0]
        return op if op in saved and linear else None
    return None


def _carry_scale(graph: Graph, retrained: Operation) -> None:
    """Give what reads a retrained classifier's output the power of two by which its scale grows."""
    for reader in graph.consumers(retrained.output):
        if "input_shift" in reader.op.optional:
            reader.inputs["input_shift"] = retrained.attributes["output_shift"]
        elif reader.kind == "RESHAPE":
            reader.attributes["output_shift"] = retrained.attributes["output_shift"]
            _carry_scale(graph, reader)
        else:
            raise AdapterError(
                f"layer {retrained.layer} cannot be retrained: {reader.name}, a {reader.kind}, reads its output",
                "leave it as it is with --modules-to-save none",
            )


def _on_input(first: list[Operation], kind: AdapterKind) -> list[Operation]:
    """The first operation that reads the model's input, for a kind that adapts that; a retrained one, too."""
    for operation in first:
        if (reason := kind.refuses(operation)) is not None:
            raise AdapterError(f"{kind.name} cannot adapt the input: {operation.layer or operation.name} {reason}")
    return first


def _targets(
    operations: list[Operation], config: AdapterConfig, kind: AdapterKind, saved: list[Operation]
) -> list[Operation]:
    """The layers to adapt."""
    candidates = [op for op in operations if kind.refuses(op) is None and op not in saved]
    wanted = config.targets_of(kind.name)
    if wanted is None:
        return candidates
    found = [op for op in operations if matches(op.layer, wanted) and op not in saved]
    accepted = [op for op in found if op in candidates]
    shared = len(config.kinds) > 1 and kind.name not in dict(config.targets)  # each kind takes what it can of them
    shown = wanted if isinstance(wanted, str) else ", ".join(wanted)
    names = list(dict.fromkeys(op.layer for op in candidates))
    adapted = {op.layer for op in accepted}
    for op in found:
        if "filter" in op.inputs and op.layer not in adapted and not shared:
            raise AdapterError(
                f"target_modules {shown!r} names {op.layer}, which {kind.refuses(op)}", _suggest(shown, names)
            )
    if wanted and not accepted and not shared:
        reason = f": {found[0].layer} {kind.refuses(found[0])}" if found else ""
        message = f"target_modules {shown!r} matches no layer that {kind.name} can adapt{reason}"
        raise AdapterError(message, _suggest(shown, names))
    return accepted


def _suggest(name: str, candidates: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, candidates, 1)
    listed = ", ".join(dict.fromkeys(candidates)) or "none"
    return (f"did you mean {close[0]}? " if close else "") + f"candidates: {listed}"

"""Which layers of a model may be adapted, and how: a model and its gradients in, every choice with its score out."""

from __future__ import annotations

import math

from tinypeft.adapters import ADAPTERS, AdapterConfig
from tinypeft.adapters.sparse import rank_channels
from tinypeft.errors import AdapterError
from tinypeft.ir import Graph, Operation
from tinypeft.planning.choices import RETRAINED, Choice, check_names
from tinypeft.planning.sensitivity import LayerGradients
from tinypeft.stages.insert import insert_adapters
from tinypeft.stages.logits import attach_logits

RANKS = (1, 2, 4, 8)
#: shares of a layer's output channels that a sparse update may train
DENSITIES = (1 / 8, 1 / 4)

#: layer -> its choices with their scores
Candidates = dict[str, dict[Choice, float]]


def adaptable_operations(graph: Graph, passed_over: tuple[str, ...], *, classes: bool) -> list[Operation]:
    """The operations with weights that a gradient of the loss reaches, in order.

    Raises AdapterError where there are none, or where their names cannot stand in a configuration.
    """
    check_names(graph)
    forward, logits = attach_logits(graph, passed_over, classes=classes)
    blocked: set[int] = set()
    reached = {id(logits)}
    found: list[Operation] = []
    for op in reversed(forward.operations):
        outputs = {id(t) for t in op.outputs.values()}
        if outputs & reached and not outputs & blocked:
            if not op.op.differentiable:
                blocked |= {id(t) for t in op.inputs.values()}
            reached |= {id(t) for t in op.inputs.values()}
            if op.kind == "DENSE_LOGITS":
                op = next(o for o in graph.operations if o.inputs.get("filter") is op.inputs["filter"])
            if op in graph.operations and any(ADAPTERS[kind].refuses(op) is None for kind in ("bitfit", "ia3")):
                found.append(op)
        elif outputs & blocked:
            blocked |= {id(t) for t in op.inputs.values()}
    found = [op for op in graph.operations if op in found]
    if not found:
        raise AdapterError(f"{graph.name} has no layer that an adapter could train", "a model with other layers")
    return found


def candidate_choices(graph: Graph, gradients: list[LayerGradients], *, retrains: bool) -> Candidates:
    """Every layer's choices: those of each operation of the layer add up.

    `retrains`: whether the loss lets a classifier be retrained whole.
    """
    head = _classifier(graph) if retrains else ""
    layers: dict[str, list[LayerGradients]] = {}
    for each in gradients:
        layers.setdefault(each.operation.layer, []).append(each)
    candidates: Candidates = {}
    for layer, parts in layers.items():
        choices = _channel_choices(parts) | _lora_choices(parts) | _sparse_choices(parts)
        if layer == head:
            choices[Choice((RETRAINED,))] = sum(float((part.rows + part.bias).sum()) for part in parts)
        candidates[layer] = {choice: score for choice, score in choices.items() if score > 0}
    return {layer: choices for layer, choices in candidates.items() if choices}


def _classifier(graph: Graph) -> str:
    """The layer that is retrained whole by default, if any."""
    try:
        adapted = insert_adapters(graph, AdapterConfig(RETRAINED))
    except AdapterError:
        return ""
    return adapted.parameters[0].layer


def _channel_choices(parts: list[LayerGradients]) -> dict[Choice, float]:
    choices = {}
    for kind in ("bitfit", "ia3"):
        able = _accepted(parts, kind)
        if able:
            values = (part.bias if kind == "bitfit" else part.factor for part in able)
            choices[Choice((kind,))] = sum(float(value.sum()) for value in values)
    return choices


def _lora_choices(parts: list[LayerGradients]) -> dict[Choice, float]:
    able, biased = _accepted(parts, "lora"), _accepted(parts, "bitfit")
    choices = {}
    for r in RANKS:
        if not able or any(r > min(len(p.bias), math.prod(p.operation.inputs["filter"].shape[1:])) // 2 for p in able):
            break
        score = sum(part.of_rank(r) for part in able)
        choices[Choice(("lora",), r)] = score
        if biased:
            choices[Choice(("bitfit", "lora"), r)] = score + sum(float(part.bias.sum()) for part in biased)
    return choices


def _sparse_choices(parts: list[LayerGradients]) -> dict[Choice, float]:
    """The rows with the largest scores; a configuration names the channels of one operation a layer."""
    able = _accepted(parts, "sparse")
    if len(able) != 1 or len(parts) != 1:
        return {}
    scores = able[0].rows + able[0].bias
    choices = {}
    for density in DENSITIES:
        channels = tuple(int(channel) for channel in rank_channels(able[0].operation, density, scores))
        choices[Choice(("sparse",), channels=channels)] = float(scores[list(channels)].sum())
    return choices


def _accepted(parts: list[LayerGradients], kind: str) -> list[LayerGradients]:
    return [part for part in parts if ADAPTERS[kind].refuses(part.operation) is None]

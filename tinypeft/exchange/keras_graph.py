"""What stands behind the layers of a loaded Keras model: a model in, layers and their readers out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

#: layers that pass on what they read when the model infers
_TRANSPARENT = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "Identity",
                "ActivityRegularization", "AlphaDropout")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A BatchNormalization that reads a layer's output, and whether nothing else does."""

    layer: Any
    alone: bool


def leaves(model: Any) -> Iterator[Any]:
    """The layers of a model and of the models in it, in order, but for inputs."""
    for layer in getattr(model, "operations", model.layers):
        if getattr(layer, "layers", None):
            yield from leaves(layer)
        elif type(layer).__name__ != "InputLayer":
            yield layer


def batch_normalisations(model: Any) -> dict[str, Neighbour]:
    """Layer name -> the BatchNormalization right behind it, through layers that do nothing when the model infers."""
    readers: dict[int, list[Any]] = {}
    for output in _walk(model, [None], readers):
        readers.setdefault(id(output), []).append(None)  # whoever runs the model reads it
    found = {}
    for layer in leaves(model):
        behind = readers.get(id(layer), [])
        for reader in behind:
            if type(reader).__name__ == "BatchNormalization" and _is_linear(layer):
                found[layer.name] = Neighbour(reader, len(behind) == 1)
    return found


def _walk(model: Any, sources: list[Any], readers: dict[int, list[Any]]) -> list[Any]:
    """Note who reads what in `model`, whose inputs `sources` compute; the layers that compute its outputs."""
    graph = getattr(model, "_functional", None) or model
    computed = {id(tensor): source for tensor, source in zip(graph.inputs, sources, strict=False)}
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            layer = node.operation
            if type(layer).__name__ == "InputLayer":
                continue
            read = [computed.get(id(tensor)) for tensor in node.input_tensors]
            if getattr(layer, "layers", None):
                results = _walk(layer, read, readers)
            elif type(layer).__name__ in _TRANSPARENT or _is_linear_activation(layer):
                results = read
            else:
                for each in read:
                    if each is not None:
                        readers.setdefault(id(each), []).append(layer)
                results = [layer] * len(node.output_tensors)
            computed |= {id(tensor): result for tensor, result in zip(node.output_tensors, results, strict=True)}
    return [computed.get(id(tensor)) for tensor in graph.outputs]


def _is_linear_activation(layer: Any) -> bool:
    return type(layer).__name__ == "Activation" and _is_linear(layer)


def _is_linear(layer: Any) -> bool:
    return getattr(getattr(layer, "activation", None), "__name__", "linear") == "linear"

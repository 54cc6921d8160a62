"""What stands behind the layers of a loaded Keras model: a model in, layers and their readers out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

#: layers that pass on what they read when the model infers
_TRANSPARENT = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "Identity",
                "ActivityRegularization", "AlphaDropout")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What stands around a layer.

    batch_normalisation  the BatchNormalization that reads the layer's output, through layers that do nothing when the
                         model infers, or None; also None behind an activation of the layer's own
    alone                whether nothing else reads the layer's output
    shared               whether outputs of other layers go through that BatchNormalization too
    calls                how often the model calls the layer
    """

    batch_normalisation: Any
    alone: bool
    shared: bool
    calls: int


def leaves(model: Any) -> Iterator[Any]:
    """The layers of a model and of the models in it, in order, but for inputs."""
    for layer in getattr(model, "operations", model.layers):
        if getattr(layer, "layers", None):
            yield from leaves(layer)
        elif type(layer).__name__ != "InputLayer":
            yield layer


def surroundings(model: Any) -> dict[str, Surroundings]:
    """Layer name -> what stands around it."""
    walk = _Walk()
    for output in walk.through(model, [None]):
        walk.read(output, None)  # whoever runs the model reads it
    found = {}
    for layer in leaves(model):
        behind = walk.readers.get(id(layer), [])
        normalisations = [each for each in behind if type(each).__name__ == "BatchNormalization" and _is_linear(layer)]
        normalisation = normalisations[0] if normalisations else None
        shared = walk.calls[id(normalisation)] > 1
        found[layer.name] = Surroundings(normalisation, len(behind) == 1, shared, walk.calls[id(layer)])
    return found


class _Walk:
    """Goes through a model in the order of its computation and notes calls of layers, and who reads their outputs."""

    def __init__(self) -> None:
        self.readers: dict[int, list[Any]] = {}
        self.calls: Counter[int] = Counter()

    def read(self, source: Any, reader: Any) -> None:
        if source is not None:
            self.readers.setdefault(id(source), []).append(reader)

    def through(self, model: Any, sources: list[Any]) -> list[Any]:
        """The layers that compute the outputs of `model`, whose inputs `sources` compute."""
        graph = getattr(model, "_functional", None) or model
        computed = {id(tensor): source for tensor, source in zip(graph.inputs, sources, strict=False)}
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for node in graph._nodes_by_depth[depth]:
                if type(node.operation).__name__ != "InputLayer":
                    results = self.results(node, [computed.get(id(tensor)) for tensor in node.input_tensors])
                    outputs = zip(node.output_tensors, results, strict=True)
                    computed |= {id(tensor): result for tensor, result in outputs}
        return [computed.get(id(tensor)) for tensor in graph.outputs]

    def results(self, node: Any, sources: list[Any]) -> list[Any]:
        """The layers that compute the outputs of one call."""
        layer = node.operation
        self.calls[id(layer)] += 1
        if getattr(layer, "layers", None):
            return self.through(layer, sources)
        if type(layer).__name__ in _TRANSPARENT or _is_linear_activation(layer):
            return sources
        for source in sources:
            self.read(source, layer)
        return [layer] * len(node.output_tensors)


def _is_linear_activation(layer: Any) -> bool:
    return type(layer).__name__ == "Activation" and _is_linear(layer)


def _is_linear(layer: Any) -> bool:
    return getattr(getattr(layer, "activation", None), "__name__", "linear") == "linear"

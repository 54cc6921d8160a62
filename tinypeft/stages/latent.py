"""Latents: a training graph in, what lies in front of the first adapter split off it, to be run once a sample, out."""

from __future__ import annotations

from dataclasses import dataclass

from tinypeft.errors import AdapterError
from tinypeft.ir import Graph, Operation, Tensor


@dataclass(frozen=True, eq=False)
class LatentGraphs:
    """`encode`: the input to the latents, which no training changes. `training`: a step that takes them instead."""

    encode: Graph
    training: Graph

    @property
    def latents(self) -> list[Tensor]:
        """The tensors that are kept of a sample, one after the other."""
        return self.encode.outputs

    @property
    def nbytes(self) -> int:
        """Bytes of a sample's latents."""
        return sum(tensor.nbytes for tensor in self.latents)


def split_latents(training: Graph) -> LatentGraphs:
    """Both graphs: a step by the second equals one of `training`, to the bit.

    Raises AdapterError where an adapter reads the model's input, so that nothing comes before it.
    """
    source = next(tensor for tensor in training.inputs if tensor.in_arena)
    frozen: dict[int, Tensor] = {id(source): source}
    prefix: list[Operation] = []
    for op in training.operations:
        if op.inputs and all(id(t) in frozen or t.data is not None for t in op.inputs.values()):
            prefix.append(op)
            frozen.update({id(t): t for t in op.outputs.values()})
    rest = [op for op in training.operations if op not in prefix]
    read = {id(t) for op in rest for t in op.inputs.values()}
    latents = [tensor for key, tensor in frozen.items() if key in read]
    if not prefix or latents == [source]:
        raise AdapterError(
            "the first adapter reads the model's input, so that there is nothing in front of it to keep",
            "name later layers with --target-modules, or leave --latents out",
        )
    arguments = [tensor for tensor in training.inputs if tensor is not source]
    return LatentGraphs(
        Graph("encode", [source], latents, prefix),
        Graph("latent_training", [*latents, *arguments], training.outputs, rest),
    )

"""The classes of a retrained classifier: more, fewer or others than the base has. Registers no kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinypeft.errors import AdapterError
from tinypeft.ir import Graph, Operation, Tensor
from tinypeft.ops.weighted import filter_scales

#: a class that the base does not have
NEW = -1
_PASSED_ON = ("RESHAPE", "SOFTMAX", "DEQUANTIZE")


def parse_classes(labels: int, classes: str, base: int) -> list[int] | None:
    """For each class the one of the base that it starts from, or NEW; None where they are the base's `base` classes.

    `labels` (0: as many as the base) counts them, `classes` lists them, such as "0,3,new". Raises AdapterError.
    """
    if not classes:
        if labels in (0, base):
            return None
        return [c if c < base else NEW for c in range(labels)]
    chosen = []
    for text in classes.split(","):
        word = text.strip()
        if word != "new" and not (word.isdecimal() and int(word) < base):
            raise AdapterError(
                f"head_classes names {word!r}; the base has classes 0 to {base - 1}", "try --head-classes 0,1,new"
            )
        chosen.append(NEW if word == "new" else int(word))
    if labels not in (0, len(chosen)):
        raise AdapterError(f"head_classes has {len(chosen)} classes, num_labels is {labels}", "give one of the two")
    return None if chosen == list(range(base)) else chosen


def weights_of_classes(operation: Operation, classes: list[int]) -> dict[str, Tensor]:
    """filter and bias of a dense layer for other classes: rows of the base's, zeros for new ones."""
    scales = filter_scales(operation)
    known = np.array(classes) != NEW
    rows = np.where(known, classes, 0)
    chosen = {}
    for operand in ("filter", "bias"):
        tensor = operation.inputs.get(operand)
        if tensor is None:
            continue
        assert tensor.data is not None
        data = np.where(known.reshape(-1, *[1] * (tensor.data.ndim - 1)), tensor.data[rows], 0)
        scale = np.where(known, scales[rows], np.median(scales)).astype(np.float32)
        data = np.ascontiguousarray(data, tensor.data.dtype)
        name = f"{tensor.name}_of_classes"
        chosen[operand] = replace(tensor, name=name, shape=data.shape, data=data, scale=scale, source=-1)
    return chosen


def resize_output(graph: Graph, operation: Operation, count: int) -> None:
    """Have a classifier, and what follows it, give `count` classes; raises AdapterError where that is not possible."""
    old = operation.output
    new = replace(old, shape=(*old.shape[:-1], count), source=-1)
    operation.outputs = {next(iter(operation.outputs)): new}
    if operation.kind in ("FULLY_CONNECTED", "RESHAPE"):
        key = "output_shape" if operation.kind == "FULLY_CONNECTED" else "shape"
        operation.attributes[key] = new.shape
    graph.outputs = [new if tensor is old else tensor for tensor in graph.outputs]
    for reader in graph.consumers(old):
        if reader.kind not in _PASSED_ON or reader.output.shape[-1:] != old.shape[-1:]:
            raise AdapterError(
                f"layer {operation.layer} cannot get other classes: {reader.name}, a {reader.kind}, reads its output",
                "leave num_labels and head_classes out",
            )
        reader.inputs = {name: new if tensor is old else tensor for name, tensor in reader.inputs.items()}
        resize_output(graph, reader, count)

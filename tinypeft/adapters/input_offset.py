"""A learned offset of the model's input: what prompt tuning is to transformers, for models of images and sounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tinypeft.adapters.base import AdapterConfig, AdapterKind, Insertion, Option, Parameter, register
from tinypeft.errors import AdapterError
from tinypeft.ir import Operation, Purpose
from tinypeft.ops import OPS
from tinypeft.ops.constraints import per_tensor

SHAPE = Option(
    "input_offset_shape",
    "full",
    "an offset for every element of the input, or one a channel.",
    choices=("full", "channel"),
)
#: Elements of a row of updates, at least: each row costs a call, each element 4 bytes of scratch.
_ROW = 64


@register
class InputOffset(AdapterKind):
    """clamp(input + offset), in front of all that reads the input; the offset starts at zero."""

    name = "input_offset"
    summary = "what is added to the model's input, one value an element or a channel"
    options = (SHAPE,)
    on_input = True
    peft_type = "INPUT_OFFSET"
    method = 0x0040
    unmerged = "moves the input, which padding and the limits of int8 keep out of a bias"

    def refuses(self, operation: Operation) -> str | None:
        dtype = next(tensor.dtype for tensor in operation.inputs.values() if tensor.data is None)
        if dtype != "int8" and (operation.kind, operation.output.dtype) != ("QUANTIZE", "int8"):
            return f"is a {operation.kind} that reads it as {dtype}; an offset is in steps of int8"
        return None

    def insert(self, operation: Operation, config: AdapterConfig, insertion: Insertion) -> None:
        graph = insertion.adapted.graph
        x = graph.inputs[0]
        in_front = x.dtype == "int8"
        if in_front:
            moved = replace(x, name=f"{x.name}_moved", source=-1)
            for reader in [*graph.operations, *insertion.before]:
                reader.inputs = {name: moved if tensor is x else tensor for name, tensor in reader.inputs.items()}
        else:
            readers = graph.consumers(x)
            if len(readers) > 1:
                raise AdapterError(f"{len(readers)} operations quantise the float32 input; {self.name} takes one")
            x, moved = insertion.follow(operation)
        per_channel = config.option(SHAPE) == "channel" and x.size > x.shape[-1]
        shape = x.shape[-1:] if per_channel else _rows(x.size)
        shown = x.shape[-1:] if per_channel else x.shape[1:]
        master = insertion.state("input_offset_master", shape, "float32", Purpose.MASTER)
        offset = insertion.weight("input_offset", shape, "int8")
        insertion.constant(master)
        operands = {"input": x, "offset": offset}
        added = Operation(OPS["INPUT_OFFSET"], "input_offset", operands, {"output": moved}, {}, self.name)
        kinds = "INPUT_OFFSET_QUANTIZE", "INPUT_OFFSET_RESTORE"
        attributes = {"scale": np.float32(per_tensor(x)[0])}
        insertion.quantize(added, kinds, {"master": master}, {"offset": offset}, attributes)
        if in_front:
            insertion.before.insert(0, added)
        else:
            insertion.after.append(added)
        insertion.adapted.parameters.append(
            Parameter(
                "input_offset",
                self.name,
                master,
                offset,
                "input_offset",
                lambda array: array.reshape(shown),
                lambda array: array.reshape(shape),
            )
        )


def _rows(size: int) -> tuple[int, int]:
    """(rows, elements of each): the smallest divisor of `size` from _ROW on."""
    row = next((n for n in range(_ROW, size) if size % n == 0), size)
    return size // row, row

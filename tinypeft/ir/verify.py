"""Checks that a graph is consistent; run after every stage."""

from __future__ import annotations

from tinypeft.errors import VerifyError
from tinypeft.ir.graph import DTYPES, Graph, Operation, Tensor


def verify(graph: Graph, stage: str) -> Graph:
    """Return `graph` unchanged, or raise VerifyError naming `stage`, the operation and the fault.

    Checks: unique names, known dtypes, positive shapes, every value defined before it is read and
    defined once, operands as the operator declares them, shapes as the operator's rule gives them.
    """
    names: dict[str, Tensor] = {}
    for tensor in graph.tensors():
        if names.setdefault(tensor.name, tensor) is not tensor:
            raise VerifyError(f"{stage}: two tensors of {graph.name} are called {tensor.name}")
        if tensor.dtype not in DTYPES:
            raise VerifyError(f"{stage}: {tensor.name} has unknown dtype {tensor.dtype}")
        if any(extent < 1 for extent in tensor.shape):
            raise VerifyError(f"{stage}: {tensor.name} has shape {tensor.shape}")
        if tensor.data is not None and tuple(tensor.data.shape) != tensor.shape:
            raise VerifyError(
                f"{stage}: {tensor.name} holds data of shape {tensor.data.shape}, declared {tensor.shape}"
            )
    defined = {id(t) for t in graph.inputs}
    labels: set[str] = set()
    for op in graph.operations:
        if op.name in labels:
            raise VerifyError(f"{stage}: two operations of {graph.name} are called {op.name}")
        labels.add(op.name)
        _verify_operation(op, defined, stage)
    for tensor in graph.outputs:
        if id(tensor) not in defined and not tensor.persistent:
            raise VerifyError(f"{stage}: output {tensor.name} of {graph.name} is never computed")
    return graph


def _verify_operation(op: Operation, defined: set[int], stage: str) -> None:
    unknown = {name for name in op.inputs if not op.op.takes(name)}
    missing = set(op.op.operands) - set(op.inputs)
    if unknown or missing:
        raise VerifyError(f"{stage}: {op} has unknown operands {sorted(unknown)}, lacks {sorted(missing)}")
    for tensor in op.inputs.values():
        if tensor.data is None and not tensor.persistent and id(tensor) not in defined:
            raise VerifyError(f"{stage}: {op} reads {tensor.name} before it is computed")
    for tensor in op.outputs.values():
        if tensor.data is not None or (id(tensor) in defined and not tensor.persistent):
            raise VerifyError(f"{stage}: {op} computes {tensor.name} a second time")
        defined.add(id(tensor))
    for operand, shape in op.op.shapes(op).items():
        if op.outputs[operand].shape != shape:
            raise VerifyError(f"{stage}: {op} gives {op.outputs[operand].shape}, its rule says {shape}")

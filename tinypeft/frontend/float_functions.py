"""Folding of DEQUANTIZE, a float32 function and QUANTIZE, as the converter leaves them, into one operator.

Such a function of one int8 gives one of 256 results: it becomes a table, with the same bits.
"""

from __future__ import annotations

import dataclasses

from tinypeft.frontend.flatfile import FileModel, FileOperator
from tinypeft.frontend.folding import without_dead
from tinypeft.ops import OPS
from tinypeft.ops.lookup import BetweenFloats, FloatArithmetic


def fold_float_functions(model: FileModel) -> FileModel:
    """`model` with every such triple as one operator of the function's kind, int8 in and out; else as it is."""
    producers = {id(tensor): operator for operator in model.operators for tensor in operator.outputs}
    operators: list[FileOperator] = []
    bypassed: list[FileOperator] = []
    for operator in model.operators:
        function = producers.get(id(operator.inputs[0])) if operator.kind == "QUANTIZE" else None
        source = None if function is None else producers.get(id(function.inputs[0]))
        if function is not None and source is not None and _is_table(source, function, operator):
            bypassed += [source, function]
            operator = FileOperator(
                function.index, function.kind, FloatArithmetic(), list(source.inputs), operator.outputs
            )
        operators.append(operator)
    return dataclasses.replace(model, operators=without_dead(operators, bypassed, model.output))


def _is_table(source: FileOperator, function: FileOperator, target: FileOperator) -> bool:
    x, y = source.inputs[0], target.outputs[0]
    return (
        source.kind == "DEQUANTIZE"
        and isinstance(OPS.get(function.kind), BetweenFloats)
        and len(function.inputs) == 1
        and x is not None
        and (x.type, y.type) == ("INT8", "INT8")
    )

"""The container of a .tflite file: bytes in, tensors and operators with every index and extent checked out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tinypeft.errors import ModelError

_DAMAGED_HINT = "export or copy the file again; it should be a .tflite written by the LiteRT converter"
_ELEMENTS_MAX = 1 << 28


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}


_OPERATORS = _names(schema.BuiltinOperator)
_TYPES = _names(schema.TensorType)


@dataclass(eq=False)
class FileTensor:
    """A tensor as the file holds it; `type` is TFLite's name such as INT8, `raw` a constant's bytes."""

    index: int
    name: str
    shape: tuple[int, ...]
    type: str
    scale: np.ndarray
    zero_point: np.ndarray
    quantized_dimension: int
    raw: bytes | None

    @property
    def label(self) -> str:
        """The first of the fused names, for messages."""
        return self.name.split(";")[0]


@dataclass(eq=False)
class FileOperator:
    """An operator: its TFLite name, its options object and its tensors; an input that is left out is None."""

    index: int
    kind: str
    options: Any
    inputs: list[FileTensor | None]
    outputs: list[FileTensor]


@dataclass(eq=False)
class FileModel:
    """The one subgraph of a file."""

    input: FileTensor
    output: FileTensor
    operators: list[FileOperator]


def parse(data: bytes) -> FileModel:
    """The model in `data`; ModelError where it is damaged, or has a form that no firmware could run."""
    if len(data) < 8 or data[4:8] != b"TFL3":
        raise ModelError("not a .tflite file: the identifier TFL3 is missing", _DAMAGED_HINT)
    try:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(data), 0))
        return _model(model)
    except ModelError:
        raise
    except Exception as error:  # the flatbuffer reader checks nothing, so a damaged file may end in any exception
        raise ModelError(f"the .tflite file is damaged ({type(error).__name__}: {error})", _DAMAGED_HINT) from error


def _model(model: Any) -> FileModel:
    subgraphs = model.subgraphs or []
    if len(subgraphs) != 1:
        raise ModelError(
            f"the file has {len(subgraphs)} subgraphs, supported is one", "export the model without control flow"
        )
    graph = subgraphs[0]
    inputs, outputs = _indices(graph.inputs), _indices(graph.outputs)
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(
            f"the model has {len(inputs)} inputs and {len(outputs)} outputs, supported is one of each",
            "export a model with a single input and a single output",
        )
    tensors = [_tensor(index, tensor, model.buffers) for index, tensor in enumerate(graph.tensors)]
    operators = [
        _operator(index, operator, model.operatorCodes, tensors) for index, operator in enumerate(graph.operators or [])
    ]
    if not operators:
        raise ModelError("the model has no operators", _DAMAGED_HINT)
    return FileModel(_at(tensors, inputs[0]), _at(tensors, outputs[0]), operators)


def _tensor(index: int, tensor: Any, buffers: list[Any]) -> FileTensor:
    name = (tensor.name or b"").decode("utf-8", errors="replace")
    label = name.split(";")[0]
    shape = tuple(_indices(tensor.shape))
    signature = _indices(tensor.shapeSignature)
    if any(extent < 1 for extent in shape) or any(extent < 1 for extent in signature[1:]):
        raise ModelError(
            f"tensor {label} has the dynamic shape {tuple(signature) or shape}", "export the model with fixed shapes"
        )
    if math.prod(shape) > _ELEMENTS_MAX:
        raise _damage(f"tensor {label} has shape {shape}")
    if tensor.sparsity is not None or tensor.isVariable:
        kind = "sparse" if tensor.sparsity is not None else "a variable"
        raise ModelError(f"tensor {label} is {kind}, which is not supported", "export a dense model without state")
    buffer = _at(buffers, tensor.buffer)
    if buffer.offset > 1 or buffer.size > 1:
        raise ModelError(f"tensor {label} lies outside the flatbuffer, which is not supported")
    quantization = tensor.quantization or schema.QuantizationParametersT()
    return FileTensor(
        index,
        name,
        shape,
        _TYPES.get(tensor.type, f"type {tensor.type}"),
        np.array([] if quantization.scale is None else quantization.scale, np.float32),
        np.array([] if quantization.zeroPoint is None else quantization.zeroPoint, np.int64),
        int(quantization.quantizedDimension),
        None if buffer.data is None or len(buffer.data) == 0 else bytes(buffer.data),
    )


def _operator(index: int, operator: Any, codes: list[Any], tensors: list[FileTensor]) -> FileOperator:
    code = _at(codes, operator.opcodeIndex)
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    kind = _OPERATORS.get(number, f"operator {number}")
    if kind == "CUSTOM":
        kind = f"CUSTOM {(code.customCode or b'').decode('utf-8', errors='replace')}"
    outputs = [_at(tensors, i) for i in _indices(operator.outputs)]
    if not outputs:
        raise _damage(f"operator {index} {kind} has no output")
    options = operator.builtinOptions if operator.builtinOptions is not None else operator.builtinOptions2
    inputs = [None if i == -1 else _at(tensors, i) for i in _indices(operator.inputs)]
    return FileOperator(index, kind, options, inputs, outputs)


def _indices(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]


def _at(items: list[Any], index: int) -> Any:
    if not 0 <= index < len(items or []):
        raise _damage(f"index {index} of {len(items or [])}")
    return items[index]


def _damage(what: str) -> ModelError:
    return ModelError(f"the .tflite file is damaged: {what}", _DAMAGED_HINT)

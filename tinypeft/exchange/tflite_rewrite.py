"""A .tflite file with some tensors replaced: its bytes and new weights, scales, shapes in, the bytes of a file out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tinypeft.errors import AdapterError, ModelError
from tinypeft.frontend import flatfile

_DTYPES: dict[int, np.dtype[Any]] = {
    schema.TensorType.INT8: np.dtype("int8"),
    schema.TensorType.INT32: np.dtype("int32"),
}
_ALIGNMENT = 16  # of a buffer's data, as the schema demands; kernels read int32 there
#: weighted operator -> positions of input, filter, bias, and the filter's axis of output channels
_WEIGHTED = {
    "CONV_2D": (0, 1, 2, 0),
    "DEPTHWISE_CONV_2D": (0, 1, 2, 3),
    "FULLY_CONNECTED": (0, 1, 2, 0),
    "TRANSPOSE_CONV": (2, 1, 3, 0),
}
_SCALE_TOLERANCE = 1e-5  # relative; writers round the product of two float32 scales differently


@dataclass(frozen=True, eq=False)
class Replacement:
    """What a tensor becomes; what is None stays as it is.

    data        a constant's values, int8 or int32 as the tensor's type is; its shape becomes the tensor's
    scale       float32, one or one an output channel
    zero_point  one for all channels
    shape       of an activation, which has no data
    """

    data: np.ndarray | None = None
    scale: np.ndarray | None = None
    zero_point: int | None = None
    shape: tuple[int, ...] | None = None


def readers(tflite: bytes, tensor: int) -> list[tuple[int, int]]:
    """(operator's index, operand's position) of all that read `tensor`, an index in the file, in the file's order."""
    return [
        (operator.index, position)
        for operator in flatfile.parse(tflite).operators
        for position, source in enumerate(operator.inputs)
        if source is not None and source.index == tensor
    ]


def rewrite_tflite(
    tflite: bytes,
    tensors: Mapping[int, Replacement] | None = None,
    operands: Mapping[tuple[int, int], Replacement] | None = None,
) -> bytes:
    """The file with tensors replaced, by index, and with operands of (operator's index, position) replaced.

    A replaced tensor changes for every operator that reads it; an operand only there: the operator gets a constant of
    its own, also where it had none, as a bias. Tensors that share a replaced one's buffer keep their values.
    ModelError: a damaged file; AdapterError: no such tensor or operator, a replacement of another type, or one that
    does not suit the operator that reads it.
    """
    file = flatfile.parse(tflite)  # checks every index
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(bytearray(tflite), 0))
    rewriting = _Rewriting(model, {operator.index: operator for operator in file.operators})
    for index, replacement in (tensors or {}).items():
        rewriting.replace_tensor(index, replacement)
    for (operator, position), replacement in (operands or {}).items():
        rewriting.replace_operand(operator, position, replacement)
    rewriting.drop_unused_buffers()
    rewritten = _pack(model)
    for changed in flatfile.parse(rewritten).operators:
        if changed.index in rewriting.changed:
            _check_operator(changed)
    return rewritten


class _Rewriting:
    """Edits `model` in place; `operators` are those of the file, by index."""

    def __init__(self, model: Any, operators: dict[int, flatfile.FileOperator]):
        self.model, self.graph, self.operators = model, model.subgraphs[0], operators
        self.changed: set[int] = set()

    def replace_tensor(self, index: int, replacement: Replacement) -> None:
        if not 0 <= index < len(self.graph.tensors):
            raise AdapterError(f"the .tflite file has {len(self.graph.tensors)} tensors, {index} is none of them")
        self.changed |= {
            operator.index
            for operator in self.operators.values()
            if any(t is not None and t.index == index for t in [*operator.inputs, *operator.outputs])
        }
        axes = {
            _WEIGHTED[operator.kind][3]
            for operator in self.operators.values()
            if operator.kind in _WEIGHTED and index == _index(operator, _WEIGHTED[operator.kind][1])
        }
        if len(axes) > 1:
            raise AdapterError(
                f"tensor {index} is the filter of depthwise and other layers, which have their channels on other axes",
                "replace it as the operand of each",
            )
        tensor = self.graph.tensors[index]
        if replacement.data is not None and not _holds_data(self.model.buffers[tensor.buffer]):
            raise AdapterError(f"tensor {_label(tensor)} is computed, it cannot hold values")
        self.apply(tensor, replacement, axes.pop() if axes else 0)

    def replace_operand(self, index: int, position: int, replacement: Replacement) -> None:
        operator = self.operators.get(index)
        if operator is None or operator.kind not in _WEIGHTED or position not in _WEIGHTED[operator.kind][1:3]:
            raise AdapterError(
                f"operand {position} of operator {index} is no filter and no bias of a layer; operators with weights: "
                + ", ".join(f"{o.index} {o.kind}" for o in self.operators.values() if o.kind in _WEIGHTED)
            )
        self.changed.add(index)
        _, weights, _, axis = _WEIGHTED[operator.kind]
        axis = axis if position == weights else 0
        source = _index(operator, position)
        if source is not None and self.count_readers(source) == 1:
            self.apply(self.graph.tensors[source], replacement, axis)
            return
        tensor = self.new_bias(operator, replacement) if source is None else _copy(self.graph.tensors[source])
        self.apply(tensor, replacement, axis)
        self.graph.tensors.append(tensor)
        inputs = [int(i) for i in self.graph.operators[index].inputs]
        inputs += [-1] * (position + 1 - len(inputs))
        inputs[position] = len(self.graph.tensors) - 1
        self.graph.operators[index].inputs = inputs

    def count_readers(self, tensor: int) -> int:
        return sum(int(i) == tensor for operator in self.graph.operators for i in operator.inputs)

    def new_bias(self, operator: flatfile.FileOperator, replacement: Replacement) -> Any:
        if replacement.data is None or replacement.scale is None:
            raise AdapterError(f"operator {operator.index} {operator.kind} has no bias: a new one needs data and scale")
        filters = operator.inputs[_WEIGHTED[operator.kind][1]]
        assert filters is not None
        return schema.TensorT(name=f"{filters.label}/bias".encode(), type=schema.TensorType.INT32)

    def apply(self, tensor: Any, replacement: Replacement, axis: int) -> None:
        """Give `tensor` the values and quantisation of `replacement`; `axis` is that of its channels."""
        if replacement.data is not None:
            dtype = _DTYPES.get(tensor.type)
            if dtype is None or replacement.data.dtype != dtype:
                raise AdapterError(
                    f"tensor {_label(tensor)} is {dtype or 'neither int8 nor int32'}, its new values are "
                    f"{replacement.data.dtype}"
                )
            raw = np.frombuffer(replacement.data.astype(dtype.newbyteorder("<")).tobytes(), np.uint8)
            self.model.buffers.append(schema.BufferT(data=raw))
            tensor.buffer = len(self.model.buffers) - 1
        shape = replacement.shape if replacement.data is None else replacement.data.shape
        if shape is not None:
            tensor.shape, tensor.shapeSignature = [int(extent) for extent in shape], None
        if replacement.scale is not None or replacement.zero_point is not None:
            tensor.quantization = _quantization(tensor, replacement, axis)

    def drop_unused_buffers(self) -> None:
        """Empty the buffers that nothing refers to any more; the others keep their places."""
        used = {tensor.buffer for tensor in self.graph.tensors} | {entry.buffer for entry in self.model.metadata or ()}
        if self.model.metadataBuffer is not None:
            used |= {int(index) for index in self.model.metadataBuffer}
        for index, buffer in enumerate(self.model.buffers):
            if index not in used:
                buffer.data = None


def _index(operator: flatfile.FileOperator, position: int) -> int | None:
    tensor = operator.inputs[position] if position < len(operator.inputs) else None
    return None if tensor is None else tensor.index


def _copy(tensor: Any) -> Any:
    fields = ("shape", "type", "buffer", "name", "quantization", "isVariable", "sparsity", "shapeSignature", "hasRank")
    return schema.TensorT(**{name: getattr(tensor, name) for name in fields})


def _label(tensor: Any) -> str:
    return str((tensor.name or b"").decode("utf-8", errors="replace").split(";")[0])


def _holds_data(buffer: Any) -> bool:
    return buffer.data is not None and len(buffer.data) > 0


def _quantization(tensor: Any, replacement: Replacement, axis: int) -> Any:
    """A new object: the old may belong to a copy of the tensor too."""
    old = tensor.quantization or schema.QuantizationParametersT()
    scale = np.atleast_1d(np.asarray(old.scale if replacement.scale is None else replacement.scale, np.float32))
    if replacement.zero_point is not None:
        zero_point = replacement.zero_point
    else:
        zero_point = 0 if old.zeroPoint is None or len(old.zeroPoint) == 0 else int(old.zeroPoint[0])
    if scale.ndim != 1 or not (np.isfinite(scale).all() and (scale > 0).all()):
        raise AdapterError(
            f"tensor {_label(tensor)} gets scales {scale.shape} that are not positive and finite in a row"
        )
    channels = tensor.shape[axis] if len(tensor.shape) > axis else 1
    if scale.size not in (1, channels):
        raise AdapterError(
            f"tensor {_label(tensor)} {tuple(tensor.shape)} gets {scale.size} scales for {channels} channels"
        )
    return schema.QuantizationParametersT(
        scale=scale,
        zeroPoint=np.full(scale.size, zero_point, np.int64),
        quantizedDimension=axis if scale.size > 1 else 0,
    )


def _check_operator(operator: flatfile.FileOperator) -> None:
    """AdapterError unless filter, bias and output fit each other; the bias counts in input scale * filter scale."""
    if operator.kind not in _WEIGHTED:
        return
    x_at, filter_at, bias_at, axis = _WEIGHTED[operator.kind]
    x, filters = operator.inputs[x_at], operator.inputs[filter_at]
    bias = operator.inputs[bias_at] if bias_at < len(operator.inputs) else None
    assert x is not None and filters is not None
    where = f"operator {operator.index} {operator.kind}, filter {filters.label} {filters.shape}"
    channels, given = filters.shape[axis], operator.outputs[0].shape[-1]
    if given != channels:
        raise AdapterError(f"{where}: its output has {given} channels", "replace the output's shape too")
    if bias is None:
        return
    if bias.shape != (channels,):
        raise AdapterError(f"{where}: its bias has the shape {bias.shape}", "replace the bias too")
    expected = x.scale * filters.scale
    if bias.scale.shape != expected.shape or not np.allclose(bias.scale, expected, rtol=_SCALE_TOLERANCE, atol=0.0):
        raise AdapterError(
            f"{where}: its bias has the scales {_range(bias.scale)}, its input and filter give {_range(expected)}",
            "replace the bias too, in units of input scale * filter scale",
        )


def _range(scale: np.ndarray) -> str:
    return f"{scale.min():.6g} to {scale.max():.6g} ({scale.size})" if scale.size else "none"


class _AlignedBuffer(schema.BufferT):
    """A buffer that is written at a multiple of 16 B; the generated code forgets the schema's alignment."""

    def Pack(self, builder: Any) -> Any:  # noqa: N802
        data = None
        if self.data is not None and len(self.data):
            raw = bytes(self.data)
            builder.Prep(_ALIGNMENT, len(raw))
            data = builder.CreateByteVector(raw)
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def _pack(model: Any) -> bytes:
    model.buffers = [_AlignedBuffer(data=buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(1 << 16)
    try:
        builder.Finish(model.Pack(builder), b"TFL3")
    except Exception as error:  # the generated code has a case for each field of the schema, which it may know in part
        raise ModelError(f"the .tflite file cannot be written again ({type(error).__name__}: {error})") from error
    return bytes(builder.Output())

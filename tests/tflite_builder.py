"""Small .tflite models with chosen shapes and quantisation, and what LiteRT's reference kernels compute with them.

Tensors are `tinypeft.ir.Tensor` in TFLite's own shapes; constants have `.data`. Options are the schema's object API:

    x = int8_tensor("x", (1, 4, 4, 8), scale=0.1, zero_point=-3)
    y = int8_tensor("y", (1, 2, 2, 8), scale=0.1, zero_point=-3)
    options = schema.Pool2DOptionsT(padding=1, strideW=2, strideH=2, filterWidth=2, filterHeight=2)
    node = Node("MAX_POOL_2D", options, [x], [y])
    expected, = run_reference(build_model(node), values)
    op = node.operation()
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tinypeft.ir import Operation, Purpose, Tensor

TENSOR_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int32": schema.TensorType.INT32,
    "int16": schema.TensorType.INT16,
    "int8": schema.TensorType.INT8,
}
#: The operator versions that have int8 kernels.
VERSIONS = {
    "SUB": 2, "MUL": 2, "MAXIMUM": 2, "MINIMUM": 2, "SQUARED_DIFFERENCE": 2, "RELU": 2, "RELU6": 2, "LEAKY_RELU": 2,
    "LOGISTIC": 2, "TANH": 2, "GELU": 2, "ABS": 2, "RSQRT": 2, "SQRT": 2, "EXP": 2, "LOG": 2,
    "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "ADD": 2, "AVERAGE_POOL_2D": 2, "MAX_POOL_2D": 2,
    "MEAN": 2, "PAD": 2, "SOFTMAX": 2, "QUANTIZE": 2, "DEQUANTIZE": 2, "RESHAPE": 1,
    "TRANSPOSE_CONV": 4, "REDUCE_MAX": 2, "REDUCE_MIN": 2,
    "BATCH_TO_SPACE_ND": 2, "BROADCAST_TO": 2, "CONCATENATION": 2, "GATHER": 2, "MIRROR_PAD": 2, "PACK": 2, "PADV2": 2,
    "RESIZE_BILINEAR": 3, "RESIZE_NEAREST_NEIGHBOR": 3, "SLICE": 2, "SPACE_TO_BATCH_ND": 2, "SPACE_TO_DEPTH": 2,
    "SPLIT": 2, "SPLIT_V": 2, "STRIDED_SLICE": 2, "TRANSPOSE": 2, "UNPACK": 2,
}  # fmt: skip


def int8_tensor(name: str, shape: Sequence[int], scale: Any, zero_point: int = 0, data: Any = None) -> Tensor:
    """An int8 tensor; `scale` is a number or one per channel."""
    return _tensor(name, shape, "int8", scale, zero_point, data)


def float_tensor(name: str, shape: Sequence[int]) -> Tensor:
    """A float32 tensor."""
    return _tensor(name, shape, "float32", None, 0, None)


def int32_constant(name: str, data: Any, scale: Any = None) -> Tensor:
    """An int32 constant, such as a bias (with its scale), axes or paddings."""
    data = np.asarray(data, np.int32)
    return _tensor(name, data.shape, "int32", scale, 0, data)


def _tensor(name: str, shape: Sequence[int], dtype: str, scale: Any, zero_point: int, data: Any) -> Tensor:
    purpose = Purpose.ACTIVATION if data is None else Purpose.FROZEN_WEIGHT
    scale = None if scale is None else np.atleast_1d(np.asarray(scale, np.float32))
    data = None if data is None else np.asarray(data, dtype).reshape(tuple(shape))
    return Tensor(name, tuple(int(n) for n in shape), dtype, purpose, scale, zero_point, data)


@dataclass
class Node:
    """One TFLite operator. An absent optional input is None."""

    kind: str
    options: Any
    inputs: Sequence[Tensor | None]
    outputs: Sequence[Tensor]

    def parts(self) -> Sequence[Node]:
        """The operators that it is in a file."""
        return [self]

    def operation(self, name: str = "op") -> Operation:
        """The operator as tinypeft reads it."""
        from tinypeft.ops import OPS

        operands, attributes = OPS[self.kind].from_tflite(self.options, list(self.inputs), list(self.outputs))
        outputs = dict(zip(OPS[self.kind].results, self.outputs, strict=True))
        return Operation(OPS[self.kind], name, operands, outputs, attributes)


def conv_2d(x: Tensor, filters: Tensor, bias: Tensor | None, y: Tensor, **options: int) -> Node:
    """CONV_2D: filters (Cout,KH,KW,Cin) with one scale per Cout, bias int32 (Cout); options as Conv2DOptionsT."""
    return Node("CONV_2D", schema.Conv2DOptionsT(**options), [x, filters, *_present(bias)], [y])


def depthwise_conv_2d(x: Tensor, filters: Tensor, bias: Tensor | None, y: Tensor, **options: int) -> Node:
    """DEPTHWISE_CONV_2D: filters (1,KH,KW,C) with one scale per C, bias int32 (C)."""
    return Node("DEPTHWISE_CONV_2D", schema.DepthwiseConv2DOptionsT(**options), [x, filters, *_present(bias)], [y])


def fully_connected(x: Tensor, weights: Tensor, bias: Tensor | None, y: Tensor, **options: int) -> Node:
    """FULLY_CONNECTED: weights (Cout,Cin) with one scale or one per Cout, bias int32 (Cout)."""
    return Node("FULLY_CONNECTED", schema.FullyConnectedOptionsT(**options), [x, weights, bias], [y])


def transpose_conv(x: Tensor, filters: Tensor, bias: Tensor | None, y: Tensor, **options: int) -> Node:
    """TRANSPOSE_CONV: filters (Cout,KH,KW,Cin) with one scale per Cout, bias int32 (Cout)."""
    inputs = [int32_constant("output_shape", y.shape), filters, x, *_present(bias)]
    return Node("TRANSPOSE_CONV", schema.TransposeConvOptionsT(**options), inputs, [y])


def _present(bias: Tensor | None) -> list[Tensor]:
    """The input of a bias; convolutions without one have an input less."""
    return [] if bias is None else [bias]


def build_model(*nodes: Node) -> bytes:
    """A .tflite file of these operators in this order. Inputs are what none computes, outputs what none reads."""
    nodes = tuple(part for node in nodes for part in node.parts())
    tensors: list[Tensor] = []
    for node in nodes:
        for tensor in [*node.inputs, *node.outputs]:
            if tensor is not None and all(tensor is not t for t in tensors):
                tensors.append(tensor)
    index = {id(t): i for i, t in enumerate(tensors)}
    computed = {id(t) for node in nodes for t in node.outputs}
    read = {id(t) for node in nodes for t in node.inputs}

    buffers = [schema.BufferT()]
    graph = schema.SubGraphT(name="main", tensors=[], operators=[])
    for tensor in tensors:
        graph.tensors.append(_flat_tensor(tensor, nodes, buffers))
    graph.inputs = [i for i, t in enumerate(tensors) if t.data is None and id(t) not in computed]
    graph.outputs = [i for i, t in enumerate(tensors) if id(t) in computed and id(t) not in read]
    kinds = list(dict.fromkeys(node.kind for node in nodes))
    for node in nodes:
        operator = schema.OperatorT(opcodeIndex=kinds.index(node.kind))
        operator.inputs = [-1 if t is None else index[id(t)] for t in node.inputs]
        operator.outputs = [index[id(t)] for t in node.outputs]
        if node.options is not None:
            operator.builtinOptions = node.options
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(node.options).__name__.removesuffix("T"))
        graph.operators.append(operator)
    codes = [getattr(schema.BuiltinOperator, kind) for kind in kinds]
    model = schema.ModelT(version=3, subgraphs=[graph], buffers=buffers, description="test")
    model.operatorCodes = [
        schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=VERSIONS.get(kind, 1))
        for kind, code in zip(kinds, codes, strict=True)
    ]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _flat_tensor(tensor: Tensor, nodes: Sequence[Node], buffers: list[Any]) -> Any:
    flat = schema.TensorT(name=tensor.name, shape=list(tensor.shape), type=TENSOR_TYPES[tensor.dtype])
    if tensor.data is not None:
        buffers.append(schema.BufferT(data=np.frombuffer(tensor.data.tobytes(), np.uint8)))
        flat.buffer = len(buffers) - 1
    if tensor.scale is not None:
        depthwise = any(n.kind == "DEPTHWISE_CONV_2D" and len(n.inputs) > 1 and n.inputs[1] is tensor for n in nodes)
        flat.quantization = schema.QuantizationParametersT(
            scale=[float(s) for s in tensor.scale],
            zeroPoint=[tensor.zero_point] * len(tensor.scale),
            quantizedDimension=3 if depthwise else 0,
        )
    return flat


#: Operators that BUILTIN_REF leaves out; their only kernel is among the others.
WITHOUT_REFERENCE = ("ELU",)


def run_reference(model: bytes, *inputs: np.ndarray, kind: str = "") -> list[np.ndarray]:
    """The model's outputs as LiteRT's reference kernels (BUILTIN_REF) compute them; `kind` of its only operator."""
    resolver = OpResolverType.BUILTIN_REF
    if kind in WITHOUT_REFERENCE:
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]

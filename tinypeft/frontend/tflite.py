"""A fully int8 quantised .tflite file, as bytes, into a Graph. TensorFlow is not needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tinypeft.errors import ModelError, VerifyError
from tinypeft.frontend import flatfile
from tinypeft.frontend.flatfile import FileModel, FileOperator, FileTensor
from tinypeft.frontend.float_functions import fold_float_functions
from tinypeft.frontend.folding import fold
from tinypeft.frontend.lowering import LOWERINGS, Lowered
from tinypeft.frontend.naming import UniqueNames, find_folded_layer, find_layer
from tinypeft.frontend.unsupported import UNSUPPORTED
from tinypeft.ir import Graph, Operation, Purpose, Tensor, verify
from tinypeft.ops import OPS

_EDGES = ("QUANTIZE", "DEQUANTIZE")
_WEIGHTED = ("CONV_2D", "FULLY_CONNECTED", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
_DTYPES = {"INT8": "int8", "INT32": "int32", "FLOAT32": "float32"}
_QUANTIZE_HINT = (
    "give the .keras model with --calibration F.npz:KEY instead, or convert with "
    "optimizations=[tf.lite.Optimize.DEFAULT], a representative_dataset, "
    "supported_ops=[tf.lite.OpsSet.TFLITE_BUILTINS_INT8] and int8 inference input and output"
)


def read_tflite(data: bytes, *, keras_layers: Sequence[str] | Mapping[str, str] | None = None) -> Graph:
    """The graph of a .tflite file that is quantised to int8 throughout, shapes as in the file: (1, ...).

    `keras_layers` are the names of the Keras model's layers, in order, perhaps with their classes; then an operation's
    `layer` is one of them. The graph is called `model`. ModelError: the file is damaged, not fully int8, has several
    inputs, outputs or subgraphs, dynamic shapes, or an operator that is not supported.
    """
    model = flatfile.parse(data)
    try:
        return _Reader(fold_float_functions(fold(model)), keras_layers or {}).read()
    except ModelError:
        raise
    except VerifyError as error:
        raise ModelError(f"the .tflite file is inconsistent: {error.message}", "export it again") from error
    except Exception as error:  # numbers of a damaged file may break any computation on them
        raise ModelError(
            f"the .tflite file cannot be read ({type(error).__name__}: {error})", "export it again"
        ) from error


def supported_operators() -> list[str]:
    """The names of the operators that a file may contain, sorted."""
    return sorted([*LOWERINGS, *(name for name, op in OPS.items() if op.importable)])


class _Reader:
    def __init__(self, model: FileModel, keras_layers: Sequence[str] | Mapping[str, str]):
        self.model = model
        self.keras_layers = list(keras_layers)
        self.classes = dict(keras_layers) if isinstance(keras_layers, Mapping) else {}
        self.names = UniqueNames(["input"])
        self.tensors: dict[int, Tensor] = {}

    def read(self) -> Graph:
        operators = self.model.operators
        named = [self.layer_of(operator) for operator in operators]
        layers = [
            find_folded_layer(operator.kind, layer, named, self.classes)
            for operator, layer in zip(operators, named, strict=True)
        ]
        self.refuse_unsupported(layers)
        mixed = any(
            t is not None and t.raw is None and t.type == "INT8" for o in operators for t in [*o.inputs, *o.outputs]
        )
        for operator, layer in zip(operators, layers, strict=True):
            refuse_other_numbers(operator, f"layer {self.describe(layer)}, {operator.kind}", mixed)
        graph_input = self.tensor(self.model.input, "input")
        names = self.operation_names(layers)
        operations = [o for each in zip(operators, names, layers, strict=True) for o in self.operations(*each)]
        graph = Graph("model", [graph_input], [self.tensor(self.model.output, "output")], operations)
        return verify(graph, "read")

    def layer_of(self, operator: FileOperator) -> str:
        output = operator.outputs[0]
        weights = [t.name for t in operator.inputs[1:] if t is not None and t.raw is not None]
        if operator.kind not in _WEIGHTED:
            weights = []
        layer = find_layer(operator.kind, weights, output.name, self.keras_layers)
        if layer is None and output is self.model.output and operator.kind not in _EDGES and self.keras_layers:
            layer = self.keras_layers[-1]  # the converter renames the model's output
        return layer or f"{operator.kind.lower().replace(' ', '_')}_{operator.index}"

    def describe(self, layer: str) -> str:
        return f"{layer} ({self.classes[layer]})" if layer in self.classes else layer

    def refuse_unsupported(self, layers: list[str]) -> None:
        supported = supported_operators()
        refused: dict[str, list[str]] = {}
        for operator, layer in zip(self.model.operators, layers, strict=True):
            if operator.kind not in supported:
                refused.setdefault(operator.kind, []).append(self.describe(layer))
        if refused:
            found = "; ".join(f"operator {kind} of layer {', '.join(names[:3])}" for kind, names in refused.items())
            reasons = "".join(f"; {UNSUPPORTED[kind].rstrip('.')}" for kind in refused if kind in UNSUPPORTED)
            several = sum(map(len, refused.values())) > 1
            raise ModelError(
                f"{found} {'are' if several else 'is'} not supported{reasons}; supported: {', '.join(supported)}",
                "replace the layer by supported ones, or leave it to the code in front of or behind the model",
            )

    def operation_names(self, layers: list[str]) -> list[str]:
        """One name an operator: the layer's for the operator that bears its weights, else for its first one."""
        owner: dict[str, int] = {}
        for index, layer in enumerate(layers):
            kept = owner.setdefault(layer, index)
            if self.rank(index) < self.rank(kept):
                owner[layer] = index
        reserved = {index: self.names.take(layer) for layer, index in owner.items()}
        return [
            reserved[index] if index in reserved else self.names.take(f"{layer}_{self.short_kind(index)}")
            for index, layer in enumerate(layers)
        ]

    def rank(self, index: int) -> int:
        kind = self.model.operators[index].kind
        return _WEIGHTED.index(kind) if kind in _WEIGHTED else len(_WEIGHTED)

    def short_kind(self, index: int) -> str:
        return self.model.operators[index].kind.lower().removesuffix("_2d").removesuffix("_conv")

    def operations(self, operator: FileOperator, name: str, layer: str) -> list[Operation]:
        """One operation of `operator`'s kind, or those that it is lowered to, the last of them called `name`."""
        where = f"layer {self.describe(layer)}, {operator.kind}"
        check_per_channel(operator, where)
        inputs = [None if t is None else self.tensor(t) for t in operator.inputs]
        outputs = [self.tensor(t) for t in operator.outputs]
        try:
            if operator.kind in LOWERINGS:
                lowered = LOWERINGS[operator.kind].lower(operator.options, inputs, outputs)
            else:
                lowered = [read_operator(operator, inputs, outputs)]
        except ModelError as error:
            raise ModelError(f"{where}: {error.message}", error.hint) from error
        names = [self.names.take(f"{name}_{number}") for number in range(len(lowered) - 1)] + [name]
        return [self.operation(each, called, layer, where) for each, called in zip(lowered, names, strict=True)]

    def operation(self, lowered: Lowered, name: str, layer: str, where: str) -> Operation:
        self.name_operands(name, lowered.inputs, list(lowered.outputs.values()))
        op = OPS[lowered.kind]
        operation = Operation(op, name, lowered.inputs, lowered.outputs, lowered.attributes, layer)
        if complaint := op.check(operation):
            raise ModelError(f"{where}: {complaint}")
        return operation

    def name_operands(self, name: str, operands: dict[str, Tensor], outputs: list[Tensor]) -> None:
        for operand, tensor in operands.items():
            if tensor.data is not None and not tensor.name:
                role = "kernel" if operand in ("filter", "weight", "weights") else operand
                tensor.name = self.names.take(f"{name}_{role}")
        for index, tensor in enumerate(outputs):
            if not tensor.name:
                tensor.name = self.names.take(f"{name}_out" + (f"_{index}" if index else ""))

    def tensor(self, source: FileTensor, name: str = "") -> Tensor:
        """The tensor of `source`, the same each time; it is named with the operation that defines it."""
        if id(source) not in self.tensors:
            self.tensors[id(source)] = make_tensor(source, name)
        return self.tensors[id(source)]


def read_operator(operator: FileOperator, inputs: list[Tensor | None], outputs: list[Tensor]) -> Lowered:
    """The operation of `operator`'s own kind."""
    op = OPS[operator.kind]
    operands, attributes = op.from_tflite(operator.options, inputs, outputs)
    if len(outputs) != len(op.results):
        raise ModelError(f"it has {len(outputs)} outputs, expected {len(op.results)}")
    return Lowered(operator.kind, operands, dict(zip(op.results, outputs, strict=True)), attributes)


def make_tensor(source: FileTensor, name: str) -> Tensor:
    """A tensor of `source`'s values and quantisation; ModelError for types and scales that don't suit."""
    if source.type not in _DTYPES:
        raise ModelError(f"tensor {source.label} is {source.type}, supported are {', '.join(_DTYPES)}", _QUANTIZE_HINT)
    dtype = _DTYPES[source.type]
    zero_points = set(source.zero_point.tolist()) or {0}
    scale = source.scale if source.scale.size and dtype != "float32" else None
    if dtype == "int8" and scale is None:
        raise ModelError(f"tensor {source.label} is int8 but has no scale", _QUANTIZE_HINT)
    if scale is not None and not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ModelError(f"tensor {source.label} has a scale that is not positive and finite", "export the model again")
    if (
        len(zero_points) > 1
        or not -128 <= min(zero_points) <= 127
        or (scale is not None and scale.size > 1 and zero_points != {0})
    ):
        raise ModelError(
            f"tensor {source.label} has the zero points {sorted(zero_points)}, supported is one, 0 per channel"
        )
    purpose = Purpose.ACTIVATION if source.raw is None else Purpose.FROZEN_WEIGHT
    tensor = Tensor(name, source.shape, dtype, purpose, scale, zero_points.pop(), source=source.index)
    if source.raw is not None:
        if len(source.raw) != tensor.nbytes:
            raise ModelError(
                f"tensor {source.label} {source.shape} {dtype} holds {len(source.raw)} B", "export it again"
            )
        tensor.data = np.frombuffer(source.raw, np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(source.shape)
    return tensor


def check_per_channel(operator: FileOperator, where: str) -> None:
    """Raise ModelError unless per-channel scales run along the output channels of a weight or bias."""
    for position, tensor in enumerate([*operator.inputs, *operator.outputs]):
        if tensor is None or tensor.scale.size <= 1:
            continue
        positions = (1, 3) if operator.kind == "TRANSPOSE_CONV" else (1, 2)  # of the weights and the bias
        is_weight = operator.kind in _WEIGHTED and position in positions and position < len(operator.inputs)
        axis = 3 if operator.kind == "DEPTHWISE_CONV_2D" and position == 1 else 0
        if not is_weight or tensor.quantized_dimension != axis or tensor.shape[axis] != tensor.scale.size:
            raise ModelError(
                f"{where}: tensor {tensor.label} {tensor.shape} has {tensor.scale.size} scales along axis "
                f"{tensor.quantized_dimension}, supported is one, or one an output channel of weights"
            )


def refuse_other_numbers(operator: FileOperator, where: str, mixed: bool) -> None:
    """Raise ModelError unless `operator` computes in int8; QUANTIZE and DEQUANTIZE may have float32 on one side.

    `mixed` says that some operator of the model does have int8 activations.
    """
    activations = [t for t in [*operator.inputs, *operator.outputs] if t is not None and t.raw is None]
    constants = {t.type for t in operator.inputs if t is not None and t.raw is not None}
    types = {t.type for t in activations}
    needs = "tinypeft needs full int8 quantisation"
    if "UINT8" in types:
        raise ModelError(f"{where}: the model has the old uint8 quantisation; {needs}", _QUANTIZE_HINT)
    if "INT16" in types:
        raise ModelError(f"{where}: the model has 16-bit activations; {needs}", _QUANTIZE_HINT)
    at_edge = operator.kind in _EDGES and "INT8" in types
    if types & {"FLOAT32", "FLOAT16"} and not at_edge:
        if "INT8" in constants:
            raise ModelError(
                f"{where}: the model is hybrid, int8 weights but float activations; {needs}", _QUANTIZE_HINT
            )
        if mixed:
            raise ModelError(f"{where} computes in float inside an int8 model; {needs}", _QUANTIZE_HINT)
        raise ModelError(f"this is a float model ({where}); {needs}", _QUANTIZE_HINT)
    if others := types - {"INT8", "FLOAT32"}:
        raise ModelError(f"{where}: {', '.join(sorted(others))} activations are not supported", _QUANTIZE_HINT)

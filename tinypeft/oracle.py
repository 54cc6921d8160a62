"""LiteRT's reference kernels as the oracle: a .tflite and samples in, every operator's output or the accuracy out."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tinypeft.errors import DataError, ModelError

#: Operator -> the newest version that BUILTIN_REF has registered, where the converter writes a newer one for int8 and
#: the kernel is the same.
_VERSIONS = {schema.BuiltinOperator.TILE: 2}
_VERSION_FIELD = 8  # of the flatbuffer's table OperatorCode


class LiteRtOracle:
    """Runs a .tflite with `OpResolverType.BUILTIN_REF`, one sample at a time, keeping every tensor."""

    def __init__(self, tflite: bytes):
        try:
            self._interpreter: Any = Interpreter(
                model_content=_with_known_versions(tflite),
                experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
                experimental_preserve_all_tensors=True,
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            if (missing := re.search(r"Didn't find op for builtin opcode '(\w+)'", str(error))) is not None:
                raise ModelError(
                    f"LiteRT's reference kernels lack {missing[1]}, so that there is nothing to compare with",
                    "use another activation, or go without the test: `run` and `train` do not need it",
                ) from error
            raise ModelError(f"LiteRT cannot run the model: {error}", "export the model again") from error
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]
        details = self._interpreter._get_ops_details()
        self._computed = [int(tensor) for op in details for tensor in op["outputs"]]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of the input, batch 1 included."""
        return tuple(int(extent) for extent in self._input["shape"])

    def run(self, sample: np.ndarray) -> np.ndarray:
        """The model's output (1, ...) for one sample, with or without the batch axis, of the input's dtype."""
        if sample.dtype != self._input["dtype"] or sample.size != np.prod(self.input_shape):
            raise DataError(
                f"the sample is {sample.shape} {sample.dtype}, the model takes {self.input_shape} "
                f"{np.dtype(self._input['dtype'])}"
            )
        self._interpreter.set_tensor(self._input["index"], sample.reshape(self.input_shape))
        self._interpreter.invoke()
        return self._tensor(self._output["index"])

    def layers(self, sample: np.ndarray) -> dict[int, np.ndarray]:
        """Every output of every operator for one sample, by its tensor's index in the file, in the file's order."""
        self.run(sample)
        return {index: self._tensor(index) for index in self._computed}

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """The model's outputs (N, ...) for samples (N, ...)."""
        return np.concatenate([self.run(sample) for sample in x])

    def accuracy(self, x: np.ndarray, y: np.ndarray) -> float:
        """The share of samples (N, ...) whose largest output is their label; the first of equals counts."""
        outputs = self.outputs(x).reshape(len(x), -1)
        return float(np.mean(outputs.argmax(axis=1) == y))

    def _tensor(self, index: int) -> np.ndarray:
        return np.array(self._interpreter.get_tensor(index))


def _with_known_versions(tflite: bytes) -> bytes:
    """The file with operator versions that BUILTIN_REF finds."""
    data = bytearray(tflite)
    model = schema.Model.GetRootAsModel(data, 0)
    for i in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(i)
        newest = _VERSIONS.get(code.BuiltinCode())
        if newest is not None and code.Version() > newest:
            place = code._tab.Pos + code._tab.Offset(_VERSION_FIELD)
            data[place : place + 4] = newest.to_bytes(4, "little")
    return bytes(data)

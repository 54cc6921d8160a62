"""A compiled model that the interpreter runs, behind the methods of a Device: no compiler is needed, the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinypeft.adapter_state import adapter_from_package
from tinypeft.arithmetic import MASTER_LIMIT
from tinypeft.compiler import CompiledModel, seed_argument
from tinypeft.device.protocol import Run, Stats
from tinypeft.errors import DeviceError
from tinypeft.interpreter import run_graph, value_bytes
from tinypeft.ir import DTYPES, Graph, Purpose, Tensor
from tinypeft.ops.loss import ONE_Q16
from tinypeft.state import pack_adapter, pack_tensors, unpack_tensors

#: what --on and `on=` call it
INTERPRETER = "interpreter"


class InterpretedDevice:
    """Starts with a fresh adapter of seed 0, as firmware does."""

    def __init__(self, model: CompiledModel):
        self._model = model
        self._state = model.fresh_state(0)
        self._logits = b""
        self._samples = 0
        self._latents: dict[int, dict[str, Any]] = {}

    def infer(self, data: bytes) -> Run:
        """Infer one sample, the bytes of the input; `output` holds the output's bytes."""
        graph = self._model.inference
        values = run_graph(graph, {graph.inputs[0].name: _tensor(graph.inputs[0], data)}, self._state)
        self._logits = value_bytes(values[1])[0] if self._model.logits is not None else b""
        return Run(output=value_bytes(values[0])[0])

    def train_step(self, data: bytes, target: int | bytes | None, learning_rate: float) -> Run:
        """One training step; `target` as `Device.train_step` takes it, `loss` of before the update."""
        graph = self._required(self._model.training, "a training step")
        return self._step(graph, self._arguments(graph, data, target), learning_rate)

    def encode(self, data: bytes, sample: int) -> Run:
        """Keep the latents of `data` as those of `sample`, as `Device.encode` does; there is room for any number."""
        latent = self._model.latent
        if latent is None:
            raise self._no_latents()
        values = run_graph(latent.encode, {latent.encode.inputs[0].name: _tensor(latent.encode.inputs[0], data)}, {})
        self._latents[sample] = {t.name: value for t, value in zip(latent.latents, values, strict=True)}
        return Run(latent_bytes=latent.nbytes)

    def train_latents(self, sample: int, target: int | bytes | None, learning_rate: float) -> Run:
        """The same step as `train_step`, from what was encoded as `sample`."""
        if self._model.latent is None:
            raise self._no_latents()
        if sample not in self._latents:
            raise DeviceError(f"no latents are kept of sample {sample}", "encode it first")
        arguments = self._latents[sample] | self._target(target)
        return self._step(self._model.latent.training, arguments, learning_rate)

    def _step(self, graph: Graph, arguments: dict[str, Any], learning_rate: float) -> Run:
        loss = run_graph(graph, arguments | {"learning_rate": np.float32(learning_rate)}, self._state)[0]
        self._samples += 1
        return Run(loss=float(np.float32(loss.reshape(-1)[0]) / np.float32(ONE_Q16)), masters_sane=self._sane())

    def evaluate(self, data: bytes, target: int | bytes | None) -> Run:
        """Loss, Q16.16, and number of right decisions of one sample, as `Device.evaluate` gives them."""
        graph = self._required(self._model.evaluate, "an evaluation")
        loss, *right = run_graph(graph, self._arguments(graph, data, target), self._state)
        return Run(evaluated=(int(loss[0]), int(right[0][0]) if right else 0))

    def _arguments(self, graph: Graph, data: bytes, target: int | bytes | None) -> dict[str, Any]:
        return {graph.inputs[0].name: _tensor(graph.inputs[0], data), **self._target(target)}

    def _target(self, target: int | bytes | None) -> dict[str, Any]:
        given = self._model.target
        if given is None:
            return {}
        value = _tensor(given, target) if isinstance(target, bytes) else np.array(target, np.int32)
        return {given.name: value.reshape(given.shape)}

    def _sane(self) -> bool:
        masters = [self._state[t.name] for t in self._model.training_state if t.purpose is Purpose.MASTER]
        return all(bool((np.abs(master) < MASTER_LIMIT).all()) for master in masters)

    def write(self, target: str, data: bytes) -> None:
        """Replace "adapter" or "training" by these bytes."""
        objects = {"adapter": self._model.adapter_weights, "training": self._model.training_state}
        if target not in objects:
            raise DeviceError(f"the interpreter has no object {target!r} to write; it has {', '.join(objects)}")
        self._state |= unpack_tensors(objects[target], data)
        self._samples = 0

    def update(self, learning_rate: float) -> Run:
        """Apply the gradients summed since the last update."""
        graph = self._required(self._model.update, "an update")
        arguments = {"learning_rate": np.float32(learning_rate), "count": np.int32(self._samples)}
        run_graph(graph, arguments, self._state)
        self._samples = 0
        return Run(masters_sane=self._sane())

    def reset_adapter(self, seed: int) -> Run:
        """A fresh adapter, initialised from `seed`."""
        self._state, self._samples = {}, 0
        run_graph(self._required(self._model.reset, "a fresh adapter"), seed_argument(seed), self._state)
        return Run()

    def load_adapter(self, package: bytes) -> None:
        """Take over a package; AdapterError for a damaged one, or one of another model."""
        self._state, self._samples = dict(adapter_from_package(self._model, package).state), 0

    def export_adapter(self) -> bytes:
        """The adapter package."""
        return pack_adapter(self._model, self._state)

    def read(self, target: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of "logits", "adapter" or "training"."""
        objects = {
            "logits": lambda: self._logits,
            "adapter": lambda: pack_tensors(self._model.adapter_weights, self._state),
            "training": lambda: pack_tensors(self._model.training_state, self._state),
        }
        if target not in objects:
            raise DeviceError(f"the interpreter has no object {target!r}; it has {', '.join(objects)}")
        data = objects[target]()
        return data[offset:] if length is None else data[offset : offset + length]

    def instructions(self) -> int | None:
        """None: there are none to count."""
        return None

    def stats(self) -> Stats:
        """No stack, and nothing around the arena that could be overwritten."""
        return Stats(0, 0, True)

    def _no_latents(self) -> DeviceError:
        return DeviceError(f"{self._model.name} keeps no latents of a sample", "attach adapters with latents=True")

    def _required(self, graph: Graph | None, what: str) -> Graph:
        if graph is None:
            raise DeviceError(f"{self._model.name} was generated without {what}")
        return graph


def _tensor(tensor: Tensor, data: bytes) -> np.ndarray:
    dtype = np.dtype(DTYPES[tensor.dtype])
    if len(data) != tensor.nbytes:
        raise DeviceError(f"{tensor.name} has {len(data)} bytes, {tensor.nbytes} are needed")
    return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype).reshape(tensor.shape)

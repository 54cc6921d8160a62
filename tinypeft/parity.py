"""Parity: interpreter, LiteRT and a device compared to the bit, at every operation and every training step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinypeft.adapter_state import adapter_from_package
from tinypeft.adapters.lora_options import starts_from_factors
from tinypeft.compiler import CompiledModel, seed_argument
from tinypeft.data import Dataset
from tinypeft.device import Device, Dump, Run, trace_crc32
from tinypeft.errors import DeviceError
from tinypeft.interpreter import run_graph
from tinypeft.ir import DTYPES, Graph, Operation, Tensor
from tinypeft.losses import target_argument, target_on_device
from tinypeft.ops.base import BlockFloat, Value
from tinypeft.oracle import LiteRtOracle
from tinypeft.state import pack_tensors, unpack_tensors

#: What the arena is filled with
_STALE = b"\x5a"

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Divergence:
    """The first value that differs: where it was computed, its flat index, both values and whose they are."""

    phase: str
    step: int
    operator: str
    operation: str
    tensor: str
    index: int
    expected: float
    actual: float
    between: str


@dataclass(frozen=True)
class ParityReport:
    """`layers_compared` counts outputs of operations over all samples and steps, each on every side compared."""

    parity: bool
    layers_compared: int
    steps_compared: int
    first_divergence: Divergence | None


class _Diverged(Exception):
    """Carries the first divergence out of the comparison."""

    def __init__(self, divergence: Divergence):
        super().__init__(divergence)
        self.divergence = divergence


def check_parity(
    model: CompiledModel,
    tflite: bytes,
    device: Device,
    device_name: str,
    dataset: Dataset,
    *,
    train_steps: int = 0,
    learning_rate: float = 0.02,
    seed: int = 0,
    adapter: bytes | None = None,
    progress: Progress = lambda phase, done, total: None,
) -> ParityReport:
    """Compare an adapter's inference on every sample, then `train_steps` training steps from there.

    The adapter is a fresh one of `seed`, or the package `adapter`. Inference: the interpreter, the device, and for a
    fresh adapter, which does what the base does, LiteRT's reference kernels. Training: interpreter and device, every
    output of every operation, of an evaluation in front of each step too, and all of the adapter and training state
    behind it; it needs `dataset.y` where the loss compares with a label or a vector. A model with latents takes each
    step twice: from the input, and then from what encoding it gives.
    """
    comparison = _Comparison(model, device, device_name)
    steps = 0
    try:
        comparison.reset(seed)
        if adapter is not None:
            comparison.load(adapter)
        oracle = LiteRtOracle(tflite) if adapter is None else None
        for number, sample in enumerate(dataset.x):
            comparison.inference(number, sample, oracle)
            progress("inference", number + 1, len(dataset.x))
        for step in range(train_steps):
            chosen = step % len(dataset.x)
            target = None if dataset.y is None else dataset.y[chosen]
            comparison.training_step(step, dataset.x[chosen], target, learning_rate)
            steps += 1
            progress("training", steps, train_steps)
    except _Diverged as diverged:
        return ParityReport(False, comparison.layers, steps, diverged.divergence)
    return ParityReport(True, comparison.layers, steps, None)


class _Comparison:
    """The interpreter's state beside the device's."""

    def __init__(self, model: CompiledModel, device: Device, device_name: str):
        self.model, self.device, self.device_name = model, device, device_name
        self.state: dict[str, np.ndarray] = {}
        self.layers = 0
        self.samples = 0

    def reset(self, seed: int) -> None:
        """A fresh adapter on both sides."""
        if self.model.reset is not None:
            self._both(
                self.model.reset, "reset", 0, seed_argument(seed), lambda **o: self.device.reset_adapter(seed, **o)
            )
            self._compare_state("reset", 0)

    def load(self, package: bytes) -> None:
        """An adapter on both sides."""
        self.state = dict(adapter_from_package(self.model, package).state)
        self.device.load_adapter(package)
        self._compare_state("load", 0)

    def inference(self, number: int, sample: np.ndarray, oracle: LiteRtOracle | None) -> None:
        """One sample through LiteRT, where its `oracle` is given, the interpreter and the device."""
        graph = self.model.inference
        data = np.ascontiguousarray(sample).tobytes()
        expected = self._both(
            graph, "inference", number, {graph.inputs[0].name: sample}, lambda **o: self.device.infer(data, **o)
        )
        tensors = [tensor for op in self.model.base.operations for tensor in op.outputs.values()]
        same = {id(_whole(tensor)) for _, tensor, _ in expected}.issuperset(
            map(id, tensors)
        )  # not with another set of classes
        if not same or starts_from_factors(self.model.adapter):  # then the base is compared by itself
            expected = []
            run_graph(
                self.model.base,
                {graph.inputs[0].name: sample},
                {},
                lambda op, _, tensor, value: expected.append((op, tensor, value)),
            )
        values = {id(_whole(tensor)): (op, tensor, value) for op, tensor, value in expected}
        references = oracle.layers(sample) if oracle is not None else {}
        for base_op in self.model.base.operations:
            for tensor in base_op.outputs.values():
                if tensor.source in references:
                    op, computed, value = values[id(tensor)]
                    reference = references[tensor.source].reshape(tensor.shape)
                    if computed.narrowed is not None:
                        value = computed.narrowed.widened(value, reference)
                    self._compare("inference", number, op, tensor, reference, value, "LiteRT and interpreter")
                    self.layers += 1

    def training_step(self, step: int, sample: np.ndarray, y: Any, learning_rate: float) -> None:
        """An evaluation against `y`, a label or vector, and a step towards it, with latents another one from those."""
        graph = self.model.training
        assert graph is not None
        rate = np.float32(learning_rate)
        source = {graph.inputs[0].name: sample}
        given = {**target_argument(self.model.target, y), "learning_rate": rate}
        data, target = np.ascontiguousarray(sample).tobytes(), target_on_device(self.model.target, y)
        if self.model.evaluate is not None:
            self._both(
                self.model.evaluate,
                "evaluation",
                step,
                source | given,
                lambda **o: self.device.evaluate(data, target, **o),
            )

        def train(**options: Any) -> Run:
            return self.device.train_step(data, target, float(rate), **options)

        self._step(graph, "training", step, source | given, train)
        if self.model.latent is None:
            return
        values = self._encode(step, source, data)

        def train_latents(**options: Any) -> Run:
            self.device.write("staging", _STALE * self.device.info().arena_bytes)  # the encoding left them there
            return self.device.train_latents(0, target, float(rate), **options)

        self._step(self.model.latent.training, "training from latents", step, values | given, train_latents)

    def _encode(self, step: int, source: dict[str, Value], data: bytes) -> dict[str, Value]:
        """Encode a sample on both sides; its latents by name, which are those that the device keeps."""
        latent = self.model.latent
        assert latent is not None
        outputs = self._both(latent.encode, "encoding", step, source, lambda **o: self.device.encode(data, 0, **o))
        computed = {id(tensor): value for _, tensor, value in outputs}
        kept = unpack_tensors(latent.latents, self.device.read("latents", 0, latent.nbytes))
        values: dict[str, Value] = {}
        for tensor in latent.latents:
            values[tensor.name] = computed.get(id(tensor), source.get(tensor.name))
            between = f"interpreter and {self.device_name}"
            self._compare("latents", step, None, tensor, values[tensor.name], kept[tensor.name], between)
        return values

    def _step(
        self, graph: Graph, phase: str, step: int, arguments: dict[str, Value], train: Callable[..., Run]
    ) -> None:
        """One step of training, the update of a complete batch, and all state."""
        rate, update = arguments["learning_rate"], self.model.update
        self._both(graph, phase, step, arguments, train)
        self.samples += 1
        if update is not None and self.samples == self.model.training_config.batch_size:
            count = {"learning_rate": rate, "count": np.int32(self.samples)}

            def update_again(**options: Any) -> Run:
                """The update, behind as many samples as the device has forgotten; they leave the state as it is."""
                state = {place: self.device.read(place) for place in ("adapter", "training")}
                for _ in range(self.samples):
                    train()
                for place, values in state.items():
                    self.device.write(place, values)
                return self.device.update(float(rate), **options)

            self._both(update, "update", step, count, lambda **o: self.device.update(float(rate), **o), update_again)
            self.samples = 0
        self._compare_state(phase, step)

    def _both(
        self,
        graph: Graph,
        phase: str,
        step: int,
        arguments: dict[str, Value],
        run: Callable[..., Run],
        run_again: Callable[..., Run] | None = None,
    ) -> list[tuple[Operation, Tensor, Value]]:
        """Run `graph` on both sides and compare every output; what the interpreter computed.

        `run_again`, where it is not `run`, repeats it from the same state to fetch a value that differs.
        """
        before = dict(self.state)
        expected: list[tuple[Operation, Tensor, Value]] = []
        run_graph(graph, arguments, self.state, lambda op, _, tensor, value: expected.append((op, tensor, value)))
        records = run(trace=True).trace
        if [r.size for r in records] != [t.nbytes for _, t, _ in expected]:
            raise DeviceError(
                f"the device traced {len(records)} outputs of {phase}, the model has {len(expected)}",
                "build the project again: tinypeft build",
            )
        for record, (op, tensor, value) in zip(records, expected, strict=True):
            if record.crc32 != _crc(value):
                self._restore(before, phase)
                dump = (run_again or run)(dump=record.index).dump
                assert dump is not None
                actual = _dumped(tensor, dump)
                self._compare(phase, step, op, tensor, value, actual, f"interpreter and {self.device_name}")
                raise DeviceError(f"{op.name} differed on the device, but not when run again", "run the test again")
        self.layers += len(expected)
        return expected

    def _restore(self, state: dict[str, np.ndarray], phase: str) -> None:
        """Put the device back to where the last step began."""
        if state and phase != "reset":
            self.device.write("adapter", pack_tensors(self.model.adapter_weights, state))
            self.device.write("training", pack_tensors(self.model.training_state, state))

    def _compare_state(self, phase: str, step: int) -> None:
        for target, tensors in (("adapter", self.model.adapter_weights), ("training", self.model.training_state)):
            size = sum(t.nbytes for t in tensors)
            found = self.device.read(target, 0, size)
            if found == pack_tensors(tensors, self.state):
                continue
            actual = unpack_tensors(tensors, found)
            for tensor in tensors:
                between = f"interpreter and {self.device_name}"
                self._compare(phase, step, None, tensor, self.state[tensor.name], actual[tensor.name], between)

    @staticmethod
    def _compare(
        phase: str, step: int, op: Operation | None, tensor: Tensor, expected: Value, actual: Value, between: str
    ) -> None:
        first, second = _real(expected), _real(actual)
        names = (op.kind, op.name) if op is not None else ("state", "state")
        differing = np.flatnonzero(_bits(first) != _bits(second))
        if len(differing):
            index = int(differing[0])
            values = float(first.reshape(-1)[index]), float(second.reshape(-1)[index])
            raise _Diverged(Divergence(phase, step, *names, tensor.name, index, *values, between))
        if isinstance(expected, BlockFloat) and expected.exponent != actual.exponent:  # of the same real values
            exponents = float(expected.exponent), float(actual.exponent)
            raise _Diverged(Divergence(phase, step, *names, f"{tensor.name}.exponent", 0, *exponents, between))


def _whole(tensor: Tensor) -> Tensor:
    """The base's tensor of which `tensor` may hold some channels only."""
    return tensor if tensor.narrowed is None else tensor.narrowed.whole


def _crc(value: Value) -> int:
    if isinstance(value, BlockFloat):
        return trace_crc32(value.mantissa, value.exponent)
    return trace_crc32(value)


def _dumped(tensor: Tensor, dump: Dump) -> Value:
    dtype: Any = np.dtype(DTYPES[tensor.dtype]).newbyteorder("<")
    array: np.ndarray = np.frombuffer(dump.data, dtype).astype(DTYPES[tensor.dtype])
    if tensor.block_float:
        return BlockFloat(array.reshape(tensor.shape), dump.exponent)
    return array if tensor.packed else array.reshape(tensor.shape)


def _real(value: Value) -> np.ndarray:
    """A value as an array; block floating point as the real values, which differ where mantissas or exponent do."""
    return value.to_float() if isinstance(value, BlockFloat) else np.asarray(value)


def _bits(array: np.ndarray) -> np.ndarray:
    """The array's bits, so that -0.0 differs from 0.0 and NaN equals itself."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.dtype(f"u{flat.dtype.itemsize}"))

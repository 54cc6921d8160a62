"""One model compared to the bit: LiteRT, interpreter, host twin and, for some, firmware under QEMU."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from random_values import random_int8
from twins import BOARD, STACK, Toolbox

from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.data import Dataset
from tinypeft.device import Device
from tinypeft.errors import AdapterError, FitError, ModelError
from tinypeft.frontend import LoadedModel, load_tflite
from tinypeft.frontend.unsupported import UNSUPPORTED
from tinypeft.generate import compile_for, sources_for
from tinypeft.ir import Graph
from tinypeft.ops.weighted import accumulator_bound, multipliers
from tinypeft.oracle import LiteRtOracle
from tinypeft.parity import check_parity
from tinypeft.planner import ArenaRegion
from tinypeft.stages.autodiff import TrainingConfig
from tinypeft.stages.recompute import RamBudget

EQUAL, REFUSED, LITERT, FINDING = "equal", "refused", "litert", "finding"
SPREAD, BUDGET = "spread", "budget"
INFERENCE = AdapterConfig(adapter="none")
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")

#: Refusals that are limits in the table of operators or in README, as they stand in messages; those of operators that
#: are not supported at all have their reasons in `UNSUPPORTED`.
DOCUMENTED = (
    r"broadcasting .* needs \d+ nested loops",
    "must not be negative",
    "cannot be trained against labels",
    "leaves its 16-bit arithmetic",
    "has scale .*, too (small|large) for ",  # where LiteRT aborts, or shifts by too much
)


@dataclass(frozen=True)
class Case:
    """A model to compare on `samples` random inputs, then in `steps` training steps; `seed` draws inputs and adapter.

    `memory`: SPREAD has the arena lie in two RAMs, BUDGET has training run operations again to save memory.
    """

    source: str
    tflite: bytes
    seed: int
    samples: int = 3
    steps: int = 0
    adapter: AdapterConfig = INFERENCE
    training: TrainingConfig = field(default_factory=TrainingConfig)
    keras_layers: dict[str, str] = field(default_factory=dict, hash=False)
    memory: str = ""
    emulate: bool = False


@dataclass
class Result:
    """What comparing a case gave; a `reason` where it is no EQUAL, a `divergence` where values differ."""

    outcome: str
    reason: str = ""
    divergence: dict[str, Any] | None = None
    operators: Counter[str] = field(default_factory=Counter)
    outputs: int = 0
    bytes: int = 0
    steps: int = 0
    emulated: int = 0
    spread: int = 0
    recomputed: int = 0

    @property
    def signature(self) -> str:
        """The same for findings of the same kind."""
        where = self.divergence["operator"] if self.divergence else without_names(self.reason)
        return f"{self.outcome} {where}"


def without_names(message: str) -> str:
    """A message without what differs from model to model: names, numbers, shapes."""
    message = re.sub(r"\(layer [^)]*\)|layers? [^:,;]*(\([A-Za-z0-9]*\))?(?=[:,;])", "layer", message.splitlines()[0])
    message = re.sub(r"tensor [^ ]+", "tensor", message)
    message = re.sub(r"[-+]?\d[\d.,e+-]*", "#", message)
    return re.sub(r"[(\[][#, ]+[)\]]", "#", message)


def compare(case: Case, toolbox: Toolbox, stage: Callable[[str], None]) -> Result:
    """Compare `case`; `stage` is told what is about to run, so that a crash can be laid to it."""
    try:
        stage("reading")
        source = load_tflite("fuzz", case.tflite, case.keras_layers)
        if _undefined_in_litert(source.graph):
            return Result(LITERT, "a sum that overflows when it is shifted to the left: undefined in LiteRT")
        stage("LiteRT")
        dataset = draw_samples(source.graph, case)
        if (problem := _litert_problem(case.tflite, dataset)) is not None:
            return Result(LITERT, problem)
        stage("compiling")
        model = compile_case(case, source)
    except (AdapterError, ModelError) as error:
        stage("LiteRT")  # where that stops as well, there is nothing to support
        if (problem := _litert_problem(case.tflite, None)) is not None:
            return Result(LITERT, problem)
        documented = any(re.search(part, error.message) for part in DOCUMENTED) or any(
            reason.rstrip(".") in error.message for reason in UNSUPPORTED.values()
        )
        return Result(REFUSED if documented else FINDING, f"refused: {error.message}")
    except Exception:
        return Result(FINDING, f"tinypeft failed: {_last_lines(traceback.format_exc())}")
    try:
        return _on_devices(case, source, model, dataset, toolbox, stage)
    except Exception:
        return Result(FINDING, f"comparing failed: {_last_lines(traceback.format_exc())}")


def compile_case(case: Case, source: LoadedModel) -> CompiledModel:
    """The model as the case wants its memory; in one RAM, without a budget, where it cannot be had otherwise."""
    model = compile_for(source, BOARD, case.adapter, case.training, STACK)
    settings = (source.name, source.fingerprint, source.graph, case.adapter, case.training)
    if case.memory == SPREAD:
        half = ArenaRegion("ram", max(8, int(model.arena.arena_bytes * 0.6) // 8 * 8))
        return compile_model(*settings, (half, ArenaRegion("psram")))
    if case.memory == BUDGET:
        arena = model.arena.arena_bytes
        for percent in (70, 85, 97):
            with contextlib.suppress(FitError):
                state = model.adapter_bytes + model.training_bytes
                return compile_model(*settings, budget=RamBudget(state + arena * percent // 100))
    return model


def _on_devices(
    case: Case,
    source: LoadedModel,
    model: CompiledModel,
    dataset: Dataset,
    toolbox: Toolbox,
    stage: Callable[[str], None],
) -> Result:
    sources = sources_for(model, BOARD)
    recomputed = len(model.recomputed.again) if model.recomputed else 0
    result = Result(EQUAL, spread=int(len(model.arena.parts) > 1), recomputed=recomputed)
    opened: list[tuple[str, Any]] = [("host", lambda: toolbox.twin(sources))]
    if case.emulate:
        opened.append(("qemu", lambda: toolbox.emulated(sources)))
    for name, open_device in opened:
        stage(f"building for {name}")
        with open_device() as device:
            stage(f"running on {name}")
            divergence = _parity(case, source, model, dataset, device, name, result)
        if divergence is not None:
            text = "{between} differ at {operator} {operation}, tensor {tensor}[{index}]: {expected:g}, {actual:g}"
            result.outcome, result.divergence = FINDING, divergence
            result.reason = text.format(**divergence)
            return result
        result.emulated += name == "qemu"
    return result


def _parity(
    case: Case, source: LoadedModel, model: CompiledModel, dataset: Dataset, device: Device, name: str, result: Result
) -> dict[str, Any] | None:
    steps = case.steps if model.training is not None else 0
    report = check_parity(
        model, source.tflite, device, name, dataset, train_steps=steps, learning_rate=0.01, seed=case.seed & 0xFFFF
    )
    if report.first_divergence is not None:
        return asdict(report.first_divergence)
    if not device.stats().guards_intact:
        raise AssertionError(f"a guard word was overwritten on {name}")
    for graph, runs in [(model.inference, len(dataset.x)), (model.training, steps)]:
        for op in graph.operations if graph is not None else []:
            result.operators[op.kind] += 1
            sides = 2 if graph is model.inference and op.output.source >= 0 else 1
            result.bytes += runs * sides * sum(t.nbytes for t in op.outputs.values())
    result.outputs += report.layers_compared
    result.steps += report.steps_compared
    return None


def draw_samples(graph: Graph, case: Case) -> Dataset:
    """Random inputs, the extremes more often than others; labels where they can be used."""
    rng, tensor = np.random.default_rng(case.seed), graph.inputs[0]
    if tensor.dtype == "float32":
        reader = next((op for op in graph.operations if any(t is tensor for t in op.inputs.values())), None)
        scale = reader.output.scale[0] if reader is not None and reader.output.scale is not None else 1.0
        steps = rng.uniform(-300, 300, (case.samples, *tensor.shape))
        steps = np.where(rng.random(steps.shape) < 0.3, np.floor(steps) + 0.5, steps)
        x = (steps * scale).astype(np.float32)
    else:
        x = np.stack([random_int8(rng, tensor.shape) for _ in range(case.samples)])
        x[0] = rng.integers(-128, 128, tensor.shape)
    return Dataset(x, rng.integers(0, max(graph.outputs[0].shape[-1:], default=1), case.samples))


def _litert_problem(tflite: bytes, dataset: Dataset | None) -> str | None:
    """Why LiteRT does not run the file on these samples, or on zeros; None where it does."""
    try:
        oracle = LiteRtOracle(tflite)
        dtype = oracle._input["dtype"]
        for sample in [np.zeros(oracle.input_shape, dtype)] if dataset is None else dataset.x:
            oracle.run(sample)
    except ModelError as error:
        return error.message
    except RuntimeError as error:
        return f"LiteRT stops: {str(error).splitlines()[0]}"
    return None


def _undefined_in_litert(graph: Graph) -> bool:
    """Whether some layer's sums may leave int32 when shifted to the left, which LiteRT leaves open."""
    weighted = [op for op in graph.operations if op.kind in _WEIGHTED]
    return any(accumulator_bound(op) << max(int(multipliers(op)[1].max()), 0) >= 1 << 31 for op in weighted)


def _last_lines(text: str) -> str:
    """The exception first, then where it was raised."""
    lines = text.strip().splitlines()
    return f"{lines[-1][:300]} at {' '.join(line.strip() for line in lines[-3:-1])[:300]}"

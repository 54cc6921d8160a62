"""The choice of kernels: the core, what the user asks for, the arena, and reasons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from small_models import load

from tinypeft.adapters import AdapterConfig
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.errors import KernelError
from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.kernels import ARENA_GROWTH, BACKENDS, PORTABLE_KERNELS, Kernel, KernelConfig, Target, choose_kernels
from tinypeft.ops import OPS
from tinypeft.ops.base import KernelCall
from tinypeft.training import TrainingConfig

MODELS = ("plain", "residual", "softmax_end")


def compiled(name: str, kernels: KernelConfig, core: str | None = "cortex-m4", adapter: str = "none") -> CompiledModel:
    source = load(name)
    target = None if core is None else Target(core)
    config = AdapterConfig(adapter)
    return compile_model(name, b"", source.graph, config, TrainingConfig(), kernels=kernels, target=target)


def backends(model: CompiledModel) -> set[str]:
    return {choice.kernel.backend if choice.kernel is not None else "portable" for choice in model.kernels.values()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("core", "backend"), [("cortex-m4", "dsp"), ("cortex-m7", "dsp"), ("cortex-m55", "mve")])
def test_the_core_decides(name: str, core: str, backend: str) -> None:
    assert backend in backends(compiled(name, KernelConfig(), core)) <= {backend, "portable"}


@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m0plus", "cortex-m3"])
def test_cores_without_a_backend_are_told_so(core: str) -> None:
    model = compiled("plain", KernelConfig(), core)
    assert backends(model) == {"portable"}
    assert all(f"dsp is not for {core}" in choice.reason for choice in model.kernels.values())


@pytest.mark.parametrize("name", MODELS)
def test_without_a_target_or_wish_nothing_is_chosen(name: str) -> None:
    assert not compiled(name, KernelConfig(), None).kernels
    assert backends(compiled(name, PORTABLE_KERNELS)) == {"portable"}


@pytest.mark.parametrize("optimize", ARENA_GROWTH)
@pytest.mark.parametrize("adapter", ["none", "lora"])
@pytest.mark.parametrize("name", MODELS)
def test_the_arena_of_inference_grows_within_its_limit(name: str, adapter: str, optimize: str) -> None:
    portable = compiled(name, PORTABLE_KERNELS, adapter=adapter)
    model = compiled(name, KernelConfig(optimize=optimize), adapter=adapter)
    limit = portable.arena.plans["inference"].lower_bound * ARENA_GROWTH[optimize]
    assert model.arena.plans["inference"].lower_bound <= limit


def test_speed_costs_no_more_cycles_and_size_no_more_bytes() -> None:
    """Of the operations that all three give to a backend."""
    cycles, nbytes = {}, {}
    for optimize in ARENA_GROWTH:
        kernels = {name: c.kernel for name, c in compiled("plain", KernelConfig(optimize=optimize)).kernels.items()}
        cycles[optimize] = {name: k.cycles for name, k in kernels.items() if k is not None}
        nbytes[optimize] = {name: k.code_bytes + k.table_bytes for name, k in kernels.items() if k is not None}
    common = set.intersection(*(set(each) for each in cycles.values()))
    assert common
    for name in common:
        assert cycles["speed"][name] <= cycles["balanced"][name] and nbytes["size"][name] <= nbytes["balanced"][name]


@pytest.mark.parametrize("taken", [False, True])
def test_a_table_counts_less_where_it_stands_for_an_operand_that_no_other_call_takes(
    taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    filters = Tensor("filter", (10, 10), "int8", Purpose.FROZEN_WEIGHT, data=np.zeros((10, 10), np.int8))
    x, y, z = (Tensor(name, (1, 10), "int8", Purpose.ACTIVATION) for name in "xyz")
    operations = [
        Operation(OPS["MAXIMUM"], "table", {"input1": x, "input2": filters}, {"output": y}),
        Operation(OPS["MAXIMUM"], "other", {"input1": y, "input2": filters}, {"output": z}),
    ]

    def kernel(form: str, argument: Tensor | None, **costs: Any) -> Kernel:
        return Kernel("dsp", form, KernelCall("f", "", {}, [argument]), (), code_bytes=100, in_order=True, **costs)

    plain = kernel("plain", filters, cycles=100)
    packed = kernel("packed", None, cycles=80, table_bytes=100, instead=filters)
    offered = {"table": [plain, packed], "other": [plain if taken else kernel("other", None)]}
    monkeypatch.setattr(BACKENDS["dsp"], "offers", lambda op, target: offered[op.name])
    chosen = choose_kernels([Graph("inference", [x], [z], operations)], Target("cortex-m4"), KernelConfig())
    assert chosen["table"].kernel == (plain if taken else packed)


def test_one_operation_may_be_given_to_another_backend() -> None:
    usual = compiled("plain", KernelConfig())
    name = next(name for name, choice in usual.kernels.items() if choice.kernel is not None)
    model = compiled("plain", KernelConfig(overrides=((name, "portable"),)))
    assert model.kernels[name].kernel is None and model.kernels[name].reason == "asked for"
    alone = compiled("plain", KernelConfig(("portable",), overrides=((name, "dsp"),)))
    assert {n for n, choice in alone.kernels.items() if choice.kernel is not None} == {name}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backends": ("dps",)}, "there is no kernel backend 'dps'"),
        ({"optimize": "fast"}, "there is no way to optimise 'fast'"),
        ({"overrides": (("conv", "dps"),)}, "there is no kernel backend 'dps'"),
        ({"overrides": (("nothing", "dsp"),)}, "there is no operation 'nothing'"),
        ({"backends": ("cmsis_nn",)}, "cmsis_nn needs a library, and no folder of it is given"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(KernelError) as error:
        compiled("plain", KernelConfig(**settings))
    assert message in error.value.message and error.value.hint


def test_an_override_that_its_backend_cannot_follow_is_refused() -> None:
    model = compiled("plain", KernelConfig(), "cortex-m3")
    name = next(iter(model.kernels))
    with pytest.raises(KernelError, match=rf"{name} cannot be computed by dsp: dsp is not for cortex-m3"):
        compiled("plain", KernelConfig(overrides=((name, "dsp"),)), "cortex-m3")


def test_backends_name_cores_and_headers() -> None:
    assert set(BACKENDS) == {"cmsis_nn", "dsp", "mve"}
    for backend in BACKENDS.values():
        assert backend.cores and backend.headers

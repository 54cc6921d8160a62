"""Weighted sums of adapters on the host: the formulas, PEFT's own sums where it is installed, what is refused."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
from click.testing import CliRunner
from projects import CONFIGURATIONS, save_model
from trained import TrainedModel, compiled

from tinypeft.adapter_combine import combine_adapters
from tinypeft.adapter_files import read_adapter, write_adapter
from tinypeft.adapter_state import Adapter, adapter_from_package
from tinypeft.adapters import AdapterConfig
from tinypeft.adapters.loftq import attach_factors
from tinypeft.boards import load_board
from tinypeft.cli import main
from tinypeft.compiler import CompiledModel, compile_model
from tinypeft.errors import AdapterError
from tinypeft.exchange.peft_files import read_peft
from tinypeft.exchange.peft_merge import merged_delta
from tinypeft.frontend import load_tflite
from tinypeft.generate import generate_project, open_project
from tinypeft.interpreter import run_graph
from tinypeft.losses import target_argument
from tinypeft.state import pack_adapter
from tinypeft.training import TrainingConfig

LAYERS = ("stem", "pointwise", "head")
#: kinds with a sum
SUMMED = {
    "lora": AdapterConfig(r=2),
    "lora_int4": AdapterConfig(r=2, options=(("lora_bits", 4),)),
    "lora+bitfit+ia3": AdapterConfig("lora+bitfit+ia3", r=2),
    "sparse": AdapterConfig("sparse", options=(("density", 0.3),)),
    "input_offset": AdapterConfig("input_offset"),
}


@functools.cache
def pair(name: str, rank: int = 2) -> tuple[TrainedModel, list[Adapter]]:
    """Two adapters of `plain` that started from other numbers and saw other samples."""
    config = SUMMED[name] if rank == 2 else AdapterConfig(r=rank, lora_alpha=4.0 * rank)
    made = compiled("plain", config)
    return made, [made.adapter, trained_from(made, 8)]


def trained_from(made: TrainedModel, seed: int) -> Adapter:
    model = made.model
    assert model.training is not None
    state, samples = model.fresh_state(seed), small_models.samples(made.source, 12, seed)
    assert samples.y is not None
    rate = np.float32(small_models.learning_rate("plain"))
    for x, y in zip(samples.x, samples.y, strict=True):
        arguments = {model.training.inputs[0].name: x, "learning_rate": rate} | target_argument(model.target, y)
        run_graph(model.training, arguments, state)
    return Adapter(pack_adapter(model, state), state)


def of_packages(model: CompiledModel, adapters: list[Adapter]) -> list[Adapter]:
    return [adapter_from_package(model, adapter.package) for adapter in adapters]


def delta(adapter: Adapter, layer: str) -> np.ndarray:
    """B A without the scaling, float64."""
    a = adapter.state[f"{layer}_lora_A_master"].astype(np.float64)
    return adapter.state[f"{layer}_lora_B_master"].astype(np.float64) @ a.reshape(len(a), -1)


@pytest.mark.parametrize("name", SUMMED)
def test_one_with_weight_1_is_itself(name: str) -> None:
    made, adapters = pair(name)
    (given,) = of_packages(made.model, adapters[:1])
    for method in ("linear", "cat"):
        assert combine_adapters(made.model, [given], [1.0], method).package == given.package


@pytest.mark.parametrize("name", SUMMED)
def test_all_but_lora_is_summed_as_its_difference(name: str) -> None:
    made, adapters = pair(name)
    fresh, weights = made.model.fresh_state(0), (0.75, -0.5)
    combined = combine_adapters(made.model, adapters, weights)
    summed = 0
    for parameter in made.model.parameters:
        master = parameter.master.name
        if "lora" in master:
            continue
        change = sum(w * (a.state[master] - fresh[master]) for w, a in zip(weights, adapters, strict=True))
        np.testing.assert_allclose(combined.state[master], fresh[master] + change, rtol=1e-5, atol=1e-6)
        summed += bool(np.abs(change).max() > 0)
    assert summed


@pytest.mark.parametrize("weights", [(0.7, 0.3), (1.5, -0.25), (-1.0, -2.0)])
def test_linear_sums_each_matrix(weights: tuple[float, float]) -> None:
    made, adapters = pair("lora")
    combined = combine_adapters(made.model, adapters, weights)
    for layer in LAYERS[:2]:
        for matrix in "AB":
            master = f"{layer}_lora_{matrix}_master"
            roots = [np.sqrt(abs(w)) * (np.sign(w) if matrix == "A" else 1) for w in weights]
            expected = sum(root * adapter.state[master] for root, adapter in zip(roots, adapters, strict=True))
            np.testing.assert_allclose(combined.state[master], expected, rtol=1e-5, atol=1e-6)


def test_cat_is_the_sum_of_what_each_adds() -> None:
    """Of adapters of rank 1 in a project of rank 3; the row that is left is zeros."""
    _, smaller = pair("lora", rank=1)
    model = pair("lora", rank=3)[0].model
    weights = (0.75, -0.5)
    given = of_packages(model, smaller)
    combined = combine_adapters(model, given, weights, "cat")
    for layer in LAYERS[:2]:
        expected = sum(w * delta(adapter, layer) for w, adapter in zip(weights, given, strict=True))
        np.testing.assert_allclose(delta(combined, layer), expected, rtol=1e-5, atol=1e-9)
        assert not combined.state[f"{layer}_lora_A_master"][2:].any()
        assert np.abs(expected).max() > 0
    again = combine_adapters(model, [combined, given[0]], (1.0, 1.0), "cat")
    np.testing.assert_array_equal(again.state["stem_lora_A_master"][2], given[0].state["stem_lora_A_master"][0])


def test_the_widest_range_of_logits_stays() -> None:
    made, adapters = pair("lora")
    states = [adapter.state | {"head_logit_range": limits} for adapter, limits in zip(
        adapters, (np.array([-9, 7 << 24], np.int32), np.array([-(1 << 20), 5], np.int32)), strict=True
    )]  # fmt: skip
    combined = combine_adapters(made.model, [Adapter(b"", state) for state in states], (0.5, 0.5))
    assert combined.state["head_logit_range"].tolist() == [-(1 << 20), 7 << 24]
    assert combined.state["head_output_shift"][0] > 0


def test_ranks_that_are_too_many_are_refused() -> None:
    made, adapters = pair("lora")
    with pytest.raises(AdapterError, match=r"ranks of stem, 2 \+ 2, are 4 together, the project's is 2") as error:
        combine_adapters(made.model, adapters, (1, 1), "cat")
    assert error.value.hint == "generate the project with --r 4, or combine with the method linear"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((1.0,), "there are 2 adapters and 1 weights"),
        ((1.0, float("nan")), "the weight nan is not within 1,048,576"),
        ((-2e6, 1.0), r"the weight -2e\+06 is not within 1,048,576"),
    ],
)
def test_other_weights_are_refused(weights: tuple[float, ...], message: str) -> None:
    made, adapters = pair("lora")
    with pytest.raises(AdapterError, match=message):
        combine_adapters(made.model, adapters, weights)
    with pytest.raises(AdapterError, match="there are 0 adapters and 0 weights"):
        combine_adapters(made.model, [], [])


@pytest.mark.parametrize("name", ["bottleneck", "parallel_bottleneck"])
def test_kinds_without_a_sum_are_refused(name: str) -> None:
    made = compiled("plain", CONFIGURATIONS[name][1])
    with pytest.raises(AdapterError, match=r"a \w*bottleneck has an activation between down and up"):
        combine_adapters(made.model, [made.adapter], [1.0])


def test_loftq_and_models_without_adapters_are_refused() -> None:
    source = load_tflite("plain", small_models.model_bytes("plain"), {})
    filters = {op.name: op.inputs["filter"] for op in source.graph.operations if "filter" in op.inputs}
    factors = {}
    for name in ("stem", "pointwise"):
        channels = filters[name].shape[0]
        factors |= {f"{name}.left": np.ones((channels, 1), np.float32)}
        factors |= {f"{name}.right": np.ones((1, filters[name].size // channels), np.float32)}
    attach_factors(source.graph, factors)
    config = AdapterConfig(r=1, options=(("init_lora_weights", "loftq"),))
    model = compile_model("plain", source.fingerprint, source.graph, config, TrainingConfig())
    with pytest.raises(AdapterError, match="starts from loftq holds what quantisation took"):
        combine_adapters(model, [Adapter(b"", model.fresh_state(0))], [1.0])
    base = compile_model("plain", source.fingerprint, source.graph, AdapterConfig("none"), TrainingConfig())
    with pytest.raises(AdapterError, match="generated without adapters"):
        combine_adapters(base, [], [])


def torch_network() -> Any:
    """The layers of `plain` that have an adapter, under its names."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.pointwise, self.head = nn.Conv2d(2, 6, 3), nn.Conv2d(6, 8, 1), nn.Linear(8, 5)

        def forward(self, x: Any) -> Any:
            return self.head(torch.relu(self.pointwise(torch.relu(self.stem(x)))).mean((2, 3)))

    return Net()


@pytest.mark.parametrize("weights", [(0.7, 0.3), (1.25, -0.5)])
@pytest.mark.parametrize("method", ["linear", "cat"])
def test_peft_sums_the_same(method: Any, weights: tuple[float, float], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed: pip install 'tinypeft[peft]'")
    config = AdapterConfig(r=2, lora_alpha=6.0, modules_to_save=())
    made = compiled("plain", config)
    for name, adapter in zip("ab", (made.adapter, trained_from(made, 8)), strict=True):
        write_adapter(tmp_path / name, made.model, adapter.state, adapter.package, {})
    network = peft.PeftModel.from_pretrained(torch_network(), tmp_path / "a", adapter_name="a")
    network.load_adapter(tmp_path / "b", "b")
    network.add_weighted_adapter(["a", "b"], list(weights), "c", combination_type=method)
    model = compiled("plain", AdapterConfig(r=4, lora_alpha=6.0, modules_to_save=())).model
    combined = combine_adapters(model, [read_adapter(tmp_path / name, model) for name in "ab"], weights, method)
    write_adapter(tmp_path / "c", model, combined.state, combined.package, {})
    ours = read_peft(tmp_path / "c")
    for layer in LAYERS:
        module = getattr(network.base_model.model, layer)
        expected = module.get_delta_weight("c").detach().numpy()
        expected = expected.transpose(0, 2, 3, 1) if expected.ndim == 4 else expected
        assert np.abs(expected).max() > 0
        np.testing.assert_allclose(merged_delta(ours, layer), expected, rtol=1e-4, atol=1e-6)


def test_peft_sums_ia3_the_same_where_weights_are_1_together(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed: pip install 'tinypeft[peft]'")
    config = AdapterConfig("ia3", modules_to_save=(), target_modules="|".join(LAYERS))
    made = compiled("plain", config)
    adapters = [made.adapter, trained_from(made, 8)]
    for name, adapter in zip("ab", adapters, strict=True):
        write_adapter(tmp_path / name, made.model, adapter.state, adapter.package, {})
    network = peft.PeftModel.from_pretrained(torch_network(), tmp_path / "a", adapter_name="a")
    network.load_adapter(tmp_path / "b", "b")
    network.base_model.add_weighted_adapter(["a", "b"], [0.7, 0.3], "c")
    combined = combine_adapters(made.model, adapters, (0.7, 0.3))
    for layer in LAYERS:
        expected = getattr(network.base_model.model, layer).ia3_l["c"].detach().numpy().reshape(-1)
        np.testing.assert_allclose(combined.state[f"{layer}_ia3_l_master"], expected, rtol=1e-5)


def test_the_command(tmp_path: Path) -> None:
    """Folders and packages together; --stack is cat with weights of 1."""
    config = AdapterConfig(r=2)
    directory = tmp_path / "project"
    generate_project(save_model("plain", tmp_path), load_board("host"), directory, adapter=config)
    model = open_project(directory).model
    half, smaller = pair("lora", rank=1)
    write_adapter(tmp_path / "a", half.model, smaller[0].state, smaller[0].package, {})
    (tmp_path / "b.bin").write_bytes(smaller[1].package)

    def combine(*options: str) -> Any:
        arguments = ["adapter", "combine", directory, tmp_path / "a", tmp_path / "b.bin", "-o", tmp_path / "out"]
        return CliRunner().invoke(main, [*map(str, arguments), *options])

    given = [read_adapter(tmp_path / name, model) for name in ("a", "b.bin")]
    for options, weights, method in (
        (("--weights", "0.5,-2"), (0.5, -2.0), "linear"),
        (("--weights", "1,3", "--method", "cat"), (1, 3), "cat"),
        (("--stack",), (1, 1), "cat"),
    ):
        result = combine(*options)
        assert result.exit_code == 0, result.output
        expected = combine_adapters(model, given, weights, method)  # type: ignore[arg-type]
        assert (tmp_path / "out" / "adapter.bin").read_bytes() == expected.package
        assert read_adapter(tmp_path / "out", model).package == expected.package
    for options, message in (
        ((), "Give --weights"),
        (("--stack", "--weights", "1,1"), "leave --method and --weights out"),
        (("--weights", "a,1"), "numbers with commas between"),
    ):
        result = combine(*options)
        assert result.exit_code == 2 and message in result.stderr
    result = combine("--weights", "1")
    assert result.exit_code == 1 and "there are 2 adapters and 1 weights" in result.stderr

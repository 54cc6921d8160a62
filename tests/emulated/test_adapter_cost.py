"""What an adapter costs on a device: instructions of an inference by kind, merged or not, and bytes of the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from emulation import need

from tinypeft import Model
from tinypeft.ir import Graph
from tinypeft.kernels import PORTABLE_KERNELS, KernelConfig

BOARD = "mps2_an386"
AUTO = KernelConfig()


@pytest.fixture(scope="module")
def speech(shared_data: Path) -> Model:
    """A keyword model; adapters go to every convolution."""
    return Model.load(shared_data / "fsdd_loso" / "nicolas.tflite")


@pytest.fixture(scope="module")
def recordings(shared_data: Path) -> tuple[np.ndarray, np.ndarray]:
    found = np.load(shared_data / "fsdd_loso" / "nicolas.npz")
    chosen = np.arange(0, len(found["y"]), 25)
    return found["x"][chosen].astype(np.float32), found["y"][chosen]


@pytest.fixture(scope="module")
def counted(recordings: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., int]:
    """Instructions of an inference under QEMU, a mean."""
    need("qemu", BOARD)

    def count(model: Model, kernels: KernelConfig = PORTABLE_KERNELS) -> int:
        generated = model.generate(BOARD, tmp_path_factory.mktemp("project") / "project", kernels=kernels)
        instructions = generated.evaluate(recordings[0][:3], on="qemu").outputs.instructions
        if instructions is None:
            pytest.skip("the plugin that counts instructions does not build")
        return instructions

    return count


@pytest.fixture(scope="module")
def base_count(counted: Callable[..., int], speech: Model) -> int:
    return counted(speech)


def _macs(graph: Graph) -> int:
    return sum(op.op.macs(op) for op in graph.operations)


@pytest.mark.parametrize(("r", "share", "most"), [(4, 0.116, 1.32), (1, 0.029, 2.3)])
def test_lora_costs_little_more_than_its_share(
    counted: Callable[..., int], speech: Model, base_count: int, r: int, share: float, most: float
) -> None:
    """At most so many shares of the MACs that it adds: a channel's rounding costs the same at any rank."""
    adapted = speech.attach("lora", r=r, modules_to_save=[])
    added = _macs(adapted.compiled.inference) / _macs(speech.compiled.inference) - 1
    assert added == pytest.approx(share, abs=0.001)
    overhead = counted(adapted) / base_count - 1
    assert 0 < overhead <= most * added, f"r = {r}: {overhead:.2%} more instructions for {added:.2%} more MACs"


@pytest.mark.parametrize("kind", ["bitfit", "ia3"])
def test_channels_cost_nothing(counted: Callable[..., int], speech: Model, base_count: int, kind: str) -> None:
    overhead = counted(speech.attach(kind, modules_to_save=[])) / base_count - 1
    assert overhead < 1e-5  # a few more addresses to load


def test_a_merged_adapter_costs_nothing(
    counted: Callable[..., int],
    speech: Model,
    base_count: int,
    recordings: tuple[np.ndarray, np.ndarray],
    tmp_path: Path,
) -> None:
    adapted, (x, y) = speech.attach("lora", r=4), recordings
    trained = adapted.train(x, y, test=(x, y), epochs=2)
    adapted.merge(trained.package, tmp_path / "merged.tflite")
    merged = Model.load(tmp_path / "merged.tflite")
    assert not np.array_equal(merged.evaluate(x).outputs.outputs, speech.evaluate(x).outputs.outputs)
    assert counted(merged) <= base_count


@pytest.mark.parametrize(
    ("kind", "r", "most"), [("lora", 4, 0.138), ("lora", 1, 0.055), ("bitfit", 4, 0.47), ("ia3", 4, 1.91)]
)
def test_beside_the_kernels_of_the_core(
    counted: Callable[..., int], speech: Model, kind: str, r: int, most: float
) -> None:
    """What adapters cost beside a base that fast: layers that a backend cannot compute with one stay portable."""
    base, adapted = counted(speech, AUTO), speech.attach(kind, r=r, modules_to_save=[])
    overhead = counted(adapted, AUTO) / base - 1
    assert 0 < overhead <= most
    assert counted(adapted, AUTO) < counted(adapted)


@pytest.mark.parametrize(("bits", "limit"), [(8, 5 * 1024), (4, 3 * 1024)])
def test_its_package_is_small(speech: Model, bits: int, limit: int) -> None:
    adapted = speech.attach("lora", r=4, lora_bits=bits, modules_to_save=[])
    assert adapted.compiled.package_bytes <= limit

"""A package of fewer ranks in a firmware of more: the same layout, zeros in between, the same outputs to the bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import c_package
import numpy as np
import pytest
from packages import info, package_for, tensors
from projects import BOARD, CONFIGURATIONS, Built, save_model
from trained import compiled, outputs

from tinypeft.adapters import ADAPTERS, AdapterConfig
from tinypeft.boards import load_board
from tinypeft.emulators import EMULATORS
from tinypeft.errors import AdapterError, DeviceError
from tinypeft.generate import generate_project
from tinypeft.package.format import Identity, parse
from tinypeft.package.info import expand
from tinypeft.project import build_twin
from tinypeft.state import pack_adapter, pad_package, unpack_adapter


def test_the_layout_is_that_of_every_rank() -> None:
    uniform = {info(rank).layout for rank in (1, 2)}
    assert len(uniform) == 1
    capped = {info(rank).layout for rank in (3, 4, 9)}
    assert len(capped) == 1 and capped != uniform, "a layer that stops at rank 2 has another layout"


@pytest.mark.parametrize("rank", [1, 2, 3, 4])
def test_missing_ranks_are_zeros(rank: int) -> None:
    of = info(4)
    package = package_for(of, rank)
    status, header = c_package.verify(of, package)
    assert status == "TP_OK" and header.rank == rank
    payload = parse(package).payload
    status, loaded = c_package.load(of, package, header)
    assert status == "TP_OK" and loaded == expand(of, payload, rank)
    whole, given = _arrays(loaded, 4), _arrays(payload, rank)
    for tensor in tensors(4):
        expected = np.zeros(whole[tensor.name].shape, whole[tensor.name].dtype)
        expected[tuple(slice(size) for size in given[tensor.name].shape)] = given[tensor.name]
        np.testing.assert_array_equal(whole[tensor.name], expected, err_msg=tensor.name)


def _arrays(payload: bytes, rank: int) -> dict[str, np.ndarray]:
    small, offset, arrays = {t.name: t for t in tensors(rank)}, 0, {}
    for tensor in tensors(4):
        shape = list(tensor.shape)
        if tensor.rank_axis is not None:
            shape[tensor.rank_axis] = min(shape[tensor.rank_axis], rank)
        assert tuple(shape) == small[tensor.name].shape
        dtype = np.dtype("<i4" if tensor.dtype == "int32" else "i1")
        arrays[tensor.name] = np.frombuffer(payload, dtype, int(np.prod(shape)), offset).reshape(shape)
        offset += arrays[tensor.name].nbytes
    assert offset == len(payload)
    return arrays


@pytest.mark.parametrize("model", ["plain", "residual", "mlp"])
@pytest.mark.parametrize("rank", [1, 2])
def test_outputs_in_the_interpreter(model: str, rank: int) -> None:
    small, large = (compiled(model, AdapterConfig(r=r)) for r in (rank, 4))
    assert small.model.package_info.layout == large.model.package_info.layout
    state = unpack_adapter(large.model, small.adapter.package)
    x = small.samples.x
    expected = outputs(small.model.inference, small.adapter.state, x)
    np.testing.assert_array_equal(outputs(large.model.inference, state, x), expected)
    fresh = outputs(small.model.inference, small.model.fresh_state(0), x)
    assert (expected != fresh).any(), "the adapter does nothing: nothing was compared"
    padded = pad_package(large.model, small.adapter.package)
    assert padded == pack_adapter(large.model, state) and parse(padded).header.rank == 4
    named = pack_adapter(small.model, small.adapter.state, Identity("b", 2, 3))
    assert parse(pad_package(large.model, named)).header.identity == Identity("b", 2, 3)
    with pytest.raises(AdapterError, match=f"has rank 4, the project takes up to {rank}"):
        unpack_adapter(small.model, large.adapter.package)


def test_ranks_of_single_layers() -> None:
    """A layer takes as many ranks as it has, and no package whose layers have them otherwise."""
    patterns = [AdapterConfig(r=r, options=(("rank_pattern", "branch_.*=2"),)) for r in (3, 5)]
    small, large = (compiled("residual", config) for config in patterns)
    state = unpack_adapter(large.model, small.adapter.package)
    assert state["branch_a_lora_A"].shape[0] == 2 and state["again_lora_A"].shape[0] == 5
    assert not state["again_lora_A"][3:].any() and state["again_lora_A"][:3].any()
    x = small.samples.x
    expected = outputs(small.model.inference, small.adapter.state, x)
    np.testing.assert_array_equal(outputs(large.model.inference, state, x), expected)
    other = compiled("residual", AdapterConfig(r=2, options=(("rank_pattern", "again=5"),)))
    with pytest.raises(AdapterError, match="other layers or another kind"):
        unpack_adapter(large.model, other.adapter.package)


def test_four_bits_take_their_own_rank_alone() -> None:
    small, large = (compiled("residual", AdapterConfig(r=r, options=(("lora_bits", 4),))) for r in (2, 3))
    with pytest.raises(AdapterError, match="has rank 2, the project rank 3, and 4-bit weights"):
        unpack_adapter(large.model, small.adapter.package)


def test_every_kind_has_a_rank_where_it_names_one() -> None:
    """Only LoRA's matrices have ranks: a bottleneck's width is of its own configuration."""
    for name, config in CONFIGURATIONS.items():
        if name in ("lora_channels", "bottleneck", "sparse_lora", "ia3", "parallel_bottleneck", "whole"):
            made = compiled(*config)
            rank = made.model.package_info.rank
            assert rank == (config[1].r if "lora" in config[1].kinds else 0), name
            assert rank == 0 or ADAPTERS["lora"].method & made.model.package_info.method


def test_twins(project: Callable[[str], Built], tmp_path: Path) -> None:
    """Firmware of rank 4, given packages of ranks 1 and 2, gives the outputs of firmware of those ranks."""
    large = project("plain")
    with large.twin() as device:
        for rank in (1, 2):
            folder = tmp_path / f"rank_{rank}"
            config = AdapterConfig(r=rank)
            path = save_model("plain", tmp_path) if rank == 1 else tmp_path / "plain.tflite"
            generate_project(path, load_board(BOARD), folder, adapter=config)
            build_twin(folder)
            made = compiled("plain", config)
            with EMULATORS["host"].open(folder, large.opened.board) as small:
                small.load_adapter(made.adapter.package)
                device.load_adapter(made.adapter.package)
                for x in made.samples.x:
                    sample = np.ascontiguousarray(x).tobytes()
                    expected = small.infer(sample)
                    assert device.infer(sample).output == expected.output and len(expected.output) > 0
                assert device.export_adapter() == pad_package(large.model, made.adapter.package)
                with pytest.raises(DeviceError, match="rank is above"):
                    small.load_adapter(device.export_adapter())

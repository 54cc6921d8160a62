"""PEFT's files: we merge what PEFT wrote as PEFT did; PEFT, where it is installed, merges what we write as we do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import make_golden
import numpy as np
import pytest
from safetensors.numpy import load, load_file, save

from tinypeft.errors import AdapterError
from tinypeft.exchange.layouts import filters_from_torch, filters_to_torch
from tinypeft.exchange.peft_config import PeftConfig, parse_config
from tinypeft.exchange.peft_files import PeftAdapter, parse_peft, peft_files, read_peft
from tinypeft.exchange.peft_merge import ia3_scale, match_layers, merge, merged_delta, saved_weights

GOLDEN = make_golden.GOLDEN
CASES = list(make_golden.CASES)


def merged_by_us(adapter: PeftAdapter, base: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The network's weights under PyTorch's names with the adapter in them."""
    merged = dict(base)
    for module in adapter.tensors:
        filters, bias = merge(adapter, module, filters_from_torch(base[f"{module}.weight"]), base[f"{module}.bias"])
        assert filters.dtype == np.float32 and bias is not None and bias.dtype == np.float32
        merged[f"{module}.weight"], merged[f"{module}.bias"] = filters_to_torch(filters), bias
    return merged


def assert_equal_weights(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-6, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_merges_as_peft_does(case: str) -> None:
    base = load_file(GOLDEN / "base.safetensors")
    expected = load_file(GOLDEN / case / "merged.safetensors")
    changed = {name for name in base if not np.array_equal(base[name], expected[name])}
    found = merged_by_us(read_peft(GOLDEN / case), base)
    assert_equal_weights(found, expected)
    assert {name for name in base if not np.array_equal(base[name], found[name])} == changed != set()


@pytest.mark.parametrize("case", CASES)
def test_what_is_read_is_written_the_same(case: str) -> None:
    adapter = read_peft(GOLDEN / case)
    files = peft_files(adapter)
    again = parse_peft(files["adapter_config.json"], files["adapter_model.safetensors"])
    assert again.config == adapter.config
    assert again.tensors.keys() == adapter.tensors.keys()
    for module, tensors in adapter.tensors.items():
        assert again.tensors[module].keys() == tensors.keys()
        for name, array in tensors.items():
            np.testing.assert_array_equal(again.tensors[module][name], array)
    assert peft_files(again) == files
    given = json.loads((GOLDEN / case / "adapter_config.json").read_text())
    assert {key: given[key] for key in json.loads(files["adapter_config.json"])} == json.loads(
        files["adapter_config.json"]
    )


def lora(**changes: Any) -> PeftAdapter:
    """An adapter of our own for make_golden's network: patterns, a saved head, biases and our own data."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    tensors = {
        "features.conv": {"lora_A": draw(2, 2, 3, 2), "lora_B": draw(4, 2, 1, 1), "bias": draw(4)},
        "fc": {"lora_A": draw(3, 3), "lora_B": draw(5, 3), "bias": draw(5)},
        "head": {"weight": draw(4, 5), "bias": draw(4)},
    }
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "target_modules": ("conv", "fc"),
        "r": 2,
        "lora_alpha": 5.0,
        "rank_pattern": {"fc": 3},
        "alpha_pattern": {"fc": 7},
        "bias": "all",
        "modules_to_save": ("head",),
        "tinypeft": {"fingerprint": "0a1b"},
    }
    return PeftAdapter(PeftConfig(**{**config, **changes}), tensors)


def ia3() -> PeftAdapter:
    scales = np.linspace(0.5, 2, 3, dtype=np.float32)[None]
    config = PeftConfig("IA3", ("fc", "conv"), feedforward_modules=("fc",))
    conv = np.linspace(-1, 2, 4, dtype=np.float32).reshape(1, 4, 1, 1)
    return PeftAdapter(config, {"fc": {"ia3_l": scales}, "features.conv": {"ia3_l": conv}})


@pytest.mark.parametrize(
    "adapter", [lora(), lora(use_rslora=True, target_modules="features.conv|fc"), ia3()], ids=["lora", "rslora", "ia3"]
)
def test_peft_merges_what_we_write(adapter: PeftAdapter, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed: pip install 'tinypeft[peft]'")
    for name, data in peft_files(adapter).items():
        (tmp_path / name).write_bytes(data)
    network = make_golden.network()
    base = {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}
    merged = peft.PeftModel.from_pretrained(network, tmp_path).merge_and_unload()
    expected = {name: tensor.numpy() for name, tensor in merged.state_dict().items()}
    assert_equal_weights(merged_by_us(adapter, base), expected)
    assert not np.allclose(expected["fc.weight"], base["fc.weight"])


@pytest.mark.parametrize("case", CASES)
def test_peft_merges_its_own_adapter_after_us(case: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed: pip install 'tinypeft[peft]'")
    for name, data in peft_files(read_peft(GOLDEN / case)).items():
        (tmp_path / name).write_bytes(data)
    merged = peft.PeftModel.from_pretrained(make_golden.network(), tmp_path).merge_and_unload()
    found = {name: tensor.numpy() for name, tensor in merged.state_dict().items()}
    assert_equal_weights(found, load_file(GOLDEN / case / "merged.safetensors"))


def test_golden_files_are_what_this_peft_writes(tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed: pip install 'tinypeft[peft]'")
    make_golden.write(tmp_path)
    for case in CASES:
        written, golden = read_peft(tmp_path / case), read_peft(GOLDEN / case)
        assert merged_by_us(golden, load_file(GOLDEN / "base.safetensors")).keys() == golden_names()
        for module, tensors in golden.tensors.items():
            for name, array in tensors.items():
                np.testing.assert_allclose(written.tensors[module][name], array, rtol=1e-6)


def golden_names() -> set[str]:
    return {
        f"{module}.{name}"
        for module in ("features.conv", "features.point", "fc", "head")
        for name in ("weight", "bias")
    }


def test_scaling_and_patterns() -> None:
    config = lora().config
    assert (config.rank("features.conv"), config.scaling("features.conv")) == (2, 2.5)
    assert (config.rank("block.fc"), config.scaling("block.fc")) == (3, 7 / 3)
    assert lora(use_rslora=True).config.scaling("fc") == 7 / np.sqrt(3)
    assert config.rank("notfc") == 2


def test_delta_of_a_convolution_is_in_tflites_layout() -> None:
    delta = merged_delta(lora(), "features.conv")
    assert delta.shape == (4, 3, 2, 2) and delta.dtype == np.float32
    tensors = lora().tensors["features.conv"]
    expected = 2.5 * np.einsum("or,rihw->ohwi", tensors["lora_B"][:, :, 0, 0], tensors["lora_A"])
    np.testing.assert_allclose(delta, expected, rtol=1e-5, atol=1e-6)


def test_pieces_are_asked_for_by_module() -> None:
    assert ia3_scale(ia3(), "fc")[0] == "input" and ia3_scale(ia3(), "features.conv")[1].shape == (4,)
    weights, bias = saved_weights(lora(), "head")
    assert weights.shape == (4, 5) and bias is not None and bias.shape == (4,)
    with pytest.raises(AdapterError, match="module head has no lora_A; modules that have: features.conv, fc"):
        merged_delta(lora(), "head")
    with pytest.raises(AdapterError, match="no module body; it has features.conv, fc, head"):
        merge(lora(), "body", np.zeros((2, 2), np.float32), None)
    with pytest.raises(AdapterError, match=r"fc: the adapter is of a layer \(5, 3\), the weights are \(5, 4\)"):
        merge(lora(), "fc", np.zeros((5, 4), np.float32), None)
    with pytest.raises(AdapterError, match=r"fc: ia3_l scales 3 inputs, the weights \(5, 4\) have 4"):
        merge(ia3(), "fc", np.zeros((5, 4), np.float32), None)


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("peft_type", "LOHA", "peft_type is 'LOHA', supported are LORA, IA3"),
        ("r", None, "adapter_config.json has no r, which LORA needs"),
        ("lora_alpha", None, "has no lora_alpha, which LORA needs"),
        ("target_modules", None, "has no target_modules"),
        ("r", 0, "r is 0, it must be a whole number from 1"),
        ("r", 2.0, "r is 2.0"),
        ("lora_alpha", "8", "lora_alpha is '8', it must be a number"),
        ("use_dora", True, "use_dora is True, which is not supported"),
        ("use_rs_lora", True, "use_rs_lora is True, which is not supported; there is use_rslora"),
        ("lora_bias", True, "lora_bias is True, which is not supported"),
        ("target_parameters", ["x"], "target_parameters"),
        ("bias", "some", "bias is 'some', supported are none, all, lora_only"),
        ("init_lora_weights", "pissa_niter_4", "init_lora_weights is 'pissa_niter_4', which may change the base"),
        ("rank_pattern", {"fc": 1.5}, "rank_pattern of fc is 1.5"),
        ("rank_pattern", {"(": 1}, r"'\(' in rank_pattern is no regular expression"),
        ("target_modules", "(", "no regular expression"),
        ("target_modules", [1], "must be a list of module names"),
        ("target_modules", "other.*", r"module fc has bias, lora_A, lora_B, but neither target_modules other.\* nor"),
        (
            "target_modules",
            ["conv", "fc", "cnv"],
            "target_modules name cnv, for which there are no tensors; there is conv",
        ),
        (
            "modules_to_save",
            ["haed"],
            r"module head has bias, weight, but neither .* modules_to_save \('haed',\) name it",
        ),
        ("modules_to_save", ["head", "tail"], "modules_to_save name tail, for which there are no tensors"),
    ],
)
def test_a_wrong_configuration_is_named(key: str, value: Any, message: str) -> None:
    files = peft_files(lora())
    config = json.loads(files["adapter_config.json"])
    if value is None:
        del config[key]
    else:
        config[key] = value
    with pytest.raises(AdapterError, match=message):
        parse_peft(json.dumps(config).encode(), files["adapter_model.safetensors"])


def test_keys_of_later_versions_are_accepted_where_they_are_off() -> None:
    config = json.loads(peft_files(lora())["adapter_config.json"])
    off = {"use_dora": False, "use_new": None, "new_config": {}, "lora_dropout": 0.1, "task_type": "FEATURE_EXTRACTION"}
    assert parse_config(json.dumps(config | off).encode()) == lora().config


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("base_model.model.fc.lora_A.weight", None, "module fc has no lora_A; it is a LoRA target"),
        (
            "base_model.model.fc.lora_B.weight",
            "base_model.model.fc.lora_b.weight",
            "key .*fc.lora_b.weight is not supp",
        ),
        ("base_model.model.fc.lora_B.weight", "fc.lora_B.weight", "does not start with base_model.model."),
        (
            "base_model.model.fc.lora_A.weight",
            "base_model.model.fd.lora_A.weight",
            "module fc has no lora_A; it is a LoRA target",
        ),
        ("base_model.model.head.weight", "base_model.model.heed.weight", "module heed has weight, but neither"),
        (
            "base_model.model.head.weight",
            "base_model.model.head.ia3_l",
            "module head has ia3_l; it is in modules_to_save",
        ),
        (
            "base_model.model.fc.lora_A.weight",
            "base_model.model.fc.lora_magnitude_vector",
            "lora_magnitude_vector is not",
        ),
    ],
)
def test_a_wrong_key_is_named(old: str, new: str | None, message: str) -> None:
    files = peft_files(lora())

    arrays = load(files["adapter_model.safetensors"])
    moved = arrays.pop(old)
    if new is not None:
        arrays[new] = moved
    with pytest.raises(AdapterError, match=message):
        parse_peft(files["adapter_config.json"], save(arrays))


@pytest.mark.parametrize(
    "module, name, shape, message",
    [
        ("fc", "lora_A", (2, 3), r"fc: lora_A has the shape \(2, 3\), expected \(3,in\)"),
        ("fc", "lora_B", (5, 2), r"fc: lora_B has the shape \(5, 2\), lora_A \(3, 3\) needs \(out,3"),
        (
            "features.conv",
            "lora_B",
            (4, 2),
            r"lora_B has the shape \(4, 2\), lora_A \(2, 2, 3, 2\) needs \(out,2, 1, 1\)",
        ),
    ],
)
def test_a_wrong_shape_is_named(module: str, name: str, shape: tuple[int, ...], message: str) -> None:
    adapter = lora()
    tensors = {**adapter.tensors, module: {**adapter.tensors[module], name: np.zeros(shape, np.float32)}}
    with pytest.raises(AdapterError, match=message):
        peft_files(PeftAdapter(adapter.config, tensors))


def test_wrong_ia3_shape_and_damaged_files(tmp_path: Path) -> None:
    wrong = PeftAdapter(ia3().config, {**ia3().tensors, "fc": {"ia3_l": np.ones((3, 1), np.float32)}})
    with pytest.raises(AdapterError, match=r"fc: ia3_l has the shape \(3, 1\); it scales inputs: \(1, 3\)"):
        peft_files(wrong)
    with pytest.raises(AdapterError, match="cannot read .*adapter_config.json: No such file"):
        read_peft(tmp_path)
    files = peft_files(lora())
    for name, data in files.items():
        (tmp_path / name).write_bytes(data[:100])
    with pytest.raises(AdapterError, match=f"{tmp_path}: adapter_config.json is no JSON"):
        read_peft(tmp_path)
    (tmp_path / "adapter_config.json").write_bytes(files["adapter_config.json"])
    with pytest.raises(AdapterError, match="adapter_model.safetensors is damaged"):
        read_peft(tmp_path)
    nan = {"base_model.model.fc.ia3_l": np.full((1, 3), np.nan, np.float32)}
    with pytest.raises(AdapterError, match="fc.ia3_l has values that are not finite"):
        parse_peft(peft_files(ia3())["adapter_config.json"], save(nan))


def test_half_precisions_are_read() -> None:
    config = PeftConfig("IA3", ("fc",), feedforward_modules=())
    values = np.array([[1.5], [-0.25], [3.0]], np.float32)
    files = peft_files(PeftAdapter(config, {"fc": {"ia3_l": values}}))
    half = save({"base_model.model.fc.ia3_l": values.astype(np.float16)})
    np.testing.assert_array_equal(parse_peft(files["adapter_config.json"], half).tensors["fc"]["ia3_l"], values)
    header = json.dumps(
        {"base_model.model.fc.ia3_l": {"dtype": "BF16", "shape": [3, 1], "data_offsets": [0, 6]}}
    ).encode()
    upper = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    brain = len(header).to_bytes(8, "little") + header + upper
    np.testing.assert_array_equal(parse_peft(files["adapter_config.json"], brain).tensors["fc"]["ia3_l"], values)


def test_modules_are_matched_with_layers() -> None:
    layers = ["conv", "fc", "head", "other"]
    assert match_layers(lora(), layers) == {"features.conv": "conv", "fc": "fc", "head": "head"}
    mapping = {"features.conv": "other"}
    assert match_layers(lora(), layers, mapping)["features.conv"] == "other"
    with pytest.raises(AdapterError, match="module features.conv is no layer of the model; the model has conv_1"):
        match_layers(lora(), ["conv_1", "fc", "head"])
    with pytest.raises(AdapterError, match="the modules features.conv and fc are both the layer fc"):
        match_layers(lora(), layers, {"features.conv": "fc"})
    with pytest.raises(AdapterError, match="the mapping names the module body"):
        match_layers(lora(), layers, {"body": "fc"})
    with pytest.raises(AdapterError, match="the mapping of fc names the layer fcc; the model has fc"):
        match_layers(lora(), layers, {"fc": "fcc"})
    longest = PeftAdapter(ia3().config, {"a.b.fc": ia3().tensors["fc"]})
    assert match_layers(longest, ["fc", "b.fc"]) == {"a.b.fc": "b.fc"}

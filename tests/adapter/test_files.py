"""An adapter's files: what is written comes back to the bit, whatever the kind; what does not fit is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from projects import TRAINABLE
from safetensors.numpy import load_file, save_file
from trained import QUICK, compiled, trained

from tinypeft.adapter_files import describe_adapter, read_adapter, write_adapter
from tinypeft.adapter_modules import PEFT_TYPES, modules_of, peft_type
from tinypeft.adapter_state import adapter_from_package
from tinypeft.adapters import AdapterConfig
from tinypeft.errors import AdapterError
from tinypeft.exchange.peft_files import read_peft
from tinypeft.exchange.peft_merge import merged_delta
from tinypeft.state import pack_adapter

HEAD = {"modules_to_save": ("head",)}


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TRAINABLE])
def test_what_is_written_comes_back(name: str, tmp_path: Path) -> None:
    """Also from the weights alone, which the quantisers make the same package of."""
    made = trained(name)
    write_adapter(tmp_path / "a", made.model, made.adapter.state, made.adapter.package, {"epochs": 3})
    for package_too in (True, False):
        back = read_adapter(tmp_path / "a", made.model)
        assert back.package == made.adapter.package
        for parameter in made.model.parameters:
            given = made.adapter.state[parameter.master.name]
            np.testing.assert_allclose(back.state[parameter.master.name], given, rtol=1e-6, atol=1e-6)
        if package_too:
            (tmp_path / "a" / "adapter.bin").unlink()
    described = describe_adapter(tmp_path / "a")
    assert described["config"]["peft_type"] == peft_type(made.model)
    assert len(described["tensors"]) == len(made.model.parameters), "two tensors of one key"
    ours = described["config"]["tinypeft"]
    assert ours["fingerprint"] == made.model.fingerprint.hex() and ours["epochs"] == 3
    assert ours["adapter"]["adapter"] == made.model.adapter.adapter
    if peft_type(made.model) in PEFT_TYPES:
        assert set(read_peft(tmp_path / "a").tensors) == {module.name for module in modules_of(made.model)}


def test_of_a_package_alone_the_integers_come_back() -> None:
    for name in QUICK:
        made = trained(name)
        back = adapter_from_package(made.model, made.adapter.package)
        assert pack_adapter(made.model, back.state) == made.adapter.package
        assert {p.master.name for p in made.model.parameters} <= back.state.keys()


def test_bias_beside_lora_is_pefts_bias_all(tmp_path: Path) -> None:
    made = compiled("plain", AdapterConfig("lora+bitfit", r=2, modules_to_save=("head",)))
    write_adapter(tmp_path / "a", made.model, made.adapter.state, made.adapter.package, {})
    adapter = read_peft(tmp_path / "a")
    assert adapter.config.bias == "all" and adapter.config.modules_to_save == ("head",)
    stem = next(op for op in made.model.base.operations if op.name == "stem")
    unit = stem.inputs["input"].scale * stem.inputs["filter"].scale
    change = made.adapter.state["stem_bias_master"]
    np.testing.assert_allclose(adapter.tensors["stem"]["bias"], stem.inputs["bias"].data * unit + change, rtol=1e-5)
    assert np.abs(change).max() > 0
    keys = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert "base_model.model.stem.base_layer.bias" in keys
    assert read_adapter(tmp_path / "a", made.model).package == made.adapter.package


def foreign(folder: Path, **changes: object) -> Path:
    """The files of `plain`'s LoRA as PEFT would write them: nothing of ours, no package."""
    made = compiled("plain", AdapterConfig(r=2, **HEAD))
    write_adapter(folder, made.model, made.adapter.state, made.adapter.package, {})
    (folder / "adapter.bin").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    del config["tinypeft"]
    (folder / "adapter_config.json").write_text(json.dumps(config | changes))
    return folder


def rename(folder: Path, old: str, new: str) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({k.replace(old, new): v for k, v in tensors.items()}, folder / "adapter_model.safetensors")


def test_of_peft_with_another_scaling_does_the_same(tmp_path: Path) -> None:
    made = compiled("plain", AdapterConfig(r=2, lora_alpha=8.0, **HEAD))
    folder = foreign(tmp_path / "a", lora_alpha=3.0)
    back = read_adapter(folder, made.model)
    expected = merged_delta(read_peft(folder), "stem")
    a, b = back.state["stem_lora_A_master"], back.state["stem_lora_B_master"]
    np.testing.assert_allclose(np.tensordot(b, a, (1, 0)) * 4.0, expected, rtol=1e-4, atol=1e-7)


def test_of_a_smaller_rank_does_the_same(tmp_path: Path) -> None:
    """Zeros take the place of the rows that it lacks, and its package beside it has fewer, too."""
    made = compiled("plain", AdapterConfig(r=2, lora_alpha=4.0, **HEAD))
    write_adapter(tmp_path / "a", made.model, made.adapter.state, made.adapter.package, {})
    larger = compiled("plain", AdapterConfig(r=4, lora_alpha=4.0, **HEAD)).model
    back = read_adapter(tmp_path / "a", larger)
    assert back.package == made.adapter.package
    a, b = back.state["stem_lora_A_master"], back.state["stem_lora_B_master"]
    assert not a[2:].any() and not b[:, 2:].any()
    np.testing.assert_array_equal(a[:2], made.adapter.state["stem_lora_A_master"])
    np.testing.assert_array_equal(b[:, :2], made.adapter.state["stem_lora_B_master"] * 2)


def test_modules_are_mapped(tmp_path: Path) -> None:
    made = compiled("plain", AdapterConfig(r=2, **HEAD))
    folder = foreign(tmp_path / "a")
    expected = read_adapter(folder, made.model).package
    rename(folder, ".stem.", ".features.0.")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"] = [name.replace("stem", "features.0") for name in config["target_modules"]]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(AdapterError, match=r"module features\.0 is no layer of the model.*"):
        read_adapter(folder, made.model)
    assert read_adapter(folder, made.model, {"features.0": "stem"}).package == expected


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (AdapterConfig(r=1, **HEAD), r"\w+ has rank 2, the project's rank 1"),
        (
            AdapterConfig(r=2, target_modules=("stem",), **HEAD),
            r"module \w+ has lora_A, lora_B; the project trains nothing",
        ),
        (
            AdapterConfig(r=2, modules_to_save=()),
            "module head has bias, weight; the project trains lora_A, lora_B of head",
        ),
        (AdapterConfig("ia3", **HEAD), "the adapter is a LORA, the project's adapters are IA3"),
        (AdapterConfig("sparse", **HEAD), "the adapter is a LORA, the project's adapters are SPARSE"),
        (AdapterConfig("lora+bitfit", r=2, **HEAD), r"has lora_A, lora_B; the project trains bias, lora_A, lora_B"),
    ],
)
def test_other_configurations_are_refused(config: AdapterConfig, message: str, tmp_path: Path) -> None:
    made = compiled("plain", config)
    with pytest.raises(AdapterError, match=message) as error:
        read_adapter(foreign(tmp_path / "a"), made.model)
    assert error.value.hint


def test_other_classes_models_and_changed_files_are_refused(tmp_path: Path) -> None:
    made = trained("plain")
    folder = tmp_path / "a"
    write_adapter(folder, made.model, made.adapter.state, made.adapter.package, {})
    with pytest.raises(AdapterError, match=r"base model [0-9a-f]{12}, this one is [0-9a-f]{12}"):
        read_adapter(folder, replace(made.model, fingerprint=bytes(32)))
    with pytest.raises(AdapterError, match=r"weight of head has the shape \(5, \d+\), the project takes \(7, \d+\)"):
        read_adapter(folder, compiled("plain", AdapterConfig(options=(("num_labels", 7),))).model)
    package = (folder / "adapter.bin").read_bytes()
    other = trained("plain").model.fresh_state(8)
    (folder / "adapter.bin").write_bytes(pack_adapter(made.model, other))
    with pytest.raises(AdapterError, match=r"adapter\.bin is not made from adapter_model\.safetensors"):
        read_adapter(folder, made.model)
    (folder / "adapter.bin").write_bytes(package[:-1])
    with pytest.raises(AdapterError, match="is incomplete: it has"):
        read_adapter(folder, made.model)
    with pytest.raises(AdapterError, match="cannot read the adapter"):
        read_adapter(tmp_path / "none", made.model)

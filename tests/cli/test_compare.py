"""`tinypeft compare`: what changed between two analyses, limits that hold or break, files that are none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result
from invocation import invoke, refused, succeeded
from projects import BOARD, save_model
from test_analyze import schema


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Analyses: the model with r=4 and r=2, for inference alone, and another model."""
    folder = tmp_path_factory.mktemp("analyses")
    plain, residual = save_model("plain", folder), save_model("residual", folder)
    made = {
        "r4": (plain, "--board", BOARD),
        "r2": (plain, "--board", BOARD, "--r", "2"),
        "none": (plain, "--board", BOARD, "--adapter", "none"),
        "other": (residual,),
    }
    paths = {}
    for name, arguments in made.items():
        paths[name] = folder / f"{name}.json"
        paths[name].write_text(json.dumps(succeeded("analyze", *arguments)))
    return paths


def figures(comparison: dict[str, Any]) -> dict[str, dict[str, int]]:
    return {row["name"]: row for row in comparison["figures"]}


def limits(folder: Path, text: str) -> Path:
    path = folder / "limits.toml"
    path.write_text(text)
    return path


def test_equal_files_say_so(files: dict[str, Path], tmp_path: Path) -> None:
    result = invoke("compare", files["r4"], files["r4"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "equal: no figure and no operator differs\n", "")
    comparison = succeeded("compare", files["r4"], files["r4"])
    jsonschema.Draft202012Validator(schema("comparison-1")).validate(comparison)
    assert comparison["equal"] and comparison["operators"] == comparison["broken"] == comparison["notes"] == []
    every = limits(tmp_path, "[limits]\n" + "".join(f'{name} = "0"\n' for name in figures(comparison)))
    result = invoke("compare", files["r4"], files["r4"], "--limits", every)
    assert result.exit_code == 0 and f"within all {len(comparison['figures'])} limits" in result.stdout


def test_what_changed(files: dict[str, Path]) -> None:
    before, after = (json.loads(files[name].read_text()) for name in ("r2", "r4"))
    comparison = succeeded("compare", files["r2"], files["r4"])
    jsonschema.Draft202012Validator(schema("comparison-1")).validate(comparison)
    rows = figures(comparison)
    for name in ("macs", "training_macs", "arena_bytes", "adapter_bytes", "package_bytes", "trainable_parameters"):
        assert (rows[name]["before"], rows[name]["after"]) == (before["totals"][name], after["totals"][name])
        assert rows[name]["change"] == after["totals"][name] - before["totals"][name] > 0
    for name, kind in (("ram_bytes", "ram"), ("flash_bytes", "flash")):
        assert rows[name]["after"] == after["memory"][kind]["bytes"]
    assert rows["training_arena_bytes"]["after"] == next(
        g["arena_bytes"] for g in after["graphs"] if g["name"] == "training"
    )
    changed = {(row["graph"], row["name"]): row for row in comparison["operators"]}
    assert {row["status"] for row in changed.values()} == {"changed"} and not comparison["equal"]
    assert any("macs" in text for text in changed["inference", "stem"]["changes"])
    assert ("inference", "dw") not in changed
    text = invoke("compare", files["r2"], files["r4"]).stdout
    change, share = rows["package_bytes"]["change"], rows["package_bytes"]["change"] / rows["package_bytes"]["before"]
    assert re.search(rf"package_bytes +│ .* │ +\+{change:,} │ +\+{share * 100:.2f}% ", text)


def test_operators_come_and_go(files: dict[str, Path]) -> None:
    comparison = succeeded("compare", files["r4"], files["none"])
    statuses = {(row["graph"], row["name"]): row["status"] for row in comparison["operators"]}
    assert statuses["inference", "stem_lora_down"] == "removed" and statuses["inference", "stem"] == "changed"
    assert figures(comparison)["training_macs"]["after"] == figures(comparison)["training_arena_bytes"]["after"] == 0
    back = succeeded("compare", files["none"], files["r4"])
    assert {row["status"] for row in back["operators"]} >= {"added", "changed"}
    assert "new" in invoke("compare", files["none"], files["r4"]).stdout


def test_what_is_not_alike_is_noted(files: dict[str, Path]) -> None:
    notes = succeeded("compare", files["r4"], files["other"])["notes"]
    assert notes == ["the models differ", f"the boards differ: {BOARD}, none"]
    assert "note: the models differ" in invoke("compare", files["r4"], files["other"]).stdout


def _growth(files: dict[str, Path], name: str) -> tuple[int, int]:
    row = figures(succeeded("compare", files["r2"], files["r4"]))[name]
    return row["before"], row["change"]


@pytest.mark.parametrize("name", ["ram_bytes", "macs", "arena_bytes", "package_bytes"])
def test_limits_hold_to_the_byte(files: dict[str, Path], tmp_path: Path, name: str) -> None:
    before, change = _growth(files, name)
    assert change > 0
    for limit, broken in (
        (f"+{change}", False),
        (f"+{change - 1}", True),
        ("0", True),
        (f"-{change}", True),
        (f"+{100 * change / before + 0.01:.2f}%", False),
        (f"+{100 * change / before - 0.01:.2f}%", True),
        ("+1000%", False),
    ):
        path = limits(tmp_path, f'[limits]\n{name} = "{limit}"\n')
        result = invoke("compare", files["r2"], files["r4"], "--limits", path)
        assert result.exit_code == int(broken), (limit, result.output)
        assert ("within the limit" in result.stdout) != broken
        if broken:
            went = rf"error: {name} went from {before:,} to {before + change:,} \(\+[\d.]+%\)"
            assert (
                re.match(rf"{went}, the limit {re.escape(limit)} allows", result.stderr)
                and "too much\ntry: " in result.stderr
            )
    shrinks = limits(tmp_path, f'[limits]\n{name} = "-{change}"\n')
    assert invoke("compare", files["r4"], files["r2"], "--limits", shrinks).exit_code == 0


def test_every_broken_limit_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    path = limits(tmp_path, '[limits]\nmacs = "0"\nweight_bytes = "0"\nadapter_bytes = "+1"\n')
    result = invoke("compare", files["r2"], files["r4"], "--limits", path)
    assert result.exit_code == 1 and result.stderr.startswith("error: 2 limits are broken: macs went from ")
    assert "; adapter_bytes went from " in result.stderr and "weight_bytes" not in result.stderr
    result = invoke("compare", files["r2"], files["r4"], "--limits", path, "--json")
    comparison = json.loads(result.stdout)
    jsonschema.Draft202012Validator(schema("comparison-1")).validate(comparison)
    assert result.exit_code == 1 and [row["name"] for row in comparison["broken"]] == ["macs", "adapter_bytes"]
    (_, adapter) = comparison["broken"]
    assert adapter["limit"] == "+1" and adapter["allowed"] == adapter["before"] + 1 < adapter["after"]


def test_an_estimate_is_not_held_against_a_measurement(files: dict[str, Path], tmp_path: Path) -> None:
    measured = json.loads(files["r4"].read_text())
    measured["memory"]["flash"]["basis"] = "measured"
    other = tmp_path / "measured.json"
    other.write_text(json.dumps(measured))
    result = invoke("compare", files["r4"], other)
    assert result.exit_code == 0 and "note: flash_bytes is not alike: estimate before, measured after" in result.stdout
    path = limits(tmp_path, '[limits]\nflash_bytes = "+5%"\n')
    refused(invoke("compare", files["r4"], other, "--limits", path), "flash_bytes of .* is estimate, of .* measured")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[limits]\nram = '0'\n", r"unknown key limits.ram\ntry: did you mean ram_bytes\?"),
        ("[limits]\nmacs = 5\n", "limits.macs is 5, no limit of growth"),
        ("[limits]\nmacs = '5'\n", "limits.macs is '5', no limit of growth\ntry: write \"\\+2%\""),
        ("[limits]\nmacs = '+two%'\n", "no limit of growth"),
        ("[limits]\nmacs = true\n", "no limit of growth"),
        ("[limit]\nmacs = '0'\n", r"unknown section or key limit\ntry: did you mean limits\?"),
        ("macs = '0'\n", "unknown section or key macs"),
        ("limits = 3\n", "has no limits"),
        ("[limits]\n", "has no limits"),
        ("[limits\n", "is no TOML"),
    ],
)
def test_faulty_limits(files: dict[str, Path], tmp_path: Path, text: str, message: str) -> None:
    refused(invoke("compare", files["r4"], files["r4"], "--limits", limits(tmp_path, text)), message)


def test_limits_that_cannot_be_read(files: dict[str, Path], tmp_path: Path) -> None:
    refused(invoke("compare", files["r4"], files["r4"], "--limits", tmp_path / "absent.toml"), "cannot read")


def _damaged(files: dict[str, Path], tmp_path: Path, change: Callable[[dict], object]) -> Result:
    content = json.loads(files["r4"].read_text())
    change(content)
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(content))
    assert invoke("compare", path, files["r4"]).exit_code == 1
    return invoke("compare", files["r4"], path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema="tinypeft.analysis/2"), "has version 2 of tinypeft.analysis, this tinypeft reads 1"),
        (lambda c: c.update(schema="tinypeft.analysis"), "has version none of tinypeft.analysis"),
        (lambda c: c.update(schema="tinypeft.comparison/1"), "is no analysis: its schema is 'tinypeft.comparison/1'"),
        (lambda c: c.update(schema=1), "is no analysis: its schema is 1"),
        (lambda c: c.pop("schema"), "is no analysis: it names no schema, expected tinypeft.analysis/1"),
        (lambda c: c.pop("totals"), "is damaged: totals is missing"),
        (lambda c: c["totals"].update(macs="many"), "is damaged: macs is 'many', expected int"),
        (lambda c: c["totals"].update(macs=True), "is damaged: macs is True"),
        (lambda c: c["memory"]["ram"].pop("basis"), "is damaged: basis is missing"),
        (lambda c: c.update(graphs=[3]), "is damaged: graphs holds more than objects"),
        (lambda c: c.update(board=[]), "is damaged: board is "),
        (lambda c: c["graphs"][0]["operations"][0].pop("kernel"), "is damaged: kernel is missing"),
        (lambda c: c["graphs"][0]["operations"][0]["result"].update(shape=4), "is damaged: shape is 4"),
    ],
)
def test_files_that_are_no_analyses(
    files: dict[str, Path], tmp_path: Path, change: Callable[[dict], object], message: str
) -> None:
    refused(_damaged(files, tmp_path, change), message)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "is no JSON"), (b"\xff\xfe", "is no JSON"), (b"[]", "is no analysis"), (b"3", "is no analysis")],
)
def test_files_that_are_no_json(files: dict[str, Path], tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)
    refused(invoke("compare", files["r4"], path), message)
    refused(invoke("compare", tmp_path / "absent.json", files["r4"]), "cannot read .*absent.json")
    refused(invoke("compare", tmp_path, files["r4"]), "cannot read")

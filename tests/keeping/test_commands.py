"""`tinypeft adapter push|pull|list|…` on a device whose flash is a file: each command is a start of the device."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from kept import Build, data

from tinypeft.cli import main
from tinypeft.state import pack_adapter


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def succeed(*arguments: object) -> dict:
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output + result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def flash(tmp_path: Path) -> str:
    return f"host:{tmp_path / 'flash.bin'}"


def test_an_adapters_life(kept: Build, flash: str, tmp_path: Path) -> None:
    built = kept("plain")
    folder, x = built.project.directory, built.samples(1).x[0]
    for version in (1, 2):
        (tmp_path / f"{version}.tpad").write_bytes(built.package("anna", version, version=version))
    pushed = succeed("adapter", "push", folder, tmp_path / "1.tpad", "--on", flash, "--confirm")
    assert (pushed["id"], pushed["version"]) == ("anna", 1)
    assert pushed["bytes_sent"] == (tmp_path / "1.tpad").stat().st_size
    listed = succeed("adapter", "list", folder, "--on", flash)
    assert listed["serving"] == "anna" and listed["adapters"][0]["confirmed"] == 1
    assert succeed("adapter", "diff", tmp_path / "1.tpad", tmp_path / "2.tpad", "-o", tmp_path / "d")["output"]
    assert invoke("adapter", "push", folder, tmp_path / "d", "--on", flash).exit_code == 2  # whose is it?
    sent = succeed("adapter", "push", folder, tmp_path / "d", "--on", flash, "--id", "anna")
    assert sent["version"] == 2 and sent["bytes_sent"] < pushed["bytes_sent"]
    succeed("adapter", "pull", folder, "anna", "--on", flash, "-o", tmp_path / "back.tpad")
    assert (tmp_path / "back.tpad").read_bytes() == (tmp_path / "2.tpad").read_bytes()
    assert succeed("adapter", "activate", folder, "anna", "--on", flash)["adapters"][0]["on_test"]
    with built.running(flash) as device:  # a start: what is on test serves
        assert device.infer(data(x)).output == built.output(built.trained(2), x)
        assert device.adapters.list().adapters[0].boots == 1
    assert succeed("adapter", "confirm", folder, "anna", "--on", flash)["adapters"][0]["confirmed"] == 2
    assert succeed("adapter", "activate", folder, "--base", "--on", flash)["base"]
    assert succeed("adapter", "activate", folder, "anna", "--until-reset", "--on", flash)["serving"] == "anna"
    assert succeed("adapter", "list", folder, "--on", flash)["serving"] == ""
    assert succeed("adapter", "delete", folder, "anna", "--on", flash)["adapters"] == []


def test_tables_for_people(kept: Build, flash: str, tmp_path: Path) -> None:
    built = kept("plain")
    folder = built.project.directory
    (tmp_path / "a.tpad").write_bytes(built.package("anna", 1, version=12))
    pushed = invoke("adapter", "push", folder, tmp_path / "a.tpad", "--on", flash, "--activate")
    assert pushed.exit_code == 0 and "anna: version 12 is on test" in pushed.stdout
    listed = invoke("adapter", "list", folder, "--on", flash)
    assert "anna serves" in listed.stdout and "on test, 1 boots" in listed.stdout
    reverted = invoke("adapter", "revert", folder, "anna", "--on", flash)
    assert reverted.exit_code == 0 and "the base model serves" in reverted.stdout
    saved = invoke("adapter", "save", folder, "ben", "--version", 4, "--on", flash)
    assert saved.exit_code == 0 and "ben" in saved.stdout


def test_bad_input(kept: Build, flash: str, tmp_path: Path) -> None:
    built = kept("plain")
    folder = built.project.directory
    other = pack_adapter(kept("residual").model, kept("residual").trained(1))
    (tmp_path / "other.tpad").write_bytes(other)
    for arguments, code, text in (
        (("push", folder, tmp_path / "other.tpad"), 1, "belongs to another base model"),
        (("push", folder, tmp_path / "none.tpad"), 1, "cannot read"),
        (("push", folder, Path(__file__)), 1, "no adapter package"),
        (("pull", folder, "anna", "-o", tmp_path / "x"), 1, "no such adapter"),
        (("pull", folder, "A B", "-o", tmp_path / "x"), 1, "adapter"),
        (("activate", folder), 2, "NAME or --base"),
        (("activate", folder, "anna", "--base"), 2, "NAME or --base"),
        (("activate", folder, "anna"), 1, "no such adapter"),
        (("confirm", folder, "anna"), 1, "no such adapter"),
        (("revert", folder, "anna"), 1, "no such adapter"),
        (("delete", folder, "anna"), 1, "no such adapter"),
        (("save", folder, "Anna", "--version", 1), 1, "not an adapter id"),
    ):
        result = invoke("adapter", *arguments, "--on", flash)
        assert result.exit_code == code, (arguments, result.output, result.stderr)
        assert text in result.stderr and "Traceback" not in result.output, (arguments, result.stderr)
    assert not (tmp_path / "x").exists()


def test_a_project_that_keeps_none(project, tmp_path: Path) -> None:
    folder = project("plain").directory
    result = invoke("adapter", "list", folder, "--on", "host")
    assert result.exit_code == 1 and "keeps no adapters" in result.stderr and "--adapters" in result.stderr


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--adapters", "65"], "65 is not in the range"),
        (["--adapters", "4", "--resident", "0"], "0 is not in the range"),
        (["--adapters", "4", "--board", "nucleo_h743zi"], "keeps no adapters: it has no storage"),
        (["--adapters", "4", "--adapter", "none"], "was given none"),
        (["--adapters", "60", "--board", "nrf52840dk"], "do not fit the storage of nrf52840dk"),
    ],
)
def test_projects_that_cannot_keep_them(kept: Build, options: list[str], text: str, tmp_path: Path) -> None:
    model = kept("plain").project.directory / "model" / "base.tflite"
    board = [] if "--board" in options else ["--board", "mps2_an386"]
    result = invoke("generate", model, *board, *options, "-o", tmp_path / "p")
    assert result.exit_code in (1, 2) and text in result.stderr, result.stderr
    assert not (tmp_path / "p").exists()

"""`tinypeft doctor`: complete, and right about what is missing."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from tinypeft.cli import main
from tinypeft.doctor import diagnose

ROOT = Path(__file__).parents[2]


def doctor(*arguments: str):
    return CliRunner().invoke(main, ["doctor", *arguments])


@pytest.fixture
def only(tmp_path, monkeypatch):
    """Leave nothing on the PATH but these programs."""

    def leave(*programs: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        for program in programs:
            real = shutil.which(program)
            if real is None:
                pytest.skip(f"{program} is not installed")
            (folder / program).symlink_to(real)
        monkeypatch.setenv("PATH", str(folder))
        return folder

    return leave


def test_lists_exactly_the_project_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = {re.split("[><=]", entry)[0] for entry in [*project["dependencies"], *extras["keras"], *extras["demo"]]}
    libraries = [check for check in diagnose() if check.kind == "library"]
    assert {check.name for check in libraries} == names
    assert sum(check.required for check in libraries) == len(project["dependencies"])


def test_nothing_missing_is_exit_0(only):
    only("make", "gcc", "arm-none-eabi-gcc", "qemu-system-arm", "sh", "as", "ld")
    result = doctor("--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["ok"], report["missing"]) == (0, True, [])
    versions = {check["name"]: check["version"] for check in report["checks"]}
    assert versions["renode"] is None and re.match(r"\d+\.\d+", versions["newlib-nano"])


def test_missing_tools_are_exit_1(only):
    only("make")
    result = doctor("--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["ok"]) == (1, False)
    assert report["missing"] == ["gcc or clang", "arm-none-eabi-gcc", "newlib-nano", "qemu-system-arm"]
    table = doctor()
    assert table.exit_code == 1
    assert "apt install qemu-system-arm" in table.stdout and "missing: gcc or clang" in table.stdout


def test_clang_will_do(only):
    only("clang")
    host = next(check for check in diagnose() if check.name == "gcc or clang")
    assert host.found and host.path.endswith("clang")


def test_broken_tool_is_missing(only):
    folder = only()
    (folder / "make").write_text("#!/bin/false\n")
    (folder / "make").chmod(0o755)
    make = next(check for check in diagnose() if check.name == "make")
    assert not make.found and make.path
    assert "does not run" in doctor().stdout

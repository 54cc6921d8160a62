"""The wheel carries templates, firmware and boards, and works where there is no checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tinypeft.boards import board_names
from tinypeft.resources import resource_path

ROOT = Path(__file__).parents[2]

SCRIPT = """
import json, sys, tinypeft
from tinypeft.boards import board_names, load_board
from tinypeft.project import write_project
project = write_project(sys.argv[1], load_board("mps2_an386"), model_name="m", sources={}, kernels=["tp_conv.c"],
                        stack_bytes=1024, manifest={}, files={})
print(json.dumps({"file": tinypeft.__file__, "boards": board_names(), "made": (project / "Makefile").is_file()}))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install -e .[dev]")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(command, check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_every_resource(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("templates", "firmware", "boards"):
        for file in resource_path(folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert f"tinypeft/_resources/{file.relative_to(ROOT).as_posix()}" in names
    for schema in (ROOT / "tinypeft" / "schemas").glob("*.json"):
        assert schema.relative_to(ROOT).as_posix() in names
    assert not [name for name in names if name.startswith(("tests/", "tools/"))]


def test_installed_wheel_writes_a_project(wheel, tmp_path):
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel]
    subprocess.run(install, check=True)
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, tmp_path / "project"],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    report = json.loads(done.stdout)
    assert Path(report["file"]).is_relative_to(site)
    assert report["boards"] == board_names() and report["made"]


def test_setup_is_quick_when_nothing_is_missing():
    script = ROOT / "tools" / "setup.sh"
    subprocess.run(["bash", "-n", script], check=True)
    done = subprocess.run(["make", "help"], cwd=ROOT, check=True, capture_output=True, text=True)
    targets = {line.split()[1] for line in done.stdout.splitlines()}
    assert {"setup", "setup-browser", "demo", "test", "test-all", "lint", "bench", "clean"} <= targets

"""`tinypeft doctor` knows every flasher's tool."""

from __future__ import annotations

from click.testing import CliRunner

from tinypeft.cli import main
from tinypeft.doctor import diagnose
from tinypeft.flashers import FLASHERS

PROGRAMS = {"pyocd", "openocd", "st-flash", "probe-rs", "JLinkExe"}


def test_every_tool_with_what_for_and_how_to_get_it(only_tools):
    only_tools()
    checks = {check.name: check for check in diagnose()}
    assert {flasher.program for flasher in FLASHERS.values() if flasher.install} == PROGRAMS
    for flasher in FLASHERS.values():
        if flasher.install:
            check = checks[flasher.program]
            assert not check.found and not check.required
            assert check.install == flasher.install and check.needed_for == f"flashing {flasher.reaches}"
    assert "cp" not in checks
    table = CliRunner().invoke(main, ["doctor"]).stdout
    assert "pip install 'tinypeft[flash]'" in table and "apt install stlink-tools" in table


def test_versions_are_asked_for_where_the_tool_tells_them(only_tools):
    only_tools(openocd="echo 'Open On-Chip Debugger 0.12.0' >&2", st_flash="echo v1.7.0", JLinkExe="exit 1")
    checks = {check.name: check for check in diagnose()}
    found = {name: (checks[name].version, checks[name].found) for name in ("openocd", "st-flash", "JLinkExe")}
    assert found == {"openocd": ("0.12.0", True), "st-flash": ("1.7.0", True), "JLinkExe": ("unknown", True)}

"""Which flasher is taken, and what is said where none can be; settings of board files."""

from __future__ import annotations

import pytest

from tinypeft.errors import BoardError, ToolError
from tinypeft.flashers import FLASHERS, choose

TWO = {"st-flash": {"address": 0x0800_0000}, "openocd": {"config": "board/x.cfg"}}


def test_the_first_installed_in_the_boards_order(only_tools, make_board):
    board = make_board(flashers=TWO)
    only_tools(openocd="")
    assert choose(board, None).name == "openocd"
    only_tools(st_flash="")
    assert choose(board, None).name == "st-flash"
    assert choose(board, "openocd").name == "openocd"


def test_none_installed_lists_all_and_how_to_get_them(only_tools, make_board):
    board = make_board(flashers=TWO)
    with pytest.raises(ToolError) as caught:
        choose(board, None)
    assert "no flasher of board fake_board is installed" in caught.value.message
    assert "st-flash: st-flash is not installed; apt install stlink-tools" in caught.value.message
    assert "openocd: openocd is not installed; apt install openocd" in caught.value.message
    assert choose(board, None, dry_run=True).name == "st-flash"
    assert choose(board, "openocd", dry_run=True).name == "openocd"
    with pytest.raises(ToolError, match=r"openocd cannot run here: .*apt install openocd"):
        choose(board, "openocd")


def test_a_tool_beside_this_python_is_found(only_tools, make_board, monkeypatch, tmp_path):
    only_tools()
    beside = tmp_path / "venv"
    beside.mkdir()
    (beside / "pyocd").write_text("")
    monkeypatch.setattr("tinypeft.flashers.base.sys.executable", str(beside / "python"))
    board = make_board(flashers={"pyocd": {"target": "x"}})
    assert choose(board, None).executable() == str(beside / "pyocd")
    only_tools(pyocd="")
    assert choose(board, None).executable() == "pyocd"


def test_boards_that_cannot_be_flashed(make_board):
    with pytest.raises(BoardError, match="board fake_board is emulated only") as caught:
        choose(make_board(emulators={"qemu": {}}), None)
    assert caught.value.hint == "tinypeft test DIR --on qemu"
    with pytest.raises(BoardError, match="emulated only") as caught:
        choose(make_board(), "openocd")
    assert caught.value.hint == "tinypeft test DIR --on host"
    with pytest.raises(BoardError, match="not flashed by jlink") as caught:
        choose(make_board(flashers=TWO), "jlink")
    assert caught.value.hint == "flashers of this board: st-flash, openocd"
    with pytest.raises(BoardError, match="there is no flasher 'dfu'"):
        choose(make_board(flashers={"dfu": {}}), None)


@pytest.mark.parametrize(
    ("flasher", "settings", "message"),
    [
        ("pyocd", {}, "fake_board: flashers.pyocd lacks 'target', a string"),
        ("pyocd", {"target": 3}, r"flashers.pyocd.target is 3, not a string"),
        ("pyocd", {"target": ""}, r"flashers.pyocd.target is ''"),
        ("pyocd", {"target": "x", "targte": "y"}, "unknown key 'targte'"),
        ("openocd", {"config": []}, r"flashers.openocd.config is \[\]"),
        ("openocd", {"config": ["a", 1]}, r"flashers.openocd.config is \['a', 1\]"),
        ("openocd", {"config": "a", "speed": -1}, "flashers.openocd.speed is -1"),
        ("st-flash", {"address": "0x08000000"}, "flashers.st-flash.address is '0x08000000', not an address"),
        ("st-flash", {"address": True}, "flashers.st-flash.address is True"),
        ("st-flash", {"address": 1 << 32}, "flashers.st-flash.address is 4294967296"),
        ("probe-rs", {"chip": None}, "flashers.probe-rs lacks 'chip'"),
        ("jlink", {"device": "x", "speed": "fast"}, "flashers.jlink.speed is 'fast'"),
        ("uf2", {"family": 1.5}, "flashers.uf2.family is 1.5"),
    ],
)
def test_settings_of_a_board_file_are_checked(make_board, image, flasher, settings, message):
    with pytest.raises(BoardError, match=message) as caught:
        FLASHERS[flasher].plan(image, make_board(flashers={flasher: settings}), None, dry_run=True)
    assert caught.value.hint

"""Renode's scripts for every board that names a platform, against what Renode 1.16 has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tinypeft.boards import board_names, load_board
from tinypeft.emulators import EMULATORS
from tinypeft.errors import BoardError, OutputError

BOARDS = [name for name in board_names() if "renode" in load_board(name).emulators]

#: platform -> its UARTs that were seen to print, and its RAM at the address that firmware is linked to: (start, end)
PLATFORMS = {
    "platforms/boards/stm32f4_discovery-kit.repl": ({"usart2"}, (0x2000_0000, 0x2004_0000)),
    "platforms/boards/stm32f7_discovery-bb.repl": (
        {"usart1", "usart2", "usart3", "usart6"},
        (0x2000_0000, 0x2006_0000),
    ),
    "platforms/boards/nucleo_h753zi.repl": ({"usart3"}, (0x2000_0000, 0x2002_0000)),
    "platforms/boards/nrf52840dk_nrf52840.repl": ({"uart0"}, (0x2000_0000, 0x2004_0000)),
    "platforms/cpus/stm32l552.repl": ({"lpuart1"}, (0x2000_0000, 0x2004_0000)),
}


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder in which the scripts find their firmware."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "firmware.elf").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_names_what_renode_has(name):
    board = load_board(name)
    settings = board.emulators["renode"]
    uarts, (start, end) = PLATFORMS[settings["platform"]]
    bus, _, uart = settings["uart"].partition(".")
    assert bus == "sysbus" and uart in uarts
    assert start <= board.ram.origin and board.ram.end <= end


@pytest.mark.parametrize("name", BOARDS)
def test_the_scripts_of_a_board(built, name):
    board = load_board(name)
    settings = board.emulators["renode"]
    resc, robot = EMULATORS["renode"].write_scripts(built, board)
    assert resc.read_text().splitlines() == [
        f"# The firmware on {name} in Renode; its console is on TCP port $port.",
        "$port?=3456",
        f'mach create "{name}"',
        f"machine LoadPlatformDescription @{settings['platform']}",
        "path add $ORIGIN",
        "sysbus LoadELF @firmware.elf",
        'emulation CreateServerSocketTerminal $port "term" false',
        f"connector Connect {settings['uart']} term",
        "start",
    ]
    lines = [re.split(r" {2,}", line) for line in robot.read_text().splitlines()]
    case = lines[lines.index(["Firmware Should Start"]) + 1 :]
    assert [line[1:] for line in case] == [
        ["Execute Command", "mach create"],
        ["Execute Command", f"machine LoadPlatformDescription @{settings['platform']}"],
        ["Execute Command", "sysbus LoadELF @${ELF}"],
        ["Create Terminal Tester", settings["uart"]],
        ["Start Emulation"],
        ["Wait For Line On Uart", "tinypeft .+ ready", "treatAsRegex=true", "timeout=10"],
    ]
    assert ["${ELF}", "${CURDIR}/firmware.elf"] in lines and ["Resource", "${RENODEKEYWORDS}"] in lines


def test_boards_without_a_platform_or_a_build(built, tmp_path):
    renode = EMULATORS["renode"]
    with pytest.raises(BoardError, match="board mps2_an386 does not run on renode"):
        renode.write_scripts(built, load_board("mps2_an386"))
    with pytest.raises(OutputError, match="cannot write .*firmware.resc"):
        renode.write_scripts(tmp_path / "absent", load_board(BOARDS[0]))

"""Board files: what the shipped ones say, and what a faulty one is answered."""

from pathlib import Path

import pytest

from tinypeft.boards import Region, board_names, load_board, read_board
from tinypeft.errors import BoardError
from tinypeft.resources import resource_path


def test_names():
    assert board_names() == ["host", "mps2_an386", "stm32f4_discovery"]


@pytest.mark.parametrize("name", board_names())
def test_every_board_is_complete(name):
    board = load_board(name)
    assert board.name == name and board.title
    if board.is_host:
        assert board.memories == () and board.console is None and board.cpu_flags == ()
        return
    assert board.datasheet and board.clock_hz and board.emulators
    assert all(region.reference for region in board.memories)
    assert resource_path("firmware", "consoles", f"{board.console.driver}.c").is_file()


def test_stm32f4_discovery():
    board = load_board("stm32f4_discovery")
    assert (board.flash.origin, board.flash.length) == (0x0800_0000, 1 << 20)
    assert (board.ram.origin, board.ram.length) == (0x2000_0000, 128 << 10)
    assert [region.name for region in board.memories if not region.arena] == ["ccm"]
    assert board.console.settings["base"] == 0x4000_4400
    assert board.emulators["qemu"] == {"machine": "netduinoplus2", "serial": 1}
    assert board.cpu_flags == ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16")


def test_host_has_no_memories_to_link_into():
    with pytest.raises(BoardError, match="host has no flash"):
        _ = load_board("host").flash


@pytest.mark.parametrize("name", ["stm32f4", "STM32F4_DISCOVERY", "stm32f4-discovery"])
def test_unknown_board_is_suggested(name):
    with pytest.raises(BoardError) as caught:
        load_board(name)
    assert name in caught.value.message
    if name != "STM32F4_DISCOVERY":
        assert caught.value.hint == "did you mean stm32f4_discovery?"


@pytest.mark.parametrize("name", ["", "../boards/host", "zzz", "/"])
def test_unknown_board_lists_the_known(name):
    with pytest.raises(BoardError) as caught:
        load_board(name)
    assert "mps2_an386" in caught.value.hint or "did you mean" in caught.value.hint


def faulty(tmp_path: Path, old: str, new: str) -> BoardError:
    text = resource_path("boards", "stm32f4_discovery", "board.toml").read_text()
    assert old in text
    file = tmp_path / "stm32f4_discovery" / "board.toml"
    file.parent.mkdir()
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(BoardError) as caught:
        read_board(file)
    assert str(file) in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("clock_hz = 16_000_000", "clock_hz = 0", "'clock_hz'"),
        ("clock_hz = 16_000_000", 'clock_hz = "fast"', "'clock_hz'"),
        ("clock_hz = 16_000_000", "clock_hz = true", "'clock_hz'"),
        ("clock_hz = 16_000_000", "", "'clock_hz' is missing"),
        ('kind = "ram"', 'kind = "rom"', "'memories[1].kind'"),
        ("origin = 0x2000_0000", "origin = -1", "'memories[1].origin'"),
        ("length = 0x0002_0000", "length = 0xE000_0001", "'memories[1].length'"),
        ("origin = 0x2000_0000", "origin = 0x0800_0000", "overlap"),
        ('name = "ccm"', 'name = "sram"', "twice"),
        ('name = "ccm"', 'name = "c c m"', "'memories[2].name'"),
        ("arena = false", 'arena = "no"', "'memories[2].arena'"),
        ('driver = "stm32_usart"', 'driver = "stm32_uart"', "cmsdk_uart, stm32_usart"),
        ("tx_pin = 2", 'tx_pin = "PA2"', "'console.settings.tx_pin'"),
        ("tx_pin = 2", "TX = 2", "'console.settings.TX'"),
        ("[emulators.qemu]", "[emulators]\nqemu = 3\n[emulators.other]", "'emulators.qemu'"),
        ('float_abi = "hard"', 'float_abi = "fast"', "'float_abi'"),
        ('name = "stm32f4_discovery"', 'name = "other"', "'name'"),
        ("[console]", "[console", "line"),
    ],
)
def test_faulty_board_names_file_and_key(tmp_path, old, new, expected):
    assert expected in faulty(tmp_path, old, new).message


@pytest.mark.parametrize(
    ("old", "new", "key", "suggestion"),
    [
        ("clock_hz =", "clock =", "'clock'", "clock_hz"),
        ("baud =", "bauds =", "'console.bauds'", "baud"),
        ("origin =", "orgin =", "'memories[0].orgin'", "origin"),
    ],
)
def test_unknown_key_is_suggested(tmp_path, old, new, key, suggestion):
    error = faulty(tmp_path, old, new)
    assert key in error.message and error.hint == f"did you mean {suggestion!r}?"


def test_region_end():
    assert Region("r", "ram", 0x1000, 0x10, "").end == 0x1010

"""Board files: what the shipped ones say, and what a faulty one is answered."""

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tinypeft.boards import Board, Region, board_names, board_on, describe_twin, load_board, read_board
from tinypeft.cli import main
from tinypeft.errors import BoardError
from tinypeft.flashers import FLASHERS
from tinypeft.resources import resource_path

#: name -> (core, flash, RAMs in order): where each lies and its size in KB
MEMORIES = {
    "bbc_microbit": ("Cortex-M0", (0, 256), [("ram", 0x2000_0000, 16)]),
    "mps2_an385": ("Cortex-M3", (0, 4096), [("ram", 0x2000_0000, 4096), ("psram", 0x2100_0000, 16384)]),
    "mps2_an386": ("Cortex-M4", (0, 4096), [("ram", 0x2000_0000, 4096), ("psram", 0x2100_0000, 16384)]),
    "mps2_an500": ("Cortex-M7", (0, 4096), [("ram", 0x2000_0000, 4096), ("psram", 0x6000_0000, 16384)]),
    "mps2_an505": (
        "Cortex-M33",
        (0x1000_0000, 4096),
        [("ram", 0x3800_0000, 4096), ("sram", 0x3000_0000, 32), ("psram", 0x8000_0000, 16384)],
    ),
    "mps3_an547": ("Cortex-M55", (0x1000_0000, 512), [("dtcm", 0x3000_0000, 512), ("isram", 0x3100_0000, 4096)]),
    "nrf52840dk": ("Cortex-M4", (0, 1024), [("ram", 0x2000_0000, 256)]),
    "nucleo_f446re": ("Cortex-M4", (0x0800_0000, 512), [("sram", 0x2000_0000, 128)]),
    "nucleo_h743zi": (
        "Cortex-M7",
        (0x0800_0000, 2048),
        [
            ("dtcm", 0x2000_0000, 128),
            ("axi_sram", 0x2400_0000, 512),
            ("sram12", 0x3000_0000, 256),
            ("sram3", 0x3004_0000, 32),
            ("sram4", 0x3800_0000, 64),
        ],
    ),
    "nucleo_l552ze_q": ("Cortex-M33", (0x0800_0000, 512), [("sram1", 0x2000_0000, 192), ("sram2", 0x2003_0000, 64)]),
    "qemu_cortex_m0": ("Cortex-M0", (0, 2048), [("ram", 0x2000_0000, 1024)]),
    "raspberry_pi_pico": ("Cortex-M0+", (0x1000_0000, 2048), [("sram", 0x2000_0000, 256), ("sram45", 0x2004_0000, 8)]),
    "stm32f4_discovery": ("Cortex-M4", (0x0800_0000, 1024), [("sram", 0x2000_0000, 128)]),
    "stm32f746g_disco": ("Cortex-M7", (0x0800_0000, 1024), [("dtcm", 0x2000_0000, 64), ("sram", 0x2001_0000, 256)]),
}
FIRMWARE_BOARDS = sorted(MEMORIES)
WITH_TWIN = [name for name in FIRMWARE_BOARDS if load_board(name).twin]
#: Boards that cannot be bought as such, or that are programmed in another way than by a probe
EMULATED_ONLY = {"mps2_an385", "mps2_an386", "mps2_an500", "mps2_an505", "mps3_an547", "qemu_cortex_m0"}


def test_names():
    assert board_names() == sorted([*MEMORIES, "host"])


@pytest.mark.parametrize("name", FIRMWARE_BOARDS)
def test_memories(name):
    board = load_board(name)
    core, flash, rams = MEMORIES[name]
    assert board.core_name == core
    assert (board.flash.origin, board.flash.length) == (flash[0], flash[1] << 10)
    usable = [region for region in board.memories if region.kind == "ram" and region.arena]
    assert [(region.name, region.origin, region.length >> 10) for region in usable] == rams
    assert board.ram == usable[0]


@pytest.mark.parametrize("name", board_names())
def test_every_board_is_complete(name):
    board = load_board(name)
    assert board.name == name and board.title
    if board.is_host:
        assert board.memories == () and board.console is None and board.clock is None and board.cpu_flags == ()
        return
    assert board.datasheet and board.clock_hz and (board.emulators or board.twin)
    assert all(region.reference for region in board.memories)
    assert board.clock.source and board.console.pins
    assert bool(board.flashers) == (name not in EMULATED_ONLY)


@pytest.mark.parametrize("name", FIRMWARE_BOARDS)
def test_flashers_know_their_settings(name):
    board = load_board(name)
    for flasher in board.flashers:
        FLASHERS[flasher].settings_of(board)
    if "st-flash" in board.flashers:
        assert board.flashers["st-flash"]["address"] == board.flash.origin


def divided_rate(board: Board) -> float:
    """The baud rate that the console's divider gives."""
    clock, baud, driver = board.clock_hz, board.console.baud, board.console.driver
    settings = board.console.settings
    if driver in ("nrf_uart", "nrf_uarte"):
        return settings["baud_register"] * 16e6 / 2**32
    if driver == "pl011":
        return 4 * clock / round(4 * clock / baud)
    scale = settings.get("baud_scale", 1)
    return scale * clock / round(scale * clock / baud)


@pytest.mark.parametrize("name", FIRMWARE_BOARDS)
def test_baud_rate_is_within_a_percent(name):
    board = load_board(name)
    assert abs(divided_rate(board) / board.console.baud - 1) < 0.01


@pytest.mark.parametrize("name", WITH_TWIN)
def test_twin_runs_the_same_instructions_in_the_same_memories(name):
    board = load_board(name)
    twin = load_board(board.twin)
    if "qemu" in board.emulators:
        board = board.with_storage()
    assert "qemu" not in board.emulators and "qemu" in twin.emulators and not twin.twin
    assert board.core == twin.core or {board.core, twin.core} == {"cortex-m0", "cortex-m0plus"}
    borrowed = board_on(board, "qemu")
    assert borrowed.name == twin.name and borrowed.cpu_flags == board.cpu_flags
    assert borrowed.console == twin.console and borrowed.emulators == twin.emulators
    usable = [(r.name, r.kind, r.length) for r in board.memories if r.arena]
    assert [(r.name, r.kind, r.length) for r in borrowed.memories if r.arena] == usable
    for region in (r for r in borrowed.memories if r.arena):
        around = twin.flash if region.kind == "flash" else twin.ram
        assert around.origin <= region.origin and region.end <= around.end
    assert f"{twin.name}, a {twin.core_name}" in describe_twin(board) and name in describe_twin(board)


def test_board_that_an_emulator_knows_is_its_own():
    board = load_board("nucleo_h743zi")
    assert board_on(board, "renode") is board
    with pytest.raises(BoardError) as caught:
        board_on(board, "serial")
    assert caught.value.message == "board nucleo_h743zi does not run on serial"
    assert caught.value.hint == "emulators of this board: qemu, renode"
    with pytest.raises(BoardError, match="raspberry_pi_pico does not run on renode"):
        board_on(load_board("raspberry_pi_pico"), "renode")


def test_twin_that_is_too_small():
    board = replace(load_board("stm32f746g_disco"), twin="bbc_microbit")
    with pytest.raises(
        BoardError, match="bbc_microbit, twin of stm32f746g_disco, has 262,144 B in flash, .* 1,048,576"
    ):
        board_on(board, "qemu")


def test_twin_of_another_core_is_told():
    assert describe_twin(load_board("nucleo_h743zi")) == "mps2_an500, a Cortex-M7 as on nucleo_h743zi"
    assert describe_twin(load_board("raspberry_pi_pico")) == (
        "qemu_cortex_m0, a Cortex-M0, which executes all instructions of the Cortex-M0+ on raspberry_pi_pico"
    )


def shown(value: object) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"0x{value:08X}" if isinstance(value, int) and value > 0xFFFF else str(value)


@pytest.mark.parametrize("name", board_names())
def test_show_prints_every_fact(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    text = CliRunner().invoke(main, ["boards", "show", name]).stdout
    board = load_board(name)
    facts = [board.name, board.title, board.core_name, board.datasheet, board.twin, *board.cpu_flags, *board.notes]
    for region in board.memories:
        facts += [region.name, region.kind, f"0x{region.origin:08X}", region.reference]
        assert (f"{region.length // 1024:,} KB" in text) and ("not used" in text or region.arena)
    if not board.is_host:
        facts += [f"{board.clock_hz:,} Hz", board.clock.source, board.clock.driver]
        facts += [board.console.driver, f"{board.console.baud} baud", board.console.pins]
        facts += [f"{key}={shown(value)}" for key, value in board.console.settings.items()]
        facts += [f"{key}={shown(value)}" for key, value in board.clock.settings.items()]
    if board.storage:
        facts += [
            board.storage.driver,
            board.storage.region,
            board.storage.reference,
            f"{board.storage.sectors} sectors",
        ]
        facts += [f"{key}={shown(value)}" for key, value in board.storage.settings.items()]
    for tools in (board.emulators, board.flashers):
        for tool, settings in tools.items():
            facts += [f"{tool}: ", *(f"{key}={shown(value)}" for key, value in settings.items())]
    assert [fact for fact in facts if fact not in text] == []


def test_list_says_where_each_board_runs(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    lines = {line.split("│")[1].strip(): line for line in CliRunner().invoke(main, ["boards"]).stdout.split("\n")[3:-2]}
    assert sorted(lines) == board_names()
    assert "renode, qemu (mps2_an500)" in lines["nucleo_h743zi"] and "992 KB" in lines["nucleo_h743zi"]


def test_stm32f4_discovery():
    board = load_board("stm32f4_discovery")
    assert (board.flash.origin, board.flash.length) == (0x0800_0000, 1 << 20)
    assert (board.ram.origin, board.ram.length) == (0x2000_0000, 128 << 10)
    assert [region.name for region in board.memories if not region.arena] == ["ccm"]
    assert board.console.settings["base"] == 0x4000_4400
    assert board.emulators["qemu"] == {"machine": "netduinoplus2", "serial": 1, "storage": False}
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
        ('driver = "stm32_usart"', 'driver = "stm32_uart"', "cmsdk_uart, nrf_uart"),
        ("tx_pin = 2", 'tx_pin = "PA2"', "'console.settings.tx_pin'"),
        ("tx_pin = 2", "TX = 2", "'console.settings.TX'"),
        ("[emulators.qemu]", "[emulators]\nqemu = 3\n[emulators.other]", "'emulators.qemu'"),
        ('float_abi = "hard"', 'float_abi = "fast"', "'float_abi'"),
        ('name = "stm32f4_discovery"', 'name = "other"', "'name'"),
        ("[console]", "[console", "line"),
        ('core = "cortex-m4"', 'core = "cortex-m23"', "'core'"),
        ("[clock]\n", '[clock]\ndriver = "stm32"\n', "'clock.driver'"),
        ("[clock]\n", "[clock]\nsettings = {}\n", "'clock.settings' is for a driver"),
        ('source = "HSI', 'source = 3 # "HSI', "'clock.source'"),
        ("pins = ", "# pins = ", "'console.pins' is missing"),
        ('twin = "mps2_an386"', 'twin = "mps9"', "'twin' is 'mps9', which is no board"),
        ('twin = "mps2_an386"', 'twin = "../boards/host"', "'twin'"),
        ("clock_hz =", 'notes = "text"\nclock_hz =', "'notes'"),
        ('name = "ccm"', 'name = "storage"', "not 'storage'"),
        (
            'driver = "stm32f4"',
            'driver = "stm32f5"',
            "'storage.driver' is 'stm32f5', not one of nrf52840, ram, stm32f4",
        ),
        ('driver = "stm32f4"', 'driver = "host"', "'storage.driver'"),
        ('region = "flash"', 'region = "flsh"', "'storage.region' is 'flsh', not one of flash, sram, ccm"),
        ("offset = 0x8_0000", "offset = 0xA_0000", "'storage.offset' is 0xa0000: 0x80000 bytes from there do not fit"),
        ("offset = 0x8_0000", "offset = 0", "'storage.offset'"),
        ("sector_bytes = 0x2_0000", "sector_bytes = 100", "'storage.sector_bytes' is 100, no multiple of 64"),
        ("\nsectors = 4", "\nsectors = 2", "'storage.sectors'"),
        ("log_sectors = 2", "log_sectors = 1", "'storage.log_sectors'"),
        ("log_sectors = 2", "log_sectors = 4", "'storage.log_sectors' is 4: of 4 sectors none is left"),
        ("write_unit = 4", "write_unit = 3", "'storage.write_unit' is 3, not one of 1, 2, 4"),
        ("erased = 0xFF", "erased = 0xF0", "'storage.erased' is 0xf0"),
        ("first_sector = 8", 'first_sector = "8"', "'storage.settings.first_sector'"),
        ('reference = "RM0090, 3.3 Embedded flash memory: sectors 8', 'refrence = "', "'storage.refrence'"),
        ("clock_hz =", "trustzone = 1\nclock_hz =", "'trustzone' must be true or false"),
    ],
)
def test_faulty_board_names_file_and_key(tmp_path, old, new, expected):
    assert expected in faulty(tmp_path, old, new).message


@pytest.mark.parametrize(
    ("old", "new", "key", "suggestion"),
    [
        ("clock_hz =", "clok_hz =", "'clok_hz'", "clock_hz"),
        ("baud =", "bauds =", "'console.bauds'", "baud"),
        ("origin =", "orgin =", "'memories[0].orgin'", "origin"),
    ],
)
def test_unknown_key_is_suggested(tmp_path, old, new, key, suggestion):
    error = faulty(tmp_path, old, new)
    assert key in error.message and error.hint == f"did you mean {suggestion!r}?"


def test_region_end():
    assert Region("r", "ram", 0x1000, 0x10, "").end == 0x1010

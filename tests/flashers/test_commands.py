"""The exact command lines of every flasher for every board that lists it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tinypeft.boards import board_names, load_board
from tinypeft.flashers import FLASHERS, Image

#: board -> flasher -> its commands for firmware in /p q/build, as a shell takes them
COMMANDS: dict[str, dict[str, str]] = {
    "bbc_microbit": {
        "pyocd": "pyocd flash --no-wait --target nrf51822 '/p q/build/firmware.elf'",
        "openocd": (
            "openocd -f interface/cmsis-dap.cfg -c 'transport select swd' -f target/nrf51.cfg -c 'cd "
            "/p\\ q/build' -c 'program firmware.elf verify reset exit'"
        ),
        "probe-rs": (
            "probe-rs download --chip nRF51822_xxAA --verify '/p q/build/firmware.elf' && probe-rs "
            "reset --chip nRF51822_xxAA"
        ),
        "jlink": (
            "JLinkExe -NoGui 1 -Device nRF51822_xxAA -If SWD -Speed 4000 -CommandFile '/p q/build/firmware.jlink'"
        ),
    },
    "nrf52840dk": {
        "jlink": (
            "JLinkExe -NoGui 1 -Device nRF52840_xxAA -If SWD -Speed 4000 -CommandFile '/p q/build/firmware.jlink'"
        ),
        "pyocd": "pyocd flash --no-wait --target nrf52840 '/p q/build/firmware.elf'",
        "probe-rs": (
            "probe-rs download --chip nRF52840_xxAA --verify '/p q/build/firmware.elf' && probe-rs "
            "reset --chip nRF52840_xxAA"
        ),
        "openocd": (
            "openocd -f interface/jlink.cfg -c 'transport select swd' -f target/nrf52.cfg -c 'cd /p\\ "
            "q/build' -c 'program firmware.elf verify reset exit'"
        ),
    },
    "nucleo_f446re": {
        "st-flash": "st-flash --reset write '/p q/build/firmware.bin' 0x08000000",
        "openocd": "openocd -f board/st_nucleo_f4.cfg -c 'cd /p\\ q/build' -c 'program firmware.elf verify reset exit'",
        "pyocd": "pyocd flash --no-wait --target stm32f446retx '/p q/build/firmware.elf'",
        "probe-rs": (
            "probe-rs download --chip STM32F446RETx --verify '/p q/build/firmware.elf' && probe-rs "
            "reset --chip STM32F446RETx"
        ),
        "jlink": "JLinkExe -NoGui 1 -Device STM32F446RE -If SWD -Speed 4000 -CommandFile '/p q/build/firmware.jlink'",
    },
    "nucleo_h743zi": {
        "st-flash": "st-flash --reset write '/p q/build/firmware.bin' 0x08000000",
        "openocd": (
            "openocd -f board/st_nucleo_h743zi.cfg -c 'cd /p\\ q/build' -c 'program firmware.elf verify reset exit'"
        ),
        "pyocd": "pyocd flash --no-wait --target stm32h743xx '/p q/build/firmware.elf'",
        "probe-rs": (
            "probe-rs download --chip STM32H743ZITx --verify '/p q/build/firmware.elf' && probe-rs "
            "reset --chip STM32H743ZITx"
        ),
        "jlink": "JLinkExe -NoGui 1 -Device STM32H743ZI -If SWD -Speed 4000 -CommandFile '/p q/build/firmware.jlink'",
    },
    "nucleo_l552ze_q": {
        "st-flash": "st-flash --reset write '/p q/build/firmware.bin' 0x08000000",
        "pyocd": "pyocd flash --no-wait --target stm32l552zetxq '/p q/build/firmware.elf'",
        "openocd": "openocd -f board/st_nucleo_l5.cfg -c 'cd /p\\ q/build' -c 'program firmware.elf verify reset exit'",
        "probe-rs": (
            "probe-rs download --chip STM32L552ZETxQ --verify '/p q/build/firmware.elf' && probe-rs "
            "reset --chip STM32L552ZETxQ"
        ),
        "jlink": "JLinkExe -NoGui 1 -Device STM32L552ZE -If SWD -Speed 4000 -CommandFile '/p q/build/firmware.jlink'",
    },
    "raspberry_pi_pico": {
        "uf2": "cp '/p q/build/firmware.uf2' '<drive RPI-RP2>/FIRMWARE.UF2'",
        "openocd": (
            "openocd -f interface/cmsis-dap.cfg -c 'transport select swd' -f target/rp2040.cfg -c "
            "'adapter speed 5000' -c 'cd /p\\ q/build' -c 'program firmware.elf verify reset exit'"
        ),
        "probe-rs": (
            "probe-rs download --chip RP2040 --verify '/p q/build/firmware.elf' && probe-rs reset --chip RP2040"
        ),
        "pyocd": "pyocd flash --no-wait --target rp2040 '/p q/build/firmware.elf'",
        "jlink": "JLinkExe -NoGui 1 -Device RP2040_M0_0 -If SWD -Speed 4000 -CommandFile '/p q/build/firmware.jlink'",
    },
    "stm32f4_discovery": {
        "st-flash": "st-flash --reset write '/p q/build/firmware.bin' 0x08000000",
        "openocd": (
            "openocd -f board/stm32f4discovery.cfg -c 'cd /p\\ q/build' -c 'program firmware.elf verify reset exit'"
        ),
        "pyocd": "pyocd flash --no-wait --target stm32f407vgtx '/p q/build/firmware.elf'",
        "probe-rs": (
            "probe-rs download --chip STM32F407VGTx --verify '/p q/build/firmware.elf' && probe-rs "
            "reset --chip STM32F407VGTx"
        ),
        "jlink": "JLinkExe -NoGui 1 -Device STM32F407VG -If SWD -Speed 4000 -CommandFile '/p q/build/firmware.jlink'",
    },
    "stm32f746g_disco": {
        "st-flash": "st-flash --reset write '/p q/build/firmware.bin' 0x08000000",
        "openocd": (
            "openocd -f board/stm32f7discovery.cfg -c 'cd /p\\ q/build' -c 'program firmware.elf verify reset exit'"
        ),
        "pyocd": "pyocd flash --no-wait --target stm32f746nghx '/p q/build/firmware.elf'",
        "probe-rs": (
            "probe-rs download --chip STM32F746NGHx --verify '/p q/build/firmware.elf' && probe-rs "
            "reset --chip STM32F746NGHx"
        ),
        "jlink": "JLinkExe -NoGui 1 -Device STM32F746NG -If SWD -Speed 4000 -CommandFile '/p q/build/firmware.jlink'",
    },
}
PAIRS = [(board, flasher) for board in board_names() for flasher in load_board(board).flashers]

#: flasher -> the same with --probe, for one board
WITH_PROBE = {
    "pyocd": (
        "nrf52840dk",
        "0683 ab",
        "pyocd flash --no-wait --target nrf52840 --uid '0683 ab' '/p q/build/firmware.elf'",
    ),
    "openocd": (
        "stm32f4_discovery",
        "a [b]$c",
        "openocd -f board/stm32f4discovery.cfg -c 'adapter serial a\\ \\[b\\]\\$c' -c 'cd /p\\ q/build' "
        "-c 'program firmware.elf verify reset exit'",
    ),
    "st-flash": (
        "nucleo_h743zi",
        "066AFF",
        "st-flash --serial 066AFF --reset write '/p q/build/firmware.bin' 0x08000000",
    ),
    "probe-rs": (
        "nucleo_f446re",
        "0483:374b:066A",
        "probe-rs download --chip STM32F446RETx --probe 0483:374b:066A --verify '/p "
        "q/build/firmware.elf' && probe-rs reset --chip STM32F446RETx --probe 0483:374b:066A",
    ),
    "jlink": (
        "nrf52840dk",
        "683000001",
        "JLinkExe -NoGui 1 -USB 683000001 -Device nRF52840_xxAA -If SWD -Speed 4000 -CommandFile "
        "'/p q/build/firmware.jlink'",
    ),
    "uf2": (
        "raspberry_pi_pico",
        "/media/me/RPI-RP2",
        "cp '/p q/build/firmware.uf2' /media/me/RPI-RP2/FIRMWARE.UF2",
    ),
}


def commands(board: str, flasher: str, probe: str | None = None) -> str:
    plan = FLASHERS[flasher].plan(Image(Path("/p q/build")), load_board(board), probe, dry_run=True)
    return " && ".join(map(shlex.join, plan.commands))


@pytest.fixture(autouse=True)
def no_tool_beside_python(only_tools, monkeypatch) -> None:
    monkeypatch.setattr("tinypeft.flashers.uf2.ROOTS", ())


def test_every_board_and_flasher_is_in_the_table():
    assert {(board, flasher) for board, entries in COMMANDS.items() for flasher in entries} == set(PAIRS)
    assert set(WITH_PROBE) == set(FLASHERS) == {flasher for _, flasher in PAIRS}


@pytest.mark.parametrize(("board", "flasher"), PAIRS)
def test_commands(board, flasher):
    assert commands(board, flasher) == COMMANDS[board][flasher]


@pytest.mark.parametrize("flasher", WITH_PROBE)
def test_commands_with_a_probe(flasher):
    board, probe, expected = WITH_PROBE[flasher]
    assert commands(board, flasher, probe) == expected


@pytest.mark.parametrize(("board", "flasher"), PAIRS)
def test_the_address_of_the_binary_is_that_of_the_flash(board, flasher):
    settings = FLASHERS[flasher].settings_of(load_board(board))
    assert settings.get("address", load_board(board).flash.origin) == load_board(board).flash.origin


def test_the_script_of_jlink():
    plan = FLASHERS["jlink"].plan(Image(Path("/p q/build")), load_board("nrf52840dk"), None)
    script = 'ExitOnError 1\nr\nloadfile "/p q/build/firmware.elf"\nr\ng\nexit\n'
    assert plan.files == {Path("/p q/build/firmware.jlink"): script}

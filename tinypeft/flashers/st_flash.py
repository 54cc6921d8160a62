"""st-flash of stlink-tools: STM32 by the ST-Link that their boards carry. https://github.com/stlink-org/stlink"""

from __future__ import annotations

from tinypeft.flashers.base import NUMBER, BoardLike, Flasher, Image, Plan, Setting, register
from tinypeft.flashers.failures import Failure, locked, no_probe, no_target, permission


@register
class StFlash(Flasher):
    """`address`: where the flash, and with it the binary, begins."""

    name = "st-flash"
    program = "st-flash"
    install = "apt install stlink-tools, or brew install stlink"
    reaches = "STM32 boards with an ST-Link"
    settings = {"address": Setting("an address, the start of the flash", NUMBER)}
    probe = "a serial number: st-info --serial"
    failures = (
        permission(r"access error|LIBUSB_ERROR_ACCESS|permission denied"),
        Failure(
            r"unable to claim",
            "the ST-Link is in use",
            "end other debuggers, such as openocd or an IDE, then try again",
        ),
        no_probe(r"couldn't find any ST-?Link|failed to open USB device"),
        locked(r"write protected|flash unlock failed|failed to unlock flash", "st-flash --connect-under-reset erase"),
        no_target(r"unknown chip id|failed to (connect to target|enter SWD mode|read core_id|halt the core)"),
    )

    def plan(self, image: Image, board: BoardLike, probe: str | None, *, dry_run: bool = False) -> Plan:
        command = [self.executable(), *(["--serial", probe] if probe else []), "--reset"]
        return Plan([[*command, "write", str(image.bin), f"0x{self.settings_of(board)['address']:08X}"]])

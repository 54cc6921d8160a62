"""pyOCD: CMSIS-DAP, DAPLink, ST-Link and J-Link probes. https://pyocd.io/docs/command_reference.html"""

from __future__ import annotations

from tinypeft.flashers.base import TEXT, BoardLike, Flasher, Image, Plan, Setting, register
from tinypeft.flashers.failures import Failure, locked, no_probe, no_target, permission, several


@register
class PyOcd(Flasher):
    """`target` is pyOCD's name of the chip, built in or from a CMSIS pack."""

    name = "pyocd"
    program = "pyocd"
    install = "pip install 'tinypeft[flash]'"
    reaches = "boards with a CMSIS-DAP, ST-Link or J-Link probe"
    settings = {"target": Setting("a string, a name of `pyocd list --targets`", TEXT)}
    probe = "a unique ID or part of it: pyocd list --probes"
    failures = (
        Failure(
            r"target type \S+ not recognized",
            "it does not know the chip {target} yet",
            "pyocd pack install {target}",
        ),
        permission(r"remedied with a udev rule|LIBUSB_ERROR_ACCESS|access denied|permission denied"),
        several(r"enter the number of the debug probe|more than one debug probe matches"),
        no_probe(r"no connected debug probe|no available debug probes|no target device available"),
        locked(r"APPROTECT enabled|is locked|flash security|read.?out protect", "pyocd erase --mass -t {target}"),
        no_target(r"no ACK|unable to connect to the target|memory transfer fault|unexpected ACK"),
    )

    def plan(self, image: Image, board: BoardLike, probe: str | None, *, dry_run: bool = False) -> Plan:
        target = self.settings_of(board)["target"]
        command = [self.executable(), "flash", "--no-wait", "--target", target]
        return Plan([[*command, *(["--uid", probe] if probe else []), str(image.elf)]])

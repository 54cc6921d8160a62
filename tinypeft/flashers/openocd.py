"""OpenOCD: most probes, by a board's or a probe's and a chip's configuration. https://openocd.org/doc/html/"""

from __future__ import annotations

import re

from tinypeft.flashers.base import NUMBER, TEXT_OR_LIST, BoardLike, Flasher, Image, Plan, Setting, register
from tinypeft.flashers.failures import Failure, locked, no_probe, no_target, permission, several


@register
class OpenOcd(Flasher):
    """`config`: the files that it is started with, in its own folder of scripts; `speed`: kHz, where they set none."""

    name = "openocd"
    program = "openocd"
    install = "apt install openocd, or brew install open-ocd"
    reaches = "boards with most probes"
    settings = {
        "config": Setting("a string or a list of strings, files below OpenOCD's scripts", TEXT_OR_LIST),
        "speed": Setting("a number of kHz; 0, the default, leaves it to the files", NUMBER, 0),
    }
    probe = "a serial number: lsusb -v shows it as iSerial"
    failures = (
        Failure(
            r"can't find (\S+\.cfg)",
            "this OpenOCD has no such configuration",
            "install OpenOCD 0.12 or later, or use another of the board's flashers: --runner",
        ),
        Failure(r"invalid serial number", "the ID given with --probe is none of this probe", "give {probe}"),
        permission(),
        several(r"multiple devices|more than one|multiple ST-?Links?"),
        no_probe(r"error: open failed|no j-link device found|unable to find a matching CMSIS-DAP|no device found"),
        locked(
            r"AP lock engaged|RDP level [12]|device (is )?(protected|secured|locked)", "see OpenOCD's flash commands"
        ),
        no_target(r"init mode failed|unable to connect to the target|could not find MEM-AP|cannot read IDR|DAP error"),
    )

    def plan(self, image: Image, board: BoardLike, probe: str | None, *, dry_run: bool = False) -> Plan:
        settings = self.settings_of(board)
        given = settings["config"]
        first, *others = [given] if isinstance(given, str) else given
        steps = [f"adapter speed {settings['speed']}"] if settings["speed"] else []
        steps += [f"adapter serial {_word(probe)}"] if probe else []
        # From the folder: `program` splits a file's name at its spaces.
        steps += [f"cd {_word(str(image.build))}", f"program {image.elf.name} verify reset exit"]
        # A board's file chooses the transport; with one for the probe and one for the chip, some would take JTAG.
        transport = ["-c", "transport select swd"] if others else []
        command = [self.executable(), "-f", first, *transport]
        command += [word for option, values in (("-f", others), ("-c", steps)) for v in values for word in (option, v)]
        return Plan([command])


def _word(text: str) -> str:
    """`text` as one word of Tcl."""
    return re.sub(r"([^\w./:+-])", r"\\\1", text)

"""J-Link Commander of SEGGER's J-Link software. https://kb.segger.com/J-Link_Commander"""

from __future__ import annotations

from tinypeft.flashers.base import NUMBER, TEXT, BoardLike, Flasher, Image, Plan, Setting, register
from tinypeft.flashers.failures import Failure, locked, no_probe, no_target, permission, several

#: Reset and halt, write, reset, go
_SCRIPT = """\
ExitOnError 1
r
loadfile "{elf}"
r
g
exit
"""


@register
class JLink(Flasher):
    """`device` is SEGGER's name of the chip; `speed` that of SWD in kHz."""

    name = "jlink"
    program = "JLinkExe"
    install = "get the J-Link software from https://www.segger.com/downloads/jlink"
    reaches = "boards with a J-Link"
    version_option = ""
    settings = {
        "device": Setting("a string, a name of J-Link's list of devices", TEXT),
        "speed": Setting("a number of kHz", NUMBER, 4000),
    }
    probe = "a serial number, printed on the J-Link"
    says_failed = (
        r"\bfailed:|cannot connect|could not connect|\*{3,} *error|error while|error occurred|failed to |"
        r"unspecified error|verification failed|unknown device"
    )
    failures = (
        Failure(
            r"unknown device|device \"?\S+\"? (is )?(unknown|not found)|failed to select device",
            "this J-Link software does not know the device {device}",
            "install a newer J-Link software, or use another of the board's flashers: --runner",
        ),
        permission(r"permission denied|no permission"),
        several(r"multiple j-links?|more than one (j-link|emulator)"),
        no_probe(r"cannot connect to j-link|no j-link found|no emulators? connected|connecting to j-link[^\n]*failed"),
        locked(r"secured|read.?protect|AP-?PROTECT|protected against", "JLinkExe, command `unlock`"),
        no_target(r"cannot connect to (the )?(target|CPU)|could not connect to|VTref=0\.0|target voltage too low"),
        Failure(
            r"error|failed",
            "the flash was not written",
            "read what it said above; give a lower speed in board.toml where the wires are long",
        ),
    )

    def plan(self, image: Image, board: BoardLike, probe: str | None, *, dry_run: bool = False) -> Plan:
        settings, script = self.settings_of(board), image.build / "firmware.jlink"
        command = [self.executable(), "-NoGui", "1", *(["-USB", probe] if probe else [])]
        command += ["-Device", settings["device"], "-If", "SWD", "-Speed", str(settings["speed"])]
        return Plan([[*command, "-CommandFile", str(script)]], {script: _SCRIPT.format(elf=image.elf)})

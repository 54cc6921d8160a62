"""probe-rs: CMSIS-DAP, ST-Link and J-Link probes. https://probe.rs/docs/tools/probe-rs/"""

from __future__ import annotations

from tinypeft.flashers.base import TEXT, BoardLike, Flasher, Image, Plan, Setting, register
from tinypeft.flashers.failures import Failure, locked, no_probe, no_target, permission, several


@register
class ProbeRs(Flasher):
    """`chip` is probe-rs' name of the chip."""

    name = "probe-rs"
    program = "probe-rs"
    install = "see https://probe.rs/docs/getting-started/installation"
    reaches = "boards with a CMSIS-DAP, ST-Link or J-Link probe"
    settings = {"chip": Setting("a string, a name of `probe-rs chip list`", TEXT)}
    probe = "VID:PID or VID:PID:SERIAL: probe-rs list"
    failures = (
        Failure(
            r"the chip '.*' was not found|chip not found",
            "this probe-rs does not know the chip {chip}",
            "install a newer probe-rs, or use another of the board's flashers: --runner",
        ),
        permission(r"permission denied|access denied|LIBUSB_ERROR_ACCESS|missing permissions? to (open|access)"),
        several(r"available probes:|\d+ probes were found"),
        no_probe(r"no connected probes were found|probe was not found|no probe(s)? (was|were) found"),
        locked(
            r"lacked the permission|erase_all|(core|device|chip) is locked|read.?protect",
            "probe-rs erase --allow-erase-all --chip {chip}",
        ),
        no_target(r"connecting to the chip was unsuccessful|target did not respond|failed to attach"),
    )

    def plan(self, image: Image, board: BoardLike, probe: str | None, *, dry_run: bool = False) -> Plan:
        chip = ["--chip", self.settings_of(board)["chip"], *(["--probe", probe] if probe else [])]
        program = self.executable()
        return Plan([[program, "download", *chip, "--verify", str(image.elf)], [program, "reset", *chip]])

"""What the tools say when they fail, and what to do about it: the causes that all of them know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """`pattern`, a regular expression that ignores case, in a tool's output means `meaning`; `hint` is what to try.

    `meaning` and `hint` may name the flasher's settings and {probe}, what its --probe takes.
    """

    pattern: str
    meaning: str
    hint: str


def permission(pattern: str = r"LIBUSB_ERROR_ACCESS|access error|insufficient permission|permission denied") -> Failure:
    """The probe is there but this user may not open it."""
    return Failure(
        pattern,
        "this user may not open the probe",
        "install the udev rules of the probe, for all of them: https://probe.rs/files/69-probe-rs.rules in "
        "/etc/udev/rules.d; then `udevadm control --reload` and plug it in again",
    )


def no_probe(pattern: str) -> Failure:
    """No debug probe answers."""
    return Failure(
        pattern,
        "it found no probe",
        "plug the board's debugger in with a cable that carries data; `lsusb` must list it. With --probe, check the ID",
    )


def several(pattern: str) -> Failure:
    """More than one probe, none chosen."""
    return Failure(pattern, "there are several probes", "choose one with --probe, {probe}")


def locked(pattern: str, hint: str) -> Failure:
    """The chip's flash or debug port is protected."""
    return Failure(pattern, "the chip is locked or read-out protected", f"unlocking erases all of it: {hint}")


def no_target(pattern: str) -> Failure:
    """The probe answers, the chip does not."""
    return Failure(
        pattern,
        "the probe does not reach the chip",
        "check that the board has power and its jumpers are set; hold reset while the command starts",
    )

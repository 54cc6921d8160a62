"""A built project and where it is to run in, a running device out: host twin, emulator, serial port or interpreter."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from tinypeft.boards import board_on, describe_twin, load_board
from tinypeft.device import Device
from tinypeft.device.protocol import Info
from tinypeft.emulators import find_emulator
from tinypeft.emulators.base import FIRMWARE, NOTHING, TWIN
from tinypeft.errors import DeviceError, ToolError
from tinypeft.generate import Project, build_for_emulator
from tinypeft.project import build_twin


@contextlib.contextmanager
def running_device(
    project: Project,
    on: str,
    *,
    count_instructions: bool,
    fresh: bool = True,
    tell: Callable[[str], None] = lambda message: None,
) -> Iterator[Device]:
    """The project, built, running; on a serial port whatever was flashed, which must be this project's firmware.

    `on`: host[:FILE], qemu, renode or serial:PORT[:BAUD]; `tell` is given what a user should know, as that a twin
    runs it. ToolError: it cannot run here; BoardError: the emulator has neither the board nor a twin; DeviceError:
    another project's firmware.
    """
    emulator = find_emulator(on)
    if (reason := emulator.missing()) is not None:
        raise ToolError(f"{on} cannot run here: {reason}", "tinypeft doctor lists what is installed; try --on host")
    folder, board = project.directory, project.board
    if emulator.builds == FIRMWARE:
        if board_on(board, emulator.name) is not board:
            lacking = f"{board.name} with storage" if emulator.name in load_board(board.name).emulators else board.name
            tell(f"{emulator.name} has no {lacking}: runs on {describe_twin(board)}")
    elif emulator.builds != TWIN:
        emulator.settings(board)
    if emulator.builds == TWIN:
        build_twin(folder)
    elif emulator.builds == FIRMWARE:
        folder, board = build_for_emulator(folder, board, emulator.name)
    with emulator.open(folder, board, count_instructions=count_instructions) as device:
        _check_firmware(project, device.info(), on)
        if fresh and emulator.builds == NOTHING and device.info().adapter_bytes:
            device.reset_adapter(0)  # as its start-up does; it may have learnt since
        yield device


def ran_on(project: Project, on: str) -> str:
    """The name of the board that `on` runs: the project's, its twin's in an emulator that lacks it, or "host"."""
    emulator = find_emulator(on)
    if emulator.builds == TWIN:
        return "host"
    return board_on(project.board, emulator.name).name if emulator.builds == FIRMWARE else project.board.name


def _check_firmware(project: Project, info: Info, on: str) -> None:
    """Raise DeviceError unless the device runs this project's model, with its adapter."""
    model = project.model
    found = (info.name, info.fingerprint, info.adapter_bytes, info.training_bytes)
    if found == (model.name, model.fingerprint, model.adapter_bytes, model.training_bytes):
        return
    raise DeviceError(
        f"{on} runs the firmware of another project: model {info.name} ({info.fingerprint.hex()[:12]}), "
        f"{info.adapter_bytes:,} B of adapter, {info.training_bytes:,} B to train it; {project.directory} is "
        f"{model.name} ({model.fingerprint.hex()[:12]}), {model.adapter_bytes:,} B and {model.training_bytes:,} B",
        f"flash this project: tinypeft flash {project.directory}",
    )

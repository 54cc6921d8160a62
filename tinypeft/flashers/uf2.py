"""UF2 boot loaders: the firmware is copied to the drive that the board shows in boot loader mode."""

from __future__ import annotations

import os
from pathlib import Path

from tinypeft.errors import BoardError, OutputError, ToolError
from tinypeft.flashers.base import NUMBER, BoardLike, Echo, Flasher, Image, Plan, Setting, register
from tinypeft.flashers.uf2_blocks import encode, loadable_segments

INFO = "INFO_UF2.TXT"
#: Where systems mount removable drives, and how deep
ROOTS = ("/media", "/run/media", "/mnt", "/Volumes")
_DEPTHS = ("", "*/", "*/*/")
#: family -> the Board-ID of the boot loader in the chip's ROM
BOARD_IDS = {0xE48BFF56: "RPI-RP2"}
_START = "start the board's boot loader (Raspberry Pi Pico: hold BOOTSEL while plugging it in) and mount its drive"


@register
class Uf2(Flasher):
    """`family` is the UF2 family of the chip; a drive of another family's Board-ID is refused."""

    name = "uf2"
    program = "cp"
    install = ""
    reaches = "boards with a UF2 boot loader"
    settings = {"family": Setting("an integer, the UF2 family ID", NUMBER)}
    probe = "the folder where the board's drive is mounted"
    failures = ()

    def missing(self) -> str | None:
        return None

    def plan(self, image: Image, board: BoardLike, probe: str | None, *, dry_run: bool = False) -> Plan:
        wanted = BOARD_IDS.get(self.settings_of(board)["family"])
        try:
            drive = str(_drive(wanted, probe))
        except ToolError:
            if not dry_run:
                raise
            drive = probe or f"<drive {wanted or 'with ' + INFO}>"
        return Plan([["cp", str(image.uf2), f"{drive}/FIRMWARE.UF2"]])

    def run(self, plan: Plan, image: Image, board: BoardLike, *, limit: float, echo: Echo) -> None:
        ((_, _, target),) = plan.commands
        segments = loadable_segments(image.elf)
        flash = [region for region in board.memories if region.kind == "flash"]
        for address, content in segments:
            if not any(region.origin <= address and address + len(content) <= region.end for region in flash):
                raise BoardError(
                    f"{len(content):,} B of {image.elf} at 0x{address:08X} are in no flash of board {board.name}",
                    "generate and build the project again",
                )
        blocks = encode(segments, self.settings_of(board)["family"])
        try:
            image.uf2.write_bytes(blocks)
        except OSError as error:
            raise OutputError(f"cannot write {image.uf2}: {error.strerror}", "build the project first") from error
        _copy(blocks, Path(target))
        echo(f"{len(blocks) // 512} blocks copied\n")


def _drive(wanted: str | None, probe: str | None) -> Path:
    """The mounted drive of a boot loader whose Board-ID is `wanted`, if given; ToolError unless there is one."""
    if probe is not None:
        board_id = _board_id(Path(probe))
        if board_id is None:
            raise ToolError(f"{probe} is no drive of a UF2 boot loader: it has no {INFO} with a Board-ID", _START)
        found = {Path(probe): board_id}
    else:
        infos = [path for root in ROOTS for depth in _DEPTHS for path in Path(root).glob(depth + INFO)]
        found = {path.parent: board_id for path in infos if (board_id := _board_id(path.parent)) is not None}
    matching = [drive for drive, board_id in found.items() if wanted in (None, board_id)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise ToolError(
            f"there are several drives of UF2 boot loaders: {', '.join(map(str, matching))}",
            "choose one with --probe PATH",
        )
    if found:
        others = ", ".join(f"{drive} is {board_id}" for drive, board_id in found.items())
        raise ToolError(f"no drive has the Board-ID {wanted}: {others}", _START)
    raise ToolError(
        f"no drive of a UF2 boot loader is mounted below {', '.join(ROOTS)}", f"{_START}, or give --probe PATH"
    )


def _board_id(drive: Path) -> str | None:
    """The Board-ID that the boot loader's drive tells, or None."""
    try:
        text = (drive / INFO).read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "Board-ID"), None)


def _copy(blocks: bytes, target: Path) -> None:
    """Write to the drive, and on to the board. Not by another name first: each block is flashed as it arrives."""
    written = False
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            rest = memoryview(blocks)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            written = True
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # A board that has got its last block restarts, and takes its drive along.
        if written and _board_id(target.parent) is None:
            return
        raise ToolError(
            f"cannot copy to {target}: {error.strerror}",
            "start the boot loader again, check the drive, and flash again",
        ) from error

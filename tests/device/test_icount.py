"""The counting plugin by itself, on a few instructions in assembly."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tinypeft.boards import load_board
from tinypeft.emulators.icount import build_plugin, last_count
from tinypeft.emulators.qemu import machine_command

#: 200 rounds of two instructions between the markers; the second is placed `end` bytes into the code
PROGRAM = """
.syntax unified
.thumb
.word 0x20001000, start + 1
.thumb_func
start:
  movs r0, #200
  b.w begin
.org {end} - 16
begin:
  orr.w r10, r10, r10
round:
  subs r0, #1
  bne round
.org {end}, 0
  orr.w r11, r11, r11
  ldr.w r3, [sp, #-4]
  b .
"""


@pytest.mark.parametrize("end", [0x1F00, 0x1FF8, 0x1FFA, 0x1FFC, 0x1FFE])
def test_markers_at_the_end_of_a_page_count(tmp_path: Path, end: int) -> None:
    """Of 4096 bytes; the instruction behind the marker, or the marker itself, may lie on both sides."""
    for program in ("arm-none-eabi-gcc", "qemu-system-arm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    plugin, reason = build_plugin()
    if plugin is None:
        pytest.skip(str(reason))
    source, elf, counts = tmp_path / "program.s", tmp_path / "program.elf", tmp_path / "counts"
    source.write_text(PROGRAM.format(end=end))
    command = ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-nostdlib", "-Wl,-Ttext=0", "-Wl,-e0"]
    subprocess.run([*command, "-o", elf, source], check=True, timeout=60)
    machine = machine_command(load_board("mps2_an386").emulators["qemu"])
    process = subprocess.Popen([*machine, "-kernel", elf, "-plugin", f"{plugin},out={counts}"])
    try:
        limit = time.monotonic() + 20
        while (count := last_count(counts)) is None and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    fillers = (end - (end - 16) - 8) // 2  # zeros between the loop and the marker, each an instruction
    assert count == 400 + fillers

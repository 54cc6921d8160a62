"""The profiling plugin on a firmware of a few instructions in assembly, counted by hand."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tinypeft.boards import load_board
from tinypeft.counting.code import disassemble, read_functions
from tinypeft.counting.cycles import cycle_costs, estimated_cycles
from tinypeft.emulators.icount import (
    Executed,
    Segment,
    build_profiler,
    last_profile,
    profiled_count,
    profiler_arguments,
)
from tinypeft.emulators.qemu import machine_command

#: `forward` calls a loop of 3 and of 5 rounds; the second call is from a function of its own
PROGRAM = """
.syntax unified
.thumb
.word 0x20001000, start + 1
.macro function name
.global \\name
.type \\name, %function
.thumb_func
\\name:
.endm
function start
  orr.w r10, r10, r10
  bl forward
  orr.w r11, r11, r11
  b .
.size start, . - start
function forward
  push {r4, lr}
  movs r0, #3
  movs r3, #1
  bl rounds
  bl again
  pop {r4, pc}
.size forward, . - forward
function rounds
1:
  ldr r2, [r3]
  subs r0, #1
  bne 1b
  bx lr
.size rounds, . - rounds
function again
  movs r0, #5
  b.w rounds
.size again, . - again
"""


@pytest.fixture(scope="module")
def elf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for program in ("arm-none-eabi-gcc", "arm-none-eabi-objdump", "qemu-system-arm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if (reason := build_profiler()[1]) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("profile")
    source, elf = folder / "program.s", folder / "program.elf"
    source.write_text(PROGRAM)
    command = ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-nostdlib", "-Wl,-Ttext=0", "-Wl,-e0"]
    subprocess.run([*command, "-o", elf, source], check=True, timeout=60)
    return elf


def profile(elf: Path, folder: Path, glue: list[range], *, unaligned: bool = True) -> list[Segment]:
    """What the plugin writes until the second marker."""
    plugin, _ = build_profiler()
    out = folder / "profile"
    machine = machine_command(load_board("mps2_an386").emulators["qemu"])
    arguments = ",".join([str(plugin), f"out={out}", *profiler_arguments(glue, unaligned=unaligned)])
    process = subprocess.Popen([*machine, "-kernel", elf, "-plugin", arguments], stdin=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + 20
        while profiled_count(out) is None and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        return last_profile(out)
    finally:
        process.kill()
        process.wait()


def addresses(elf: Path) -> dict[str, range]:
    return {name: function.addresses for function in read_functions(elf) for name in function.names}


def test_calls_are_told_apart_and_counted_to_the_instruction(elf: Path, tmp_path: Path) -> None:
    at = addresses(elf)
    start, forward, again, rounds = (at[name].start for name in ("start", "forward", "again", "rounds"))
    found = profile(elf, tmp_path, [at["forward"], at["again"]])
    loop3 = {
        rounds: Executed(3, 0, 3),
        rounds + 2: Executed(3),
        rounds + 4: Executed(3, 2),
        rounds + 6: Executed(1, 1),
    }
    loop5 = {
        rounds: Executed(5, 0, 5),
        rounds + 2: Executed(5),
        rounds + 4: Executed(5, 4),
        rounds + 6: Executed(1, 1),
    }
    assert found == [
        Segment(0, {start + 4: Executed(1, 1)}),
        Segment(
            rounds,
            {
                **{forward: Executed(1), forward + 2: Executed(1), forward + 4: Executed(1)},
                forward + 6: Executed(1, 1),
                **loop3,
            },
        ),
        Segment(rounds, {forward + 10: Executed(1, 1), again: Executed(1), again + 2: Executed(1, 1), **loop5}),
        Segment(start + 8, {forward + 14: Executed(1, 1)}),
    ]
    assert [segment.count for segment in found] == [1, 4 + 10, 3 + 16, 1]


def test_estimated_cycles_of_each_call(elf: Path, tmp_path: Path) -> None:
    at = addresses(elf)
    costs = cycle_costs(disassemble(elf, read_functions(elf)).values())
    cycles = [estimated_cycles(s.instructions, costs) for s in profile(elf, tmp_path, [at["forward"], at["again"]])]
    # a round is LDR 2 and unaligned 1, SUBS 1, BNE 1 and 2 where it is taken; BX, BL, B.W 3
    assert cycles == [3, 3 + 1 + 1 + 3 + (3 * 5 + 2 * 2) + 3, 3 + 1 + 3 + (5 * 5 + 4 * 2) + 3, 3 + 2]


def test_runs_give_the_same(elf: Path, tmp_path: Path) -> None:
    at = addresses(elf)
    first, second = (profile(elf, tmp_path, [at["forward"]]) for _ in range(2))
    assert first == second
    # `again` is a function like any other here, which jumps to another
    assert [segment.entry for segment in first][1:3] == [at["rounds"].start, at["again"].start]


def test_without_glue_all_is_one_segment(elf: Path, tmp_path: Path) -> None:
    (whole,) = profile(elf, tmp_path, [], unaligned=False)
    assert whole.entry == 0 and whole.count == 1 + 14 + 19 + 1
    assert not any(each.unaligned for each in whole.instructions.values())


def test_functions_of_an_elf(elf: Path) -> None:
    functions = read_functions(elf)
    rounds = addresses(elf)["rounds"]
    found = functions.at(rounds.start + 4)
    assert found is not None and found.names == ("rounds",) and found.nbytes == 8
    assert functions.entered_at(rounds.start) is found and functions.entered_at(rounds.start + 2) is None
    assert functions.at(1 << 20) is None


def test_a_profile_is_read_region_by_region(tmp_path: Path) -> None:
    file = tmp_path / "profile"
    assert last_profile(file) == [] and profiled_count(file) is None
    file.write_text("segment 0\n10 1 0 0\nend\nsegment 1f0\n10 2 1 0\nsegment 0\n12 4 0 3\nend\nsegment 5\n")
    assert last_profile(file) == [Segment(0x1F0, {0x10: Executed(2, 1, 0)}), Segment(0, {0x12: Executed(4, 0, 3)})]
    assert profiled_count(file) == 6

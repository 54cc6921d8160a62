"""The cycle model on a few lines of disassembly, and what a profile makes of it."""

from __future__ import annotations

import pytest

from tinypeft.counting.code import read_instructions
from tinypeft.counting.cycles import Instruction, cycle_costs, estimated_cycles
from tinypeft.emulators.icount import Executed


def costs(*lines: str) -> list[int]:
    """Of instructions behind each other."""
    found = []
    for position, line in enumerate(lines):
        mnemonic, _, operands = line.partition(" ")
        found.append(Instruction(2 * position, mnemonic, operands))
    return list(cycle_costs(found).values())


@pytest.mark.parametrize(
    ("line", "cycles"),
    [
        ("adds r0, r1, r2", 1),
        ("smlad r0, r1, r2, r0", 1),
        ("ssat r0, #8, r1", 1),
        ("bne.n 10 <f>", 1),
        ("ldr r0, [r1, #4]", 2),
        ("ldrsb.w r0, [r1], #1", 2),
        ("ldrhne r0, [r1, r2]", 2),
        ("str r0, [r1, #4]", 1),
        ("strb.w r0, [r1], #1", 1),
        ("strb r0, [r1, r2]", 2),
        ("ldrd r0, r1, [r2, #8]", 3),
        ("strd r0, r1, [r2], #8", 3),
        ("ldmia.w r0!, {r1, r2, r4-r7, sl, fp}", 9),
        ("stmdb sp!, {r4, r5, r6, lr}", 5),
        ("push {r4, lr}", 3),
        ("pop {r4-r6, pc}", 5),
        ("vpush {d8-d9}", 5),
        ("vldmia r0!, {s0-s3}", 5),
        ("vldr s0, [r1]", 2),
        ("vstr d0, [r1, #8]", 3),
        ("vadd.f32 s0, s1, s2", 1),
        ("vmla.f32 s0, s1, s2", 3),
        ("vfma.f32 s0, s1, s2", 3),
        ("vfnms.f32 s0, s1, s2", 3),
        ("vdiv.f32 s0, s1, s2", 14),
        ("vsqrt.f32 s0, s1", 14),
        ("vmov s0, r1", 1),
        ("vmov r0, r1, d0", 2),
        ("udiv r0, r1, r2", 7),
        ("sdivne r0, r1, r2", 7),
        ("tbb [pc, r3]", 2),
        ("lsls r0, r1, #2", 1),
        ("strex r0, r1, [r2]", 1),
    ],
)
def test_one_instruction(line: str, cycles: int) -> None:
    assert costs(line) == [cycles]


def test_loads_behind_loads_share_their_address_phase() -> None:
    assert costs("ldr r0, [r1]", "ldr r2, [r1, #4]", "ldrh r3, [r1, #8]") == [2, 1, 1]
    assert costs("ldr r1, [r1]", "ldr r2, [r1, #4]") == [2, 2]  # which gives the base
    assert costs("ldr r3, [r1]", "ldr r2, [r1, r3, lsl #2]") == [2, 2]  # the index
    assert costs("ldr r0, [r1]", "adds r0, #1", "ldr r2, [r1]") == [2, 1, 2]
    assert costs("str r0, [r1]", "ldr r2, [r1, #4]") == [1, 2]
    assert costs("ldr r0, [r1]", "str r2, [r1, r3]") == [2, 1]
    assert costs("ldr r3, [r1]", "str r2, [r1, r3]") == [2, 2]
    assert costs("ldrd r0, r2, [r1]", "ldr r3, [r1, #8]") == [3, 2]


def test_nothing_is_shared_across_functions() -> None:
    first, second = Instruction(0, "ldr", "r0, [r1]", "f"), Instruction(2, "ldr", "r2, [r1]", "g")
    assert cycle_costs([first, second]) == {0: 2, 2: 2}


def test_objdumps_lines_are_read() -> None:
    text = """
00000074 <tp_kernel>:
      74:\tldr\tr2, [pc, #656]\t@ (308 <tp_kernel+0x294>)
      76:\tldr.w\tr3, [r2, r4, lsl #2]
      7a:\tsmlad\tr0, r3, r3, r0
      7e:\tbne.n\t74 <tp_kernel>
      80:\t.word\t0x00004bb4
      84:\tnop
"""
    found = list(read_instructions(text))
    assert [each.address for each in found] == [0x74, 0x76, 0x7A, 0x7E, 0x84]
    assert found[0].operands == "r2, [pc, #656]" and found[0].address_registers == {"pc"}
    assert found[1].name == "ldr" and found[1].address_registers == {"r2", "r4"}
    executed = {0x74: Executed(10), 0x76: Executed(10, 0, 3), 0x7A: Executed(10), 0x7E: Executed(10, 9)}
    assert estimated_cycles(executed, cycle_costs(found)) == 10 * (2 + 2 + 1 + 1) + 9 * 2 + 3

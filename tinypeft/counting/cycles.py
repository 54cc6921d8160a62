"""Estimated cycles of a core: what each instruction costs, from its text and that of the one in front of it.

The Cortex-M4, from the timing tables of Arm 100166 (Cortex-M4 TRM, 3.3 and 7.2), with memory that never makes it wait:

    load            LDR of any width 2, but 1 right behind another LDR that gives no register of its address
    store           STR of any width 1; with an index register 2, but 1 right behind an LDR
    of two words    LDRD, STRD 3
    of several      LDM, STM, PUSH, POP 1 + n
    FPU             VLDR, VSTR 2, of a double 3; VLDM, VSTM, VPUSH, VPOP 1 + n; VMLA and its like 3; VDIV, VSQRT 14;
                    VMOV of two core registers 2
    division        SDIV, UDIV 7 (of 2 to 12)
    table branch    TBB, TBH 2
    all else        1
    branch taken    2 more, whatever instruction it was; an unaligned access 1 more

An instruction whose condition fails counts as if it did not. Flash wait states, write buffer, bus contention and the
alignment of branch targets are left out: an estimate ranks kernels, it is not time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tinypeft.emulators.icount import Executed

#: cores that `cycle_costs` knows
CORES = ("cortex-m4",)
TAKEN, UNALIGNED = 2, 1

_CONDITION = "(?:eq|ne|cs|hs|cc|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le|al)?"
_LOAD = re.compile(rf"ldr(?:b|h|sb|sh|t|bt|ht|sbt|sht|ex|exb|exh)?{_CONDITION}")
_STORE = re.compile(rf"str(?:b|h|t|bt|ht|ex|exb|exh)?{_CONDITION}")
_TWO_WORDS = re.compile(rf"(?:ldrd|strd){_CONDITION}")
_SEVERAL = re.compile(rf"(?:ldm|stm|push|pop|vldm|vstm|vpush|vpop)(?:ia|db|fd|ea)?{_CONDITION}")
_FPU_WORD = re.compile(rf"(?:vldr|vstr){_CONDITION}")
_FPU_ACCUMULATE = re.compile(rf"v(?:f?n?)(?:mla|mls|ma|ms){_CONDITION}")
_FPU_LONG = re.compile(rf"(?:vdiv|vsqrt){_CONDITION}")
_FPU_MOVE = re.compile(rf"vmov{_CONDITION}")
_DIVIDE = re.compile(rf"(?:sdiv|udiv){_CONDITION}")
_TABLE = re.compile(r"tb[bh]")
_REGISTER = re.compile(r"\b(?:r1[0-5]|r[0-9]|sl|fp|ip|sp|lr|pc|[sd][0-9]+|sb)\b")
_NUMBERS = {"sb": 9, "sl": 10, "fp": 11, "ip": 12, "sp": 13, "lr": 14, "pc": 15}


@dataclass(frozen=True)
class Instruction:
    """An instruction as objdump writes it, of the function it is in."""

    address: int
    mnemonic: str
    operands: str
    function: str = ""

    @property
    def name(self) -> str:
        """The mnemonic without width and types: "ldr" of "ldr.w"."""
        return self.mnemonic.split(".")[0]

    @property
    def address_registers(self) -> set[str]:
        """The registers of its memory address."""
        inside = self.operands.partition("[")[2].partition("]")[0]
        return set(_REGISTER.findall(inside))


def cycle_costs(instructions: Iterable[Instruction]) -> dict[int, int]:
    """Address -> cycles of one execution, branches not taken, for instructions in the order of their addresses."""
    costs: dict[int, int] = {}
    before: Instruction | None = None
    for each in instructions:
        if before is not None and before.function != each.function:
            before = None
        costs[each.address] = _cost(each, before)
        before = each
    return costs


def estimated_cycles(executed: Mapping[int, Executed], costs: Mapping[int, int]) -> int:
    """The cycles of what was executed, by address."""
    return sum(
        each.count * costs.get(address, 1) + each.taken * TAKEN + each.unaligned * UNALIGNED
        for address, each in executed.items()
    )


def _cost(each: Instruction, before: Instruction | None) -> int:
    name = each.name
    if _LOAD.fullmatch(name):
        return 1 if before is not None and _feeds_nothing(before, each) else 2
    if _STORE.fullmatch(name):
        indexed = len(each.address_registers) > 1
        return 2 if indexed and not (before is not None and _feeds_nothing(before, each)) else 1
    if _TWO_WORDS.fullmatch(name):
        return 3
    if _SEVERAL.fullmatch(name):
        return 1 + _listed(each.operands)
    if _FPU_WORD.fullmatch(name):
        return 3 if each.operands.startswith("d") else 2
    if _FPU_ACCUMULATE.fullmatch(name):
        return 3
    if _FPU_LONG.fullmatch(name):
        return 14
    if _FPU_MOVE.fullmatch(name):
        return 2 if each.operands.count(",") >= 2 else 1
    if _DIVIDE.fullmatch(name):
        return 7
    return 2 if _TABLE.fullmatch(name) else 1


def _feeds_nothing(before: Instruction, each: Instruction) -> bool:
    """Whether `before` is a load that gives no register of the address of `each`."""
    if not _LOAD.fullmatch(before.name):
        return False
    return before.operands.partition(",")[0].strip() not in each.address_registers


def _listed(operands: str) -> int:
    """Words of a list of registers: {r4, r5, r7-r9, lr}, {d8-d9}."""
    inside = operands.partition("{")[2].partition("}")[0]
    words = 0
    for part in inside.split(","):
        first, _, last = (text.strip() for text in part.partition("-"))
        count = _number(last) - _number(first) + 1 if last else 1
        words += 2 * count if first.startswith("d") else count
    return words


def _number(register: str) -> int:
    return _NUMBERS[register] if register in _NUMBERS else int(register[1:])

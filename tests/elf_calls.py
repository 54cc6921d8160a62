"""Which functions of a linked Arm ELF call which, and where that leads to floating point.

code = disassemble(elf)
code.float_uses("tp_conv_s8")   -> ["tp_conv_s8 -> tp_scale: vmul.f32", ...], empty where there are none
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

OBJDUMP = "arm-none-eabi-objdump"

#: libgcc's floating point by the names of the Arm ABI and its own: __aeabi_fmul, __aeabi_i2f, __mulsf3, __floatsidf
_HELPER = re.compile(r"__aeabi_([fdh]|c[fd]|u?[il]2[fd])\w*|__\w+[sdh]f[23]?|__fix\w+")
_FUNCTION = re.compile(r"^[0-9a-f]+ <([^>]+)>:$")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t[0-9a-f ]+\t(\S+)(?:\t(.*))?$")
_TARGET = re.compile(r"<([^>+]+)(?:\+0x[0-9a-f]+)?>")
#: floating point and vector registers alike: with neither unit no instruction begins with v
_FPU = re.compile(r"v[a-z0-9]+(\.\S+)?$")
_RELOCATION = re.compile(r"^\s*[0-9a-f]+: (R_ARM_\w+)\t(\w+)")
_BRANCH = re.compile(r"(bl?|bx?|cbn?z|blx)[a-z]{0,2}(\.[nw])?$")
_INDIRECT = re.compile(r"(blx|bx)[a-z]{0,2}$")


@dataclass
class Function:
    """What one function does that matters here; `indirect`: its calls through registers, `pointers`: to functions."""

    fpu: list[str] = field(default_factory=list)
    calls: set[str] = field(default_factory=set)
    pointers: set[str] = field(default_factory=set)
    indirect: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Code:
    """All functions by name; `aliases`: name -> every name of the same address."""

    functions: dict[str, Function]
    aliases: dict[str, set[str]]

    def float_uses(self, name: str) -> list[str]:
        """Every way from a function to floating point, or to a call that cannot be followed; KeyError without it.

        A pointer to a function counts as a call of it; a call through a register is one of those that were met.
        """
        found, indirect, pointers = list[str](), list[str](), 0
        seen: set[str] = set()
        pending = [(name, name)]
        while pending:
            current, way = pending.pop()
            if current in seen:
                continue
            seen.add(current)
            helper = next((a for a in sorted({current} | self.aliases.get(current, set())) if _HELPER.fullmatch(a)), "")
            if helper:
                found.append(f"{way}: calls {helper}")
                continue
            function = self.functions[current]
            found += [f"{way}: {text}" for text in function.fpu]
            indirect += [f"{way}: {text}" for text in function.indirect]
            known = {pointer for pointer in function.pointers if pointer in self.functions}
            pointers += len(known)
            pending += [(callee, f"{way} -> {callee}") for callee in sorted(function.calls | known)]
        return found if pointers else found + indirect


def disassemble(elf: Path) -> Code:
    """The code of an ELF that was linked with --emit-relocs, by which pointers to functions are found."""
    with elf.open("rb") as stream:
        at: dict[int, set[str]] = {}
        for section in ELFFile(stream).iter_sections():
            if isinstance(section, SymbolTableSection):
                for symbol in section.iter_symbols():
                    if symbol.name and symbol["st_info"]["type"] == "STT_FUNC":
                        at.setdefault(symbol["st_value"] & ~1, set()).add(symbol.name)
    aliases = {name: names for names in at.values() for name in names}
    run = subprocess.run([OBJDUMP, "-dr", str(elf)], check=True, capture_output=True, text=True)
    functions: dict[str, Function] = {}
    current, name = Function(), ""
    for line in run.stdout.splitlines():
        if start := _FUNCTION.match(line):
            name, current = start[1], Function()
            functions[name] = current
        elif instruction := _INSTRUCTION.match(line):
            _note(current, name, instruction[2], instruction[3] or "")
        elif (use := _RELOCATION.match(line)) and not use[1].startswith(("R_ARM_THM_CALL", "R_ARM_THM_JUMP")):
            current.pointers.add(use[2])
    return Code(
        {alias: function for n, function in functions.items() for alias in {n} | aliases.get(n, set())}, aliases
    )


def _note(function: Function, name: str, mnemonic: str, operands: str) -> None:
    if _FPU.match(mnemonic):
        function.fpu.append(f"{mnemonic} {operands}")
    elif _INDIRECT.match(mnemonic) and not operands.startswith(("lr", "pc")):
        function.indirect.append(f"{mnemonic} {operands} calls what is not known")
    elif _BRANCH.match(mnemonic) and (target := _TARGET.search(operands)) and target[1] != name:
        function.calls.add(target[1])

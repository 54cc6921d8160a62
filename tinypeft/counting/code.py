"""The functions of a linked ELF, and its instructions as objdump writes them."""

from __future__ import annotations

import bisect
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from tinypeft.counting.cycles import Instruction
from tinypeft.errors import ToolError

OBJDUMP = "arm-none-eabi-objdump"

_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t([a-z]\S*)(?:\t([^@;]*))?")


@dataclass(frozen=True)
class Function:
    """A function of an ELF: its `names`, and the addresses of its code, constants between it included.

    source  the file it was compiled from where it is local to that, else empty
    """

    names: tuple[str, ...]
    addresses: range
    source: str = ""

    @property
    def nbytes(self) -> int:
        """Of its code."""
        return len(self.addresses)


class Functions:
    """All functions of an ELF, by address and by name."""

    def __init__(self, functions: list[Function]):
        self._sorted = sorted(functions, key=lambda function: function.addresses.start)
        self._starts = [function.addresses.start for function in self._sorted]

    def __iter__(self) -> Iterator[Function]:
        return iter(self._sorted)

    def at(self, address: int) -> Function | None:
        """The function to which the code at `address` belongs."""
        position = bisect.bisect_right(self._starts, address) - 1
        if position < 0 or address not in self._sorted[position].addresses:
            return None
        return self._sorted[position]

    def entered_at(self, address: int) -> Function | None:
        """The function that begins at `address`."""
        function = self.at(address)
        return function if function is not None and function.addresses.start == address else None


def read_functions(elf: Path) -> Functions:
    """The functions of a linked ELF; one without a size, as assembly may leave it, reaches to the next symbol.

    ToolError where `elf` cannot be read or was stripped.
    """
    try:
        with elf.open("rb") as stream:
            file = ELFFile(stream)
            ends = {
                index: section["sh_addr"] + section["sh_size"]
                for index, section in enumerate(file.iter_sections())
                if section["sh_flags"] & SH_FLAGS.SHF_EXECINSTR
            }
            found: dict[int, _Symbols] = {}
            for section in file.iter_sections():
                if isinstance(section, SymbolTableSection):
                    _add_symbols(section, ends, found)
    except (OSError, ELFError) as error:
        raise ToolError(f"cannot read {elf}: {error}", "build the project again") from error
    if not found:
        raise ToolError(f"{elf} has no symbols", "build the project again, and do not strip it")
    starts = sorted(found)
    following = dict(zip(starts, [*starts[1:], 1 << 32], strict=True))
    functions = []
    for start, symbols in found.items():
        end = start + symbols.size if symbols.size else min(following[start], symbols.section_end)
        functions.append(Function(tuple(symbols.names), range(start, end), symbols.source))
    return Functions(functions)


@dataclass
class _Symbols:
    """All symbols of an address."""

    names: list[str]
    size: int
    section_end: int
    source: str


def _add_symbols(section: SymbolTableSection, ends: Mapping[int, int], found: dict[int, _Symbols]) -> None:
    source = ""  # local symbols follow the one that names their file, global ones come last
    for symbol in section.iter_symbols():
        kind, index = symbol["st_info"]["type"], symbol["st_shndx"]
        if kind == "STT_FILE":
            source = symbol.name
        if kind not in ("STT_FUNC", "STT_NOTYPE") or index not in ends or symbol.name.startswith("$"):
            continue
        start, local = symbol["st_value"] & ~1, symbol["st_info"]["bind"] == "STB_LOCAL"
        if kind == "STT_NOTYPE" and local:
            continue  # a label inside a function
        known = found.setdefault(start, _Symbols([], 0, ends[index], source if local else ""))
        known.names.append(symbol.name)
        known.size = max(known.size, symbol["st_size"])


def disassemble(elf: Path, functions: Functions) -> dict[int, Instruction]:
    """Every instruction of `elf` by its address; ToolError without objdump."""
    if not shutil.which(OBJDUMP):
        raise ToolError(f"{OBJDUMP} is not installed", "apt install binutils-arm-none-eabi")
    run = subprocess.run(
        [OBJDUMP, "-d", "--no-show-raw-insn", str(elf)], check=False, capture_output=True, text=True, errors="replace"
    )
    if run.returncode != 0:
        raise ToolError(f"{OBJDUMP} cannot read {elf}: {run.stderr.strip()}", "build the project again")
    return {each.address: each for each in read_instructions(run.stdout, functions)}


def read_instructions(text: str, functions: Functions | None = None) -> Iterator[Instruction]:
    """The instructions that objdump wrote, without constants in the code."""
    for line in text.splitlines():
        match = _INSTRUCTION.match(line)
        if match is None:
            continue
        address = int(match[1], 16)
        function = functions.at(address) if functions is not None else None
        yield Instruction(address, match[2], (match[3] or "").strip(), function.names[0] if function else "")

"""Code and RAM of what keeps adapters on a Cortex-M4, by part, against limits and a checked-in baseline.

Run: python benchmarks/size.py [--json] [--update]. Builds a small model's firmware with -Os and reads the linker's map
of it. Exits 1 where the store, SMP and the package are above a limit, or a figure is more than 1 % above the baseline.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from elftools.dwarf.die import DIE
from elftools.elf.elffile import ELFFile
from rich.table import Table

from tinypeft.adapters import AdapterConfig
from tinypeft.boards import load_board
from tinypeft.cli.output import console, progress_console
from tinypeft.fitting import DEFAULT_STACK
from tinypeft.frontend import LoadedModel
from tinypeft.generate import compile_for, sources_for
from tinypeft.ir import Graph, Operation, Purpose, Tensor
from tinypeft.memory import MemoryConfig
from tinypeft.ops import OPS
from tinypeft.project import ForTarget, build_firmware, write_project
from tinypeft.training import TrainingConfig

BASELINE = Path(__file__).with_name("size.json")
TOLERANCE = 1.01
BOARD, MEMORY = "mps2_an386", MemoryConfig(adapters=8, resident=2)

#: part -> the sources below firmware/ that it consists of, without their suffix
PARTS = {
    "store": ("store/tp_store", "store/tp_store_log", "store/tp_store_slots", "store/tp_store_upload"),
    "SMP": (
        *(f"runtime/tp_{name}" for name in ("frame", "cbor", "request", "response", "server", "groups", "group_os")),
        *(f"store/tp_group_{name}" for name in ("adapters", "files", "images")),
    ),
    "package": (*(f"runtime/tp_{name}" for name in ("package", "sha256", "crc", "id")), "store/tp_upload"),
    "adapters in memory": ("store/tp_adapters", "store/tp_device_adapters"),
    "checkpoints": ("store/tp_checkpoint",),
    "weighted sums": ("store/tp_adapters_combine",),
    "deltas": ("store/tp_delta",),
    "commands of the model": tuple(f"runtime/tp_{name}" for name in ("group_model", "server_fit", "fit", "schedule")),
    "status texts": ("runtime/tp_status",),
    "flash driver": ("store/tp_flash_memory", "storages/ram"),
    "start-up": ("runtime/main", "runtime/tp_board"),
}
#: what a limit is for, and the parts that keep to it together
LIMITS = {
    "code": (16_384, ("store", "SMP", "package")),
    "ram": (2_048, ("store", "SMP", "package", "deltas", "adapters in memory")),
}
_SECTION = re.compile(
    r"^ (\.\S+)\s+0x[0-9a-f]+\s+0x([0-9a-f]+) (\S+)$(?:\n\s+0x([0-9a-f]+) \(size before relaxing\))?", re.M
)
#: static objects that lie in another part's file: from which part, to which, struct, its member
OBJECTS = (
    ("start-up", "SMP", "tp_server", ""),
    ("SMP", "frame buffers", "tp_frame_receiver", "packet"),
    ("SMP", "frame buffers", "tp_response", "message"),
    ("adapters in memory", "store", "tp_store", ""),
    ("adapters in memory", "package", "tp_adapters", "upload"),
    ("package", "deltas", "tp_delta", ""),
)


@dataclass(frozen=True)
class Size:
    """Bytes of flash, constants and initial values included, and of static RAM."""

    code: int = 0
    ram: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.code + other.code, self.ram + other.ram)


def make_model() -> LoadedModel:
    """A dense classifier 8 -> 4 with constant weights: what keeps adapters hardly depends on the model."""
    scale = np.array([0.05], np.float32)
    x = Tensor("x", (1, 8), "int8", Purpose.ACTIVATION, scale)
    weights = np.arange(-16, 16, dtype=np.int8).reshape(4, 8)
    filters = Tensor("head_kernel", (4, 8), "int8", Purpose.FROZEN_WEIGHT, scale, 0, weights)
    y = Tensor("y", (1, 4), "int8", Purpose.ACTIVATION, scale)
    attributes = {"activation": "NONE", "output_shape": y.shape}
    dense = Operation(
        OPS["FULLY_CONNECTED"], "head", {"input": x, "filter": filters}, {"output": y}, attributes, "head"
    )
    return LoadedModel("size", b"", Graph("size", [x], [y], [dense]), {"head": "Dense"}, bytes(32))


def build(folder: Path) -> Path:
    """The linked firmware of `make_model`, compiled for size, which keeps adapters; its map lies beside it."""
    board, source = MEMORY.on(load_board(BOARD)), make_model()
    adapter = AdapterConfig("lora", r=2, target_modules="head", modules_to_save=())
    model = compile_for(source, board, adapter, TrainingConfig(), DEFAULT_STACK, MEMORY)
    sources = sources_for(model, board, MEMORY)
    write_project(
        folder,
        board,
        model_name=source.name,
        sources=sources.files,
        kernels=sources.kernels,
        defines=sources.defines,
        target=ForTarget(sources.target_defines),
        stack_bytes=DEFAULT_STACK,
        manifest={},
        files={},
        storage=True,
    )
    makefile = folder / "Makefile"
    text = makefile.read_text()
    assert text.count(" -O2 ") == 1
    makefile.write_text(text.replace(" -O2 ", " -Os "))
    return build_firmware(folder, board)


def measure(elf: Path) -> dict[str, Size]:
    """Part -> its size; strings count where they are written, before the linker merges those that are the same."""
    linked = elf.with_suffix(".map").read_text().split("Linker script and memory map")[1]
    sizes: dict[str, Size] = {}
    for section, size, path, unmerged in _SECTION.findall(linked):
        part = part_of(path)
        count = int(unmerged or size, 16)
        if section.startswith((".text", ".rodata", ".data")):
            sizes[part] = sizes.get(part, Size()) + Size(code=count)
        if section.startswith((".data", ".bss", "COMMON")):
            sizes[part] = sizes.get(part, Size()) + Size(ram=count)
    with elf.open("rb") as stream:
        structs = named_structs(ELFFile(stream))
        for source, target, struct, member in OBJECTS:
            count = member_size(structs[struct], member)
            sizes[source] += Size(ram=-count)
            sizes[target] = sizes.get(target, Size()) + Size(ram=count)
    assert all(size.ram >= 0 for size in sizes.values()), "a struct lies in another part's file than OBJECTS says"
    return sizes


def part_of(path: str) -> str:
    """The part of an object file that the map names."""
    name = re.sub(r"^build/firmware/(.*)\.o$", r"\1", path)
    for part, sources in PARTS.items():
        if name in sources:
            return part
    if name.startswith(("store/", "storages/", "runtime/")):
        raise SystemExit(f"firmware/{name}.c belongs to no part: add it to PARTS of benchmarks/size.py")
    return "C library" if path.endswith(")") or "/lib" in path else "model, its kernels and board"


def named_structs(elf: ELFFile) -> dict[str, DIE]:
    """Name -> DWARF entry of each struct that has one: its tag, or a typedef's."""
    structs: dict[str, DIE] = {}
    for unit in elf.get_dwarf_info().iter_CUs():
        for entry in unit.iter_DIEs():
            if entry.tag in ("DW_TAG_typedef", "DW_TAG_structure_type") and "DW_AT_name" in entry.attributes:
                struct = struct_of(entry)
                if "DW_AT_byte_size" in struct.attributes:
                    structs[entry.attributes["DW_AT_name"].value.decode()] = struct
    return structs


def struct_of(entry: DIE) -> DIE:
    """What a typedef stands for."""
    while entry.tag in ("DW_TAG_typedef", "DW_TAG_const_type") and "DW_AT_type" in entry.attributes:
        entry = entry.get_DIE_from_attribute("DW_AT_type")
    return entry


def member_size(struct: DIE, member: str) -> int:
    """Bytes of a struct, or of a member; arrays are of bytes."""
    if member:
        named = (m for m in struct.iter_children() if "DW_AT_name" in m.attributes)
        found = next(m for m in named if m.attributes["DW_AT_name"].value == member.encode())
        struct = struct_of(found.get_DIE_from_attribute("DW_AT_type"))
    if struct.tag == "DW_TAG_array_type":
        return 1 + next(struct.iter_children()).attributes["DW_AT_upper_bound"].value
    return struct.attributes["DW_AT_byte_size"].value


def figures(sizes: dict[str, Size]) -> dict[str, dict[str, int]]:
    """By code and ram: each part's bytes, and `limited`, of those that a limit is for."""
    found = {kind: {part: getattr(size, kind) for part, size in sorted(sizes.items())} for kind in LIMITS}
    for kind, (_, parts) in LIMITS.items():
        found[kind]["limited"] = sum(found[kind][part] for part in parts)
    return found


def complaints(found: dict[str, dict[str, int]], baseline: dict[str, dict[str, int]]) -> list[str]:
    """What is above a limit, or above the baseline by more than the tolerance."""
    lines = []
    for kind, (limit, parts) in LIMITS.items():
        value, before = found[kind]["limited"], baseline.get(kind, {}).get("limited")
        if value > limit:
            lines.append(f"{kind} of {', '.join(parts)} is {value:,} B, the limit {limit:,} B")
        if before and value > before * TOLERANCE:
            lines.append(f"{kind} of {', '.join(parts)} is {value:,} B, the baseline {before:,} B")
    return lines


def show(sizes: dict[str, Size], found: dict[str, dict[str, int]], baseline: dict[str, dict[str, int]]) -> None:
    """A table of the parts, those that the limits are for first."""
    table = Table(title=f"Cortex-M4, -Os, {MEMORY.adapters} adapters, {MEMORY.resident} resident")
    table.add_column("part")
    for column in ("code B", "RAM B"):
        table.add_column(column, justify="right")
    order = list(dict.fromkeys([*LIMITS["code"][1], *LIMITS["ram"][1], *PARTS, *sizes]))
    for part in (part for part in order if part in sizes):
        table.add_row(part, f"{sizes[part].code:,}", f"{sizes[part].ram:,}")
    table.add_section()
    for kind, (limit, parts) in LIMITS.items():
        value, before = found[kind]["limited"], baseline.get(kind, {}).get("limited")
        cells = [f"{value:,} of {limit:,}", ""]
        table.add_row(" + ".join(parts), *(cells if kind == "code" else reversed(cells)))
        if before:
            cells = [f"{before:,}", ""]
            table.add_row("  baseline", *(cells if kind == "code" else reversed(cells)))
    console().print(table)


def main() -> int:
    """Build, measure, print, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--update", action="store_true", help="write the figures as the new baseline")
    arguments = parser.parse_args()
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        sizes = measure(build(Path(name) / "size"))
    found = figures(sizes)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show(sizes, found, baseline)
    if arguments.update:
        BASELINE.write_text(json.dumps(found, indent=2) + "\n")
    worse = complaints(found, {} if arguments.update else baseline)
    for line in worse:
        progress_console().print(f"[bold red]worse[/]: {line}")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())

"""The generated firmware project: write the folder, build it, measure what was built."""

from tinypeft.project.build import build_firmware, build_twin
from tinypeft.project.elf import ElfSizes, measure, symbol_size
from tinypeft.project.render import ForTarget
from tinypeft.project.retarget import retarget_project
from tinypeft.project.writer import PROJECT_FORMAT, read_manifest, write_project

__all__ = [
    "PROJECT_FORMAT",
    "ElfSizes",
    "ForTarget",
    "build_firmware",
    "build_twin",
    "measure",
    "read_manifest",
    "retarget_project",
    "symbol_size",
    "write_project",
]

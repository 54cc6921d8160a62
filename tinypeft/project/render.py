"""The text of a project's build files and board files: templates plus the numbers and file lists they format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tinypeft import __version__
from tinypeft.boards import Board, Region
from tinypeft.resources import template

#: Compiler flags of firmware and twin alike. No fused multiply-add: both must compute the same float32 bits.
C_FLAGS = (
    *("-std=c11", "-O2", "-g", "-ffp-contract=off", "-ffunction-sections", "-fdata-sections"),
    *("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"),
)

#: Folders of firmware that talks and keeps rather than computes, and how they are compiled instead
SMALL_FOLDERS, SMALL_FLAG = ("firmware/runtime", "firmware/runtime-optional", "firmware/store"), "-Os"

#: Start-up is our own; of newlib-nano only memcpy and the like, of libgcc the 64-bit arithmetic.
#: There is no _sbrk and no _write, so that malloc or printf cannot be linked.
LINK_FLAGS = ("-nostartfiles", "--specs=nano.specs", "-Wl,--gc-sections", "-Wl,--fatal-warnings")
LINK_LIBRARIES = ("-lc", "-lgcc")

INCLUDES = ("firmware/include", "src")


@dataclass(frozen=True)
class ForTarget:
    """What firmware is built with and the host twin is not: macros, folders of others' headers, archives to link."""

    defines: tuple[str, ...] = ()
    system_includes: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()


NOTHING = ForTarget()

BOARD_INCLUDES = ("board",)


def render_board(board: Board, stack_bytes: int, weights_region: str = "") -> dict[str, bytes]:
    """The files under `board/`: start-up, linker script and numbers; none for the host.

    `weights_region` is the flash for constant tables, where it is not that of the code.
    """
    if board.is_host:
        return {}
    names = ("startup.c", "linker.ld", "tp_board_config.h")
    values = {"board": board, "core": _CoreFeatures.of(board), "stack_bytes": stack_bytes, "number": _number}
    values |= {"weights_region": weights_region, "version": __version__}
    values |= {"arena_regions": [r for r in board.memories if _for_arena(r, board)]}
    return {f"board/{name}": template(f"board/{name}.j2").render(**values).encode() for name in names}


def storage_defines(board: Board) -> list[str]:
    """The macros TP_STORAGE_* of the board's storage that firmware and twin share, NAME=VALUE."""
    storage = board.storage
    if storage is None:
        return []
    names = ("sector_bytes", "sectors", "write_unit", "erased", "log_sectors")
    return [f"TP_STORAGE_{name.upper()}={getattr(storage, name)}u" for name in names]


def _for_arena(region: Region, board: Board) -> bool:
    """Whether `region` is a RAM beside that of ordinary data, in which a part of the arena may lie."""
    return region.kind == "ram" and region.arena and region is not board.ram


@dataclass(frozen=True)
class _CoreFeatures:
    """What the start-up must know of a core.

    vtor                the vector table can be moved; elsewhere it is where the core expects it
    fault_status        there are registers that say what a fault was
    fpu                 access to the FPU, and to MVE, must be opened
    instruction_cache   there is one, off after reset
    low_overhead_loops  there are, off after reset
    """

    vtor: bool
    fault_status: bool
    fpu: bool
    instruction_cache: bool
    low_overhead_loops: bool

    @classmethod
    def of(cls, board: Board) -> _CoreFeatures:
        core = board.core
        return cls(
            vtor=core != "cortex-m0",
            fault_status=core not in ("cortex-m0", "cortex-m0plus"),
            fpu=board.float_abi != "soft",
            instruction_cache=core == "cortex-m7",
            low_overhead_loops=core == "cortex-m55",
        )


def _number(value: int) -> str:
    return f"0x{value:X}u" if value > 0xFFFF else f"{value}u"


def render_build_files(
    board: Board,
    model_name: str,
    stack_bytes: int,
    model_sources: Iterable[str],
    firmware_sources: Iterable[str],
    host_sources: Iterable[str],
    weights_region: str = "",
    defines: Iterable[str] = (),
    target: ForTarget = NOTHING,
) -> dict[str, bytes]:
    """Makefile, CMake files and README; the sources are paths of C files inside the project, `defines` their macros.

    Of `firmware_sources`, those that end in .S are assembly.
    """
    firmware_sources = sorted(firmware_sources)
    values = {
        "board": board,
        "model_name": model_name,
        "stack_bytes": stack_bytes,
        "model_sources": sorted(model_sources),
        "firmware_sources": firmware_sources,
        "host_sources": sorted(host_sources),
        "c_flags": [*C_FLAGS, *(f"-D{define}" for define in defines)],
        "small_folders": SMALL_FOLDERS,
        "small_flag": SMALL_FLAG,
        "includes": INCLUDES,
        "include_flags": [f"-I{folder}" for folder in INCLUDES],
        "board_includes": BOARD_INCLUDES,
        "board_include_flags": [
            *(f"-I{folder}" for folder in BOARD_INCLUDES),
            *(f"-D{name}" for name in target.defines),
            *(f"-isystem {folder}" for folder in target.system_includes),
        ],
        "target": target,
        "assembly": any(path.endswith(".S") for path in firmware_sources),
        "link_flags": [*LINK_FLAGS, "-Tboard/linker.ld"],
        "cmake_link_flags": [*LINK_FLAGS, "-T${CMAKE_SOURCE_DIR}/board/linker.ld"],
        "link_libraries": [*target.archives, *LINK_LIBRARIES],
        "weights_apart": bool(weights_region),
        "presets": ["host"] if board.is_host else ["firmware", "host"],
    }
    names = ("Makefile", "CMakeLists.txt", "CMakePresets.json", "README.md")
    return {name: template(f"project/{name}.j2").render(**values).encode() for name in names}

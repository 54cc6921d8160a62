"""The text of a project's build files and board files: templates plus the numbers and file lists they format."""

from __future__ import annotations

from collections.abc import Iterable

import jinja2

from tinypeft.boards import Board
from tinypeft.resources import resource_path

#: Compiler flags of firmware and twin alike. No fused multiply-add: both must compute the same float32 bits.
C_FLAGS = (
    *("-std=c11", "-O2", "-g", "-ffp-contract=off", "-ffunction-sections", "-fdata-sections"),
    *("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"),
)

#: Start-up is our own; of newlib-nano only memcpy and the like, of libgcc the 64-bit arithmetic.
#: There is no _sbrk and no _write, so that malloc or printf cannot be linked.
LINK_FLAGS = ("-nostartfiles", "--specs=nano.specs", "-Wl,--gc-sections", "-Wl,--fatal-warnings")
LINK_LIBRARIES = ("-lc", "-lgcc")

INCLUDES = ("firmware/include", "src")
BOARD_INCLUDES = ("board",)


def render_board(board: Board, stack_bytes: int) -> dict[str, bytes]:
    """The files under `board/`: start-up, linker script and numbers; none for the host."""
    if board.is_host:
        return {}
    names = ("startup.c", "linker.ld", "tp_board_config.h")
    return {f"board/{name}": _render(f"board/{name}.j2", board=board, stack_bytes=stack_bytes) for name in names}


def render_build_files(
    board: Board,
    model_name: str,
    stack_bytes: int,
    model_sources: Iterable[str],
    firmware_sources: Iterable[str],
    host_sources: Iterable[str],
) -> dict[str, bytes]:
    """Makefile, CMake files and README; the sources are paths of C files inside the project."""
    values = {
        "board": board,
        "model_name": model_name,
        "stack_bytes": stack_bytes,
        "model_sources": sorted(model_sources),
        "firmware_sources": sorted(firmware_sources),
        "host_sources": sorted(host_sources),
        "c_flags": C_FLAGS,
        "includes": INCLUDES,
        "include_flags": [f"-I{folder}" for folder in INCLUDES],
        "board_includes": BOARD_INCLUDES,
        "board_include_flags": [f"-I{folder}" for folder in BOARD_INCLUDES],
        "link_flags": [*LINK_FLAGS, "-Tboard/linker.ld"],
        "cmake_link_flags": [*LINK_FLAGS, "-T${CMAKE_SOURCE_DIR}/board/linker.ld"],
        "link_libraries": LINK_LIBRARIES,
        "presets": ["host"] if board.is_host else ["firmware", "host"],
    }
    names = ("Makefile", "CMakeLists.txt", "CMakePresets.json", "README.md")
    return {name: _render(f"project/{name}.j2", **values) for name in names}


def _render(template: str, **values: object) -> bytes:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(resource_path("templates")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template(template).render(**values).encode()

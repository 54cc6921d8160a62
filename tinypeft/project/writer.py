"""Write a self-contained project folder: all of it, or on any failure nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from tinypeft import __version__
from tinypeft.boards import HOST_CORE, Board
from tinypeft.errors import OutputError, VerifyError
from tinypeft.project.render import NOTHING, ForTarget, render_board, render_build_files, storage_defines
from tinypeft.resources import resource_path

#: The marker in manifest.json by which an earlier project is recognised
PROJECT_FORMAT = "tinypeft-project-1"

_SHARED_KERNEL = "tp_arithmetic.c"
_BOARD_GLUE = ("main.c", "tp_board.c")
_FIRMWARE_ONLY = (
    *(f"firmware/{folder}/" for folder in ("consoles", "clocks", "storages")),
    *(f"firmware/runtime/{name}" for name in _BOARD_GLUE),
)
_HOST_ONLY = ("firmware/runtime/host_twin.c", "firmware/store/tp_flash_file.c", "firmware/storages/host.c")
_NO_FILES: Mapping[str, bytes] = MappingProxyType({})
_OUR_KEYS = ("format", "tinypeft", "board", "model", "stack_bytes", "defines", "target", "storage", "files")


def write_project(
    directory: Path | str,
    board: Board,
    *,
    model_name: str,
    sources: Mapping[str, str],
    kernels: Iterable[str],
    stack_bytes: int,
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes],
    weights_region: str = "",
    defines: Sequence[str] = (),
    storage: bool = False,
    optional: Mapping[str, bytes] | None = None,
    target: ForTarget = NOTHING,
    prepare: Callable[[Path], None] | None = None,
) -> Path:
    """Write the project to `directory` and return its absolute path.

    sources         file name under src/ -> text; every `.c` is compiled, every `.S` for firmware alone
    kernels         C files under firmware/kernels/ that the sources call; those in a folder of it for firmware alone
    stack_bytes     size of the stack, a multiple of 8
    manifest        further keys of manifest.json (JSON values)
    files           file name under model/ -> content
    weights_region  the flash for constant tables; empty for that of the code
    defines         macros of every source, NAME=VALUE
    storage         with the driver of the board's storage, which the linker then keeps free; TP_STORAGE_* describe it
    target          what firmware alone is built with
    optional        path under firmware/ -> content of what only some projects have; every `.c` is compiled
    prepare         called with the complete folder before it appears, to build in it; if it raises, nothing is written

    The same arguments give the same bytes. The folder appears in one step; an earlier tinypeft project there is
    replaced. Raises OutputError where `directory` holds anything else or cannot be written, BoardError where the board
    has no storage that was asked for.
    """
    content = project_files(
        board,
        model_name,
        sources,
        kernels,
        stack_bytes,
        files,
        weights_region,
        defines,
        storage,
        optional or {},
        target,
    )
    content["manifest.json"] = project_manifest(
        board, model_name, stack_bytes, manifest, content, defines, storage, target
    )
    return write_files(directory, content, prepare)


def write_files(
    directory: Path | str, content: Mapping[str, bytes], prepare: Callable[[Path], None] | None = None
) -> Path:
    """Make `directory` a project of the files `content`, by path, as `write_project` does; returns its path."""
    target = Path(directory).resolve()
    try:
        _check_replaceable(target)
        _write_tree(target, content, prepare)
    except OSError as error:
        raise OutputError(
            f"cannot write {target}: {error.strerror or error}", "choose another output folder or free some space"
        ) from error
    return target


def read_manifest(directory: Path | str) -> dict[str, Any]:
    """The manifest of a project folder; raises OutputError where `directory` is none."""
    manifest = _earlier_manifest(Path(directory))
    if manifest is None:
        raise OutputError(f"{directory} is not a tinypeft project", "generate one: tinypeft generate --help")
    return manifest


def project_files(
    board: Board,
    model_name: str,
    sources: Mapping[str, str],
    kernels: Iterable[str],
    stack_bytes: int,
    files: Mapping[str, bytes],
    weights_region: str = "",
    defines: Sequence[str] = (),
    storage: bool = False,
    optional: Mapping[str, bytes] = _NO_FILES,
    target: ForTarget = NOTHING,
) -> dict[str, bytes]:
    """Every file of a project but its manifest, by path; the arguments are those of `write_project`."""
    if stack_bytes <= 0 or stack_bytes % 8:
        raise VerifyError(f"stack of {stack_bytes} bytes: not a positive multiple of 8")
    board = board.with_storage() if storage else board
    content = {f"src/{_inside(name)}": text.encode() for name, text in sources.items()}
    model_sources = [path for path in content if path.endswith(".c")]
    content |= {f"model/{_inside(name)}": data for name, data in files.items()}
    firmware = _firmware_files(board, set(kernels), storage)
    firmware |= {f"firmware/{_inside(path)}": data for path, data in optional.items()}
    content |= firmware
    content |= _trustzone_files(board)
    content |= render_board(board, stack_bytes, weights_region)
    compiled = [path for path in firmware if path.endswith(".c")]
    content |= render_build_files(
        board,
        model_name,
        stack_bytes,
        model_sources=model_sources,
        firmware_sources=[
            *(path for path in compiled if path not in _HOST_ONLY),
            *(path for path in content if path.startswith("src/") and path.endswith(".S")),
            "board/startup.c",
        ],
        host_sources=[path for path in compiled if path in _HOST_ONLY or not _for_firmware_alone(path)],
        weights_region=weights_region,
        defines=[*defines, *(storage_defines(board) if storage else ())],
        target=target,
    )
    return content


def _for_firmware_alone(path: str) -> bool:
    """Whether a host cannot compile the file: it is of a board, or of a backend's kernels."""
    kernel = path.startswith("firmware/kernels/") and len(PurePosixPath(path).parts) > 3
    return kernel or path.startswith(_FIRMWARE_ONLY)


def _firmware_files(board: Board, kernels: set[str], storage: bool) -> dict[str, bytes]:
    root = resource_path("firmware")
    folder = root / "kernels"
    available = {path.relative_to(folder).as_posix() for path in folder.rglob("*.c")}
    missing = sorted(kernels - available)
    if missing:
        raise VerifyError(f"no such file in firmware/kernels: {', '.join(missing)}")
    kernels = kernels | ({_SHARED_KERNEL} & available)
    chosen = [path for path in (root / "include").rglob("*.h")]
    for part in ("kernels", "runtime"):
        chosen += (root / part).glob("*.h")
    chosen += {header for name in kernels if "/" in name for header in (folder / name).parent.glob("*.h")}
    chosen += (folder / name for name in kernels)
    left_out = _BOARD_GLUE if board.is_host else ()
    chosen += (path for path in (root / "runtime").glob("*.c") if path.name not in left_out)
    if board.console:
        chosen.append(root / "consoles" / f"{board.console.driver}.c")
    if board.clock and board.clock.driver:
        chosen.append(root / "clocks" / f"{board.clock.driver}.c")
    if storage and board.storage:
        chosen += (root / "storages" / f"{driver}.c" for driver in {HOST_CORE, board.storage.driver})
        chosen += (root / "store").glob("*.[ch]")
    return {f"firmware/{path.relative_to(root).as_posix()}": path.read_bytes() for path in sorted(chosen)}


def _trustzone_files(board: Board) -> dict[str, bytes]:
    root = resource_path("firmware", "samples")
    chosen = sorted((root / "trustzone").rglob("*.*")) if board.trustzone else ()
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in chosen if path.is_file()}


def project_manifest(
    board: Board,
    model_name: str,
    stack_bytes: int,
    extra: Mapping[str, Any],
    content: Mapping[str, bytes],
    defines: Sequence[str] = (),
    storage: bool = False,
    target: ForTarget = NOTHING,
) -> bytes:
    """The text of manifest.json for the files `content`, with the keys of `extra`."""
    clashing = sorted(set(extra) & set(_OUR_KEYS))
    if clashing:
        raise VerifyError(f"manifest keys {', '.join(clashing)} are the project writer's own")
    manifest = {
        **extra,
        "format": PROJECT_FORMAT,
        "tinypeft": __version__,
        "board": board.name,
        "model": model_name,
        "stack_bytes": stack_bytes,
        "defines": list(defines),
        "target": asdict(target),
        "storage": storage,
        "files": {path: hashlib.sha256(data).hexdigest() for path, data in content.items()},
    }
    return (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode()


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise VerifyError(f"file name {name!r} leaves the project")
    return path.as_posix()


def _earlier_manifest(directory: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == PROJECT_FORMAT else None


def _check_replaceable(target: Path) -> None:
    hint = "choose another output folder, or remove this one"
    if not target.exists():
        return
    if not target.is_dir():
        raise OutputError(f"{target} exists and is not a folder", hint)
    try:
        empty = not any(target.iterdir())
    except OSError as error:
        raise OutputError(f"cannot read {target}: {error.strerror}", hint) from error
    if not empty and _earlier_manifest(target) is None:
        raise OutputError(f"{target} is not empty and not a tinypeft project", hint)


def _write_tree(target: Path, content: Mapping[str, bytes], prepare: Callable[[Path], None] | None) -> None:
    created: list[Path] = []
    stage: Path | None = None
    try:
        _make_parents(target.parent, created)
        # Beside the target, so that both are on one file system and a rename suffices.
        stage = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        tree = stage / "new"
        for path, data in content.items():
            file = tree / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        if prepare is not None:
            prepare(tree)
        _put_in_place(tree, target, stage / "old")
    except BaseException:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: the project is in place already
            for folder in reversed(created):
                folder.rmdir()
        raise
    shutil.rmtree(stage, ignore_errors=True)


def _put_in_place(tree: Path, target: Path, old: Path) -> None:
    if not target.exists():
        os.rename(tree, target)
        return
    os.rename(target, old)
    try:
        os.rename(tree, target)
    except BaseException:
        if not target.exists():
            os.rename(old, target)
        raise


def _make_parents(parent: Path, created: list[Path]) -> None:
    """Create what is missing of `parent`, adding to `created` what was, outermost first."""
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        created.append(folder)

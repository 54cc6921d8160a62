"""A project once more for another board: for the machine that stands in for its own board in an emulator."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from tinypeft.boards import Board
from tinypeft.errors import OutputError
from tinypeft.project.render import ForTarget
from tinypeft.project.writer import project_files, project_manifest, read_manifest, write_files

_SAME = ("src/", "firmware/")
_KERNELS = "firmware/kernels/"
_OPTIONAL = ("firmware/runtime-optional/", "firmware/monocypher/")


def retarget_project(directory: Path | str, board: Board) -> Path:
    """Write `build/<board>/`, a project for `board` with the sources that lie in `directory` now; returns its path.

    A storage of the project's board is one of `board` then: `board` comes from `board_on` a board of `with_storage`.
    Nothing is written where all is as it should be, so that building again is quick. Raises OutputError where
    `directory` is no project or lacks files.
    """
    source = Path(directory).resolve()
    manifest = read_manifest(source)
    defines, storage = manifest.get("defines", ()), manifest.get("storage", False)
    alone = ForTarget(**{name: tuple(values) for name, values in manifest.get("target", {}).items()})
    paths = [path for path in manifest["files"] if path.startswith(_SAME)]
    try:
        own = {path: (source / path).read_bytes() for path in paths}
    except OSError as error:
        raise OutputError(f"{source} is damaged: {error}", "generate it again") from error
    content = project_files(
        board,
        manifest["model"],
        {PurePosixPath(path).relative_to("src").as_posix(): own[path].decode() for path in paths if path[:4] == "src/"},
        [path.removeprefix(_KERNELS) for path in paths if path.startswith(_KERNELS) and path.endswith(".c")],
        manifest["stack_bytes"],
        {},
        manifest.get("memory", {}).get("weights_region", ""),
        defines,
        storage,
        {path.removeprefix("firmware/"): data for path, data in own.items() if path.startswith(_OPTIONAL)},
        alone,
    )
    content |= {path: data for path, data in own.items() if path in content}
    content["manifest.json"] = project_manifest(
        board, manifest["model"], manifest["stack_bytes"], {}, content, defines, storage, alone
    )
    target = source / "build" / board.name
    if _differs(target, content):
        write_files(target, content)
    return target


def _differs(target: Path, content: dict[str, bytes]) -> bool:
    try:
        return any((target / path).read_bytes() != data for path, data in content.items())
    except OSError:
        return True

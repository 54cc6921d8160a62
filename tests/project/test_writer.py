"""Writing a project: the same bytes, all or nothing, never over somebody else's files."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from tinypeft.boards import board_on, load_board
from tinypeft.errors import OutputError, VerifyError
from tinypeft.project import PROJECT_FORMAT, read_manifest, write_project, writer
from tinypeft.resources import resource_path


def tree(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def test_layout(board, make_project):
    files = tree(make_project(board))
    expected = {
        "Makefile",
        "CMakeLists.txt",
        "README.md",
        "manifest.json",
        "src/fake.c",
        "src/fake.h",
        "model/fake.tflite",
    }
    expected |= {"board/startup.c", "board/linker.ld", "board/tp_board_config.h", "firmware/runtime/main.c"}
    assert expected <= set(files)
    kernels = {path for path in files if path.startswith("firmware/kernels/") and path.endswith(".c")}
    assert kernels == {f"firmware/kernels/{name}.c" for name in ("tp_arithmetic", "tp_conv", "tp_lora_add")}
    assert [path for path in files if path.startswith("firmware/consoles/")] == [
        f"firmware/consoles/{board.console.driver}.c"
    ]


def test_trustzone_comes_with_boards_that_have_it(make_project, tmp_path):
    """The sample's files as they are; not for a machine that only lends its core to another board."""
    root = resource_path("firmware", "samples", "trustzone")
    expected = {f"trustzone/{path}": data for path, data in tree(root).items()}
    files = tree(make_project(load_board("mps2_an505"), directory=tmp_path / "one"))
    assert {path: data for path, data in files.items() if path.startswith("trustzone/")} == expected and expected
    assert b"include trustzone/trustzone.mk" in files["Makefile"]
    for name, board in (("two", load_board("mps2_an386")), ("three", board_on(load_board("nucleo_l552ze_q"), "qemu"))):
        files = tree(make_project(board, directory=tmp_path / name))
        assert not any(path.startswith("trustzone/") for path in files) and b"trustzone" not in files["Makefile"]


def test_host_has_no_board_files(make_project):
    files = tree(make_project(load_board("host")))
    assert not any(path.startswith(("board/", "firmware/consoles/")) for path in files)
    assert "firmware/runtime/host_twin.c" in files and "firmware/runtime/main.c" not in files


def test_same_bytes_twice(board, make_project, tmp_path):
    first = tree(make_project(board, directory=tmp_path / "one"))
    assert first == tree(make_project(board, directory=tmp_path / "two"))
    assert str(tmp_path).encode() not in b"".join(first.values())


def test_order_of_arguments_does_not_matter(board, make_project, tmp_path):
    sources = {"b.c": "int b;\n", "a.c": "int a;\n"}
    kernels = ["tp_lora.c", "tp_conv.c"]
    one = make_project(board, directory=tmp_path / "one", sources=sources, kernels=kernels)
    two = make_project(
        board, directory=tmp_path / "two", sources=dict(reversed(sources.items())), kernels=kernels[::-1]
    )
    assert tree(one) == tree(two)


def test_manifest(board, make_project):
    project = make_project(board)
    manifest = read_manifest(project)
    assert manifest["format"] == PROJECT_FORMAT and manifest["adapter"] == {"r": 4}
    assert (manifest["board"], manifest["model"], manifest["stack_bytes"]) == (board.name, "fake", 2048)
    files = tree(project)
    del files["manifest.json"]
    assert manifest["files"] == {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}


def test_earlier_project_is_replaced(board, make_project):
    project = make_project(board, files={"old.tflite": b"old"})
    (project / "build").mkdir()
    (project / "build" / "firmware.elf").write_text("old")
    assert "model/old.tflite" not in tree(make_project(board))
    assert not (project / "build").exists()
    assert [path.name for path in project.parent.iterdir()] == ["project"]


def test_empty_folder_is_taken(board, make_project, tmp_path):
    (tmp_path / "project").mkdir()
    assert (make_project(board) / "Makefile").is_file()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other"}', "not json"])
def test_foreign_folder_is_refused(board, make_project, tmp_path, content):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "manifest.json").write_text(content)
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="not empty and not a tinypeft project"):
        make_project(board)
    assert tree(tmp_path) == before


def test_file_is_refused(board, make_project, tmp_path):
    (tmp_path / "project").write_text("mine")
    with pytest.raises(OutputError, match="not a folder"):
        make_project(board)
    assert tree(tmp_path) == {"project": b"mine"}


def test_parent_that_is_a_file(board, make_project, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="cannot write"):
        make_project(board, directory=tmp_path / "file" / "project")
    assert tree(tmp_path) == {"file": b"mine"}


class Fault:
    """Stands in for a function of Path or os; the `at`-th call raises."""

    def __init__(self, real, at: int, error: BaseException):
        self.real, self.at, self.error, self.calls = real, at, error, 0

    def __call__(self, *arguments, **keywords):
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return self.real(*arguments, **keywords)

    def __get__(self, instance, owner):
        return lambda *arguments, **keywords: self(instance, *arguments, **keywords)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("x")])
@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("at", [1, 2, 10, 25])
def test_failed_write_leaves_nothing(board, make_project, tmp_path, monkeypatch, error, earlier, at):
    directory = tmp_path / "new" / "parents" / "project"
    if earlier:
        make_project(board, directory=directory, files={"old.tflite": b"old"})
    before = tree(tmp_path), sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(Path, "write_bytes", Fault(Path.write_bytes, at, error))
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        make_project(board, directory=directory)
    assert (tree(tmp_path), sorted(tmp_path.rglob("*"))) == before


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("at", [1, 2])
def test_failed_rename_keeps_the_earlier_project(board, make_project, tmp_path, monkeypatch, error, at):
    make_project(board, files={"old.tflite": b"old"})
    before = tree(tmp_path)
    monkeypatch.setattr(writer.os, "rename", Fault(os.rename, at, error))
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        make_project(board)
    assert tree(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission(board, make_project, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="Permission denied"):
        make_project(board, directory=tmp_path / "locked" / "project")


@pytest.mark.parametrize("name", ["../x.c", "/x.c", "a/../../x.c", ""])
def test_names_stay_inside(board, make_project, name):
    with pytest.raises(VerifyError, match="leaves the project"):
        make_project(board, sources={name: ""})


def test_defects_are_named(board, make_project, tmp_path):
    with pytest.raises(VerifyError, match="tp_nothing.c"):
        make_project(board, kernels=["tp_nothing.c"])
    with pytest.raises(VerifyError, match="stack of 100 bytes"):
        make_project(board, stack_bytes=100)
    with pytest.raises(VerifyError, match="board"):
        make_project(board, manifest={"board": "x"})
    assert list(tmp_path.iterdir()) == []


def test_relative_path_and_string(board, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    empty = {"sources": {}, "kernels": [], "manifest": {}, "files": {}}
    project = write_project("here", board, model_name="m", stack_bytes=1024, **empty)
    assert project == tmp_path / "here"
    assert json.loads((project / "manifest.json").read_text())["model"] == "m"


def test_read_manifest_of_a_foreign_folder(tmp_path):
    with pytest.raises(OutputError, match="not a tinypeft project"):
        read_manifest(tmp_path)

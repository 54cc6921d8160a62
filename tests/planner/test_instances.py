"""Files in MiniMalloc's form, read and refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinypeft.errors import DataError
from tinypeft.planner.instances import read_instance, read_instances

HEADER = "id,lower,upper,size\n"


def test_lifetimes_are_half_open_and_sizes_rounded_up(tmp_path: Path) -> None:
    path = tmp_path / "small.csv"
    path.write_text("size,id,lower,upper,note\n9,b1,0,3,x\n4,b2,3,9,y\n")
    instance = read_instance(path)
    assert instance.name == "small" and instance.pinned == {}
    assert [(b.name, b.size, b.first, b.last) for b in instance.buffers] == [("b1", 12, 0, 2), ("b2", 4, 3, 8)]


def test_a_folder_gives_its_files_by_name(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.csv").write_text(HEADER + "0,0,1,4\n")
    (tmp_path / "notes.txt").write_text("x")
    assert [instance.name for instance in read_instances(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,lower,size\n0,0,4\n", "line 1: no column upper; found is id,lower,size"),
        ("", "line 1: no column id, lower, upper, size; found is nothing"),
        (HEADER, "has a header and no buffer"),
        (HEADER + "0,0,1,4\n1,0,1,-4\n", "line 3: size is -4, it must be 1 or more"),
        (HEADER + "0,0,1,0\n", "line 2: size is 0"),
        (HEADER + "0,5,5,4\n", "line 2: upper is 5, it must be more than lower, 5"),
        (HEADER + "0,0,1,4\n0,0,1,4\n", "line 3: id '0' is that of a line above"),
        (HEADER + "0,0,1.5,4\n", "line 2: upper is '1.5', it must be a whole number"),
        (HEADER + "0,0,1\n", "line 2: size is 'missing', it must be a whole number"),
    ],
)
def test_a_faulty_file_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "faulty.csv"
    path.write_text(text)
    with pytest.raises(DataError) as error:
        read_instance(path)
    assert str(path) in error.value.message and message in error.value.message and error.value.hint


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_instances(tmp_path / "missing.csv")
    with pytest.raises(DataError, match=r"holds no \.csv file"):
        read_instances(tmp_path)
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_instances(tmp_path)

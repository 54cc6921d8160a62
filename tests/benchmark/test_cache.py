"""The cache: a key changes with all that it is made of, files are whole or absent, damage is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinypeft.benchmark.cache import cache_folder, digest, folder_is_intact, new_folder, read_json, write_json
from tinypeft.benchmark.datasets import BaseTraining
from tinypeft.errors import OutputError


def test_a_digest_changes_with_every_part() -> None:
    recipe = BaseTraining("ds_cnn", 15, 64, 1e-3)
    x = np.arange(6, dtype=np.float32)
    other = x.copy()
    other[-1] = np.nextafter(x[-1], np.float32(9))
    variants = [
        (recipe, x),
        (BaseTraining("ds_cnn", 15, 64, 1e-3, revision=2), x),
        (recipe, other),
        (recipe, x.reshape(2, 3)),
        (recipe, x.astype(np.float64)),
        (recipe, x, ""),
        (recipe, x, b""),
    ]
    assert len({digest(*parts) for parts in variants}) == len(variants)
    assert digest(recipe, x) == digest(BaseTraining("ds_cnn", 15, 64, 1e-3), x[::1].copy())
    assert digest("ab", "c") != digest("a", "bc")


def test_json_is_written_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "result.json"
    assert read_json(path) is None
    write_json(path, {"value": 0.5})
    assert read_json(path) == {"value": 0.5}
    with pytest.raises(ValueError):
        write_json(path, {"value": float("nan")})
    assert read_json(path) == {"value": 0.5}
    assert [entry.name for entry in path.parent.iterdir()] == ["result.json"]
    for damaged in ("", '{"value": 0.', "[1]", "\x00"):
        path.write_text(damaged)
        assert read_json(path) is None


def test_a_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "cache" / "model"
    with pytest.raises(RuntimeError), new_folder(path) as folder:
        (folder / "weights").write_bytes(b"half")
        raise RuntimeError("interrupted")
    assert not folder_is_intact(path) and list(path.parent.iterdir()) == []
    for content in (b"first", b"second"):
        with new_folder(path) as folder:
            (folder / "weights").write_bytes(content)
            assert not path.exists() or (path / "weights").read_bytes() == b"first"
        assert folder_is_intact(path) and (path / "weights").read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "extra", "no checksums"])
def test_damage_is_noticed(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "model"
    with new_folder(path) as folder:
        (folder / "weights").write_bytes(b"content")
    if damage == "flipped":
        (path / "weights").write_bytes(b"contenu")
    elif damage == "truncated":
        (path / "weights").write_bytes(b"cont")
    elif damage == "missing":
        (path / "weights").unlink()
    elif damage == "extra":
        (path / "another").touch()
    else:
        (path / "sha256.json").write_text("{")
    assert not folder_is_intact(path)


def test_a_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TINYPEFT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError, match="cannot be made") as caught:
        cache_folder()
    assert "TINYPEFT_CACHE" in str(caught.value.hint)

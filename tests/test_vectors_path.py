"""Vectors from another folder take the place of ours; a wrong folder is none that holds any."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vectors_path import HERE, vector_file


def test_our_own_vectors_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COVEY_VECTORS", raising=False)
    assert vector_file("protomux") == HERE / "protomux.json"


def test_files_of_the_same_names_in_another_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "protomux.json").write_text("{}")
    monkeypatch.setenv("COVEY_VECTORS", str(tmp_path))
    assert vector_file("protomux") == tmp_path / "protomux.json"
    assert vector_file("secret-stream") == HERE / "secret-stream.json"


@pytest.mark.parametrize("folder", ["missing", "."])
def test_a_folder_without_vectors_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str
) -> None:
    monkeypatch.setenv("COVEY_VECTORS", str(tmp_path / folder))
    with pytest.raises(NotADirectoryError, match="COVEY_VECTORS"):
        vector_file("protomux")

"""Which file a path means, and which backend opens it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import FIXTURES, QUPATH

from her2bridge.errors import BackendUnavailable, ProjectNotFound, UsageError
from her2bridge.qupath.open import open_project, project_file

SOURCE = FIXTURES / "qupath_objects" / "qupath_0_6_0" / "project.qpproj"


@pytest.mark.parametrize("folder", ["plain", "dots.in.the.name", "a.qpproj", "Fälle µ #1 + 100%"])
def test_folder_and_file_mean_the_same(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    path = Path(shutil.copy(SOURCE, tmp_path / folder))
    assert project_file(path.parent) == project_file(path) == project_file(str(path)) == path
    assert open_project(path.parent).path == path


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(shutil.copy(SOURCE, tmp_path))
    monkeypatch.chdir(tmp_path)
    assert project_file(".") == project_file("project.qpproj") == path


def test_a_project_of_another_name(tmp_path: Path) -> None:
    path = Path(shutil.copy(SOURCE, tmp_path / "HER2 2026.qpproj"))
    shutil.copy(SOURCE, tmp_path / "HER2 2026.qpproj.backup")
    assert project_file(tmp_path) == path
    shutil.copy(SOURCE, tmp_path / "other.qpproj")
    with pytest.raises(UsageError, match="holds 2 projects") as caught:
        project_file(tmp_path)
    assert "HER2 2026.qpproj, other.qpproj" in caught.value.next_step
    usual = Path(shutil.copy(SOURCE, tmp_path))
    assert project_file(tmp_path) == usual


def test_none(tmp_path: Path) -> None:
    (tmp_path / "slide.tif").write_bytes(b"")
    for path, message in (
        (tmp_path, "no QuPath project here"),
        (tmp_path / "nowhere", "no such file or folder"),
        (tmp_path / "slide.tif", "not a QuPath project file"),
    ):
        with pytest.raises(ProjectNotFound, match=message) as caught:
            open_project(path)
        assert caught.value.where == str(path)
        assert caught.value.exit_code == 2


def test_backends(backend: str) -> None:
    assert open_project(SOURCE, "files").backend == "files (the project is of QuPath 0.6.0)"
    assert open_project(SOURCE, backend).backend.startswith(backend)
    with pytest.raises(UsageError, match="no backend called 'java'"):
        open_project(SOURCE, "java")


@pytest.mark.skipif(QUPATH is not None, reason="a QuPath is here")
def test_without_a_qupath() -> None:
    assert "There is no usable QuPath" in open_project(SOURCE, "auto").backend
    assert open_project(SOURCE, "auto").backend.startswith("files (")
    with pytest.raises(BackendUnavailable) as caught:
        open_project(SOURCE, "paquo")
    assert "PAQUO_QUPATH_DIR" in caught.value.where
    assert "--backend files" in caught.value.next_step
    assert caught.value.exit_code == 2

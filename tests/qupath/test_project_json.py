"""The project file and its list of classes: read, and changed in nothing but what is asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES

from her2bridge.errors import ChangedOnDisk, ProjectDamaged, ProjectNotFound
from her2bridge.qupath import project_json
from her2bridge.qupath.project_json import ClassList, ProjectJson, as_json
from her2bridge.qupath.seam import PathClassRef

PROJECTS = sorted(FIXTURES.rglob("project.qpproj"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Path(shutil.copy(FIXTURES / "qupath_objects" / "qupath_0_6_0" / "project.qpproj", tmp_path))


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_laid_out_as_qupath_does(path: Path) -> None:
    assert as_json(json.loads(path.read_bytes())) == path.read_bytes().strip()


class TestMetadata:
    def test_only_one_image_changes(self, path: Path) -> None:
        before = json.loads(path.read_bytes())
        project = ProjectJson(path)
        project.set_metadata("1", {"Patient": None, "HER2 AI score": "3+", "µ": "ä"})
        after = json.loads(path.read_bytes())
        changed = after["images"][0].pop("metadata")
        assert changed == {"HER2 IHC": "2+", "HER2 AI score": "3+", "µ": "ä"}
        assert before["images"][0].pop("metadata")
        assert after == before
        assert list(after) == list(before)
        assert project.image("1")["metadata"] == changed

    def test_the_file_before_is_kept(self, path: Path) -> None:
        before = path.read_bytes()
        project = ProjectJson(path)
        project.set_metadata("2", {"a": "b"})
        assert path.with_name("project.qpproj.backup").read_bytes() == before

    def test_what_qupath_wrote_meanwhile_stays(self, path: Path) -> None:
        project = ProjectJson(path)
        content = json.loads(path.read_bytes())
        content["images"][1]["metadata"]["Patient"] = "P-002"
        content["images"][0]["description"] = "new"
        path.write_bytes(as_json(content))
        project.set_metadata("1", {"a": "b"})
        after = json.loads(path.read_bytes())
        assert after["images"][1]["metadata"]["Patient"] == "P-002"
        assert after["images"][0]["description"] == "new"
        assert after["images"][0]["metadata"]["a"] == "b"

    def test_an_image_that_was_removed_meanwhile(self, path: Path) -> None:
        project = ProjectJson(path)
        content = json.loads(path.read_bytes())
        del content["images"][0]
        path.write_bytes(as_json(content))
        with pytest.raises(ChangedOnDisk, match="no longer in the project"):
            project.set_metadata("1", {"a": "b"})

    def test_what_qupath_writes_while_we_write_stays(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """QuPath saves between our reading and our replacing: both changes are there in the end."""
        project = ProjectJson(path)
        write = project_json.write_atomically
        saves = []

        def meanwhile(target: Path, data: bytes, **how: Any) -> bool:
            if not saves:
                content = json.loads(path.read_bytes())
                content["images"][1]["description"] = "of QuPath"
                path.write_bytes(as_json(content))
                saves.append(1)
            return write(target, data, **how)

        monkeypatch.setattr(project_json, "write_atomically", meanwhile)
        project.set_metadata("1", {"a": "b"})
        after = json.loads(path.read_bytes())
        assert after["images"][1]["description"] == "of QuPath"
        assert after["images"][0]["metadata"]["a"] == "b"

    def test_a_file_that_never_keeps_still(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        project = ProjectJson(path)
        monkeypatch.setattr(project_json, "write_atomically", lambda *_, **__: False)
        before = path.read_bytes()
        with pytest.raises(ChangedOnDisk, match="all the time") as caught:
            project.set_metadata("1", {"a": "b"})
        assert "her2bridge restore" in caught.value.next_step
        assert path.read_bytes() == before

    def test_nothing_new_is_not_written(self, path: Path) -> None:
        ProjectJson(path).set_metadata("1", {"Patient": "P-001", "absent": None})
        assert not path.with_name("project.qpproj.backup").exists()


class TestReading:
    @pytest.mark.parametrize(
        "text",
        [
            *("", "{", "[]", "{}", '{"images": {}}', '{"images": [{}]}', '{"images": [{"entryID": 1}]}', "\0"),
            '{"images": [{"entryID": 1, "serverBuilder": {}, "metadata": []}]}',
            '{"images": [{"entryID": "../../evil", "serverBuilder": {}}]}',
            '{"images": [{"entryID": "/etc", "serverBuilder": {}}]}',
            '{"images": [{"entryID": 1, "serverBuilder": {}}, {"entryID": "1", "serverBuilder": {}}]}',
        ],
    )
    def test_what_is_no_project(self, path: Path, text: str) -> None:
        path.write_text(text)
        with pytest.raises(ProjectDamaged) as caught:
            ProjectJson(path)
        assert caught.value.where == str(path)
        assert "project.qpproj.backup" in caught.value.next_step

    def test_none(self, tmp_path: Path) -> None:
        with pytest.raises(ProjectNotFound):
            ProjectJson(tmp_path / "project.qpproj")

    @pytest.mark.parametrize("version", ["0.4.4", "0.5.1", "v0.3.2", "0.7.0", "0.7.3-SNAPSHOT", "0.7.0-rc1", None])
    def test_versions_that_may_be_written(self, path: Path, version: str | None) -> None:
        path.write_bytes(as_json({**json.loads(path.read_bytes()), "version": version}))
        assert ProjectJson(path).read_only_reason is None

    @pytest.mark.parametrize("version", ["0.8.0", "0.10.0", "1.0.0", "v1.0.0-rc1"])
    def test_versions_that_may_not(self, path: Path, version: str) -> None:
        path.write_bytes(as_json({**json.loads(path.read_bytes()), "version": version}))
        reason = ProjectJson(path).read_only_reason
        assert reason is not None
        assert version in reason


class TestClassList:
    def test_merging_leaves_what_is_there(self, tmp_path: Path) -> None:
        shutil.copytree(FIXTURES / "qupath_objects" / "qupath_0_6_0" / "classifiers", tmp_path / "classifiers")
        classes = ClassList(tmp_path)
        before = classes.path.read_bytes()
        had = classes.read()
        assert PathClassRef(("3+",), (255, 0, 0)) in had
        classes.merge([PathClassRef(("3+",), (1, 2, 3))])
        assert classes.path.read_bytes() == before
        new = [PathClassRef(("HER2", "3+"), (250, 62, 62)), PathClassRef(("Plain",))]
        classes.merge([*had[:2], *new])
        assert classes.read() == [*had, *new]
        assert json.loads(classes.path.read_bytes())["pathClasses"][-2:] == [
            {"name": "HER2: 3+", "color": -377282},
            {"name": "Plain"},
        ]

    def test_a_project_without_a_list_gets_one(self, tmp_path: Path) -> None:
        classes = ClassList(tmp_path)
        assert classes.read() == []
        classes.merge([PathClassRef(("2+",), (255, 187, 62))])
        assert classes.read() == [PathClassRef(("2+",), (255, 187, 62))]

    @pytest.mark.parametrize(
        "text", ["{", "[]", '{"pathClasses": [{}]}', '{"pathClasses": [{"name": "a", "color": "b"}]}']
    )
    def test_what_is_no_list_is_left_alone(self, tmp_path: Path, text: str) -> None:
        classes = ClassList(tmp_path)
        classes.path.parent.mkdir()
        classes.path.write_text(text)
        with pytest.raises(ProjectDamaged):
            classes.merge([PathClassRef(("2+",))])
        assert classes.path.read_text() == text

"""The scripts for QuPath: what is written into them, what is told of them, and that nothing a person wrote is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import contents
from hypothesis import given
from hypothesis import strategies as st

from her2bridge import events, scripts
from her2bridge.errors import Her2BridgeError, ProjectNotFound, UsageError
from her2bridge.qupath import classes
from her2bridge.qupath.results import (
    METADATA_KEYS,
    PROBABILITY_NAMES,
    REGION_MEASUREMENTS,
    RESEARCH_USE_ONLY,
    SPECIMEN_KEY,
)
from her2bridge.qupath.seam import OWNERSHIP_KEY, PathClassRef
from her2bridge.qupath.suspect_labels import SUSPECT_CLASS
from her2bridge.records import NOT_ASSESSABLE, TUMOUR_CLASSES, Specimen, TileClass
from her2bridge.scripts import (
    BEGIN,
    END,
    Found,
    State,
    check_scripts,
    groovy_string,
    install_scripts,
    package_scripts,
    scripts_folder,
    values_of,
)
from her2bridge.version import version

ROOT = Path(__file__).parents[1]
EMPTY_BLOCK = f"{BEGIN}\nfinal String PYTHON = ''\nfinal String SHARED = ''\nfinal String INSTALLED = ''\n{END}\n"
TRIALS = ("HER2 - Trial.groovy", "HER2 - Trial of another.groovy")
OURS = sorted(path.name for path in (ROOT / "groovy").glob("*.groovy"))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's scripts and two more, in a folder that a test may change."""
    folder = tmp_path / "package"
    shutil.copytree(ROOT / "groovy", folder)
    for name in TRIALS:
        text = f"/**\n * {name}: «µm».\n */\n\n{EMPTY_BLOCK}\nprintln '$0 \\\\1 {name}'\n"
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    monkeypatch.setattr(scripts, "shared_folder", lambda: folder / "shared")
    return folder


@pytest.fixture
def installed(package: Path, tmp_path: Path) -> Path:
    """A folder that they have been installed into."""
    folder = tmp_path / "project" / "scripts"
    assert {one.state for one in install_scripts(folder)} == {State.INSTALLED}
    return folder


def found_in(folder: Path, name: str = TRIALS[0]) -> Found:
    """What is told of one script there; the others must be current."""
    found = {one.path.name: one for one in check_scripts(folder)}
    assert {one.state for other, one in found.items() if other != name} == {State.CURRENT}
    return found[name]


def change(path: Path, of: Callable[[str], str]) -> None:
    before = path.read_text(encoding="utf-8")
    after = of(before)
    assert after != before
    path.write_text(after, encoding="utf-8", newline="")


# What ships


@pytest.mark.parametrize("name", OURS)
def test_a_script_that_ships_can_be_installed(name: str) -> None:
    assert name.isascii()
    assert name.startswith("HER2 - ")
    text = (ROOT / "groovy" / name).read_text(encoding="utf-8")
    assert text.count(EMPTY_BLOCK) == text.count(BEGIN) == text.count(END) == 1
    assert not re.search(r"\b(PYTHON|SHARED|INSTALLED) *=", text.replace(EMPTY_BLOCK, ""))


def test_the_names_are_those_that_python_writes() -> None:
    names = json.loads((ROOT / "groovy" / "shared" / "names.json").read_text(encoding="ascii"))
    assert (names["schema"], names["version"], names["events_schema"]) == (1, version(), events.SCHEMA)
    assert names["ownership_key"] == OWNERSHIP_KEY
    assert names["suspect_class"] == str(SUSPECT_CLASS)
    assert tuple(names["metadata"].values()) == METADATA_KEYS
    assert tuple(names["region_measurements"].values()) == REGION_MEASUREMENTS
    assert all(name.endswith(f"% tiles {key[6:]}") for key, name in names["metadata"].items() if "share" in key)
    assert [one["label"] for one in names["classes"]] == [one.label for one in TileClass]
    assert tuple(one["probability"] for one in names["classes"]) == PROBABILITY_NAMES
    assert [PathClassRef((one["name"],), tuple(one["color"])) for one in names["classes"]] == classes.path_classes()
    assert [one["is_tumour"] for one in names["classes"]] == [one in TUMOUR_CLASSES for one in TileClass]
    assert set(names["graded_last_names"]) == classes.GRADED_LAST_NAMES
    assert {name.casefold() for name in names["region_classes"]} == classes._TUMOUR_NAMES
    assert {name.casefold() for name in names["starred_but_no_exclusion"]} == classes._NOT_AN_EXCLUSION
    assert names["specimen_key"] == SPECIMEN_KEY
    assert names["specimens"] == [str(one) for one in Specimen]
    assert (names["not_assessable"], names["research_use_only"]) == (NOT_ASSESSABLE, RESEARCH_USE_ONLY)


def test_the_scripts_go_into_the_wheel() -> None:
    """The build itself is no part of these tests; ``shared_folder`` looks there first."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert wheel["wheel"]["only-include"] == ["her2bridge", "groovy"]
    assert wheel["wheel"]["sources"] == {"groovy": "her2bridge/groovy"}
    assert scripts.shared_folder() == ROOT / "groovy" / "shared"


def test_an_installation_without_them_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "__file__", str(tmp_path / "her2bridge" / "scripts.py"))
    with pytest.raises(Her2BridgeError, match="not in this installation"):
        package_scripts()
    shared = tmp_path / "her2bridge" / "groovy" / "shared"
    shared.mkdir(parents=True)
    (shared / "names.json").touch()
    assert scripts.shared_folder() == shared


# Paths as Groovy reads them

_SHORT = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "s": " ", "'": "'", '"': '"', "\\": "\\"}


def groovy_reads(source: str) -> str:
    """A single-quoted string of Groovy 4, by its grammar (GroovyLexer.g4); a bare ``$`` is refused."""
    assert re.fullmatch(r"'(?:[^'\\\r\n$]|\\u[0-9a-fA-F]{4}|\\[bfnrts'\"\\])*'", source, re.ASCII), source
    parts = re.findall(r"\\u....|\\.|.", source[1:-1])
    units = [
        part if part[0] != "\\" else chr(int(part[2:], 16)) if part[1] == "u" else _SHORT[part[1]] for part in parts
    ]
    return "".join(units).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@pytest.mark.parametrize(
    ("path", "written"),
    [
        (r"C:\Users\new\.venv\Scripts\python.exe", r"'C:\\Users\\new\\.venv\\Scripts\\python.exe'"),
        (r"\\server\share$\her 2\python.exe", r"'\\\\server\\share\u0024\\her 2\\python.exe'"),
        ("/home/Zoë/it's ${x}/bin/python", r"'/home/Zo\u00eb/it\'s \u0024{x}/bin/python'"),
        ("/opt/😀", r"'/opt/\ud83d\ude00'"),
        ("C:\\u0041\\101", r"'C:\\u0041\\101'"),
        ("/a\nb\\", r"'/a\nb\\'"),
    ],
)
def test_a_path_as_it_is_written(path: str, written: str) -> None:
    assert groovy_string(path) == written
    assert groovy_reads(written) == path


@given(st.text(st.characters(codec="utf-8")), st.text("\\'\"$u04{}\n ë😀"))
def test_every_text_comes_back(any_text: str, hard: str) -> None:
    for text in (any_text, hard):
        written = groovy_string(text)
        assert written.isascii()
        assert groovy_reads(written) == text
        assert values_of(f"{BEGIN}\nfinal String PYTHON = {written}\n{END}") == {"PYTHON": text}


# Installing


def test_only_the_block_is_written(installed: Path, package: Path) -> None:
    assert sorted(contents(installed)) == sorted(path.name for path in package.glob("*.groovy"))
    for path in installed.iterdir():
        text, template = path.read_bytes().decode(), (package / path.name).read_bytes().decode()
        block = text[text.index(BEGIN) : text.index(END)]
        assert text.replace(block, EMPTY_BLOCK.partition(END)[0]) == template
        assert re.search(r"^// digest: [0-9a-f]{12}$", block, re.MULTILINE)
        assert values_of(text) == {
            "PYTHON": sys.executable,
            "SHARED": str(package / "shared"),
            "INSTALLED": version(),
        }


def test_a_second_time_changes_nothing(installed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in installed.iterdir()}
    assert {one.state for one in install_scripts(installed)} == {State.CURRENT}
    assert {path: path.stat().st_mtime_ns for path in installed.iterdir()} == before


def test_nothing_is_written_by_looking(package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project" / "scripts"
    found = list(check_scripts(folder))
    assert {one.state for one in found} == {State.MISSING}
    assert [one.path for one in found] == [folder / name for name in package_scripts()]
    assert not folder.exists()


def test_a_folder_that_cannot_be(package: Path, tmp_path: Path) -> None:
    (tmp_path / "project").write_text("a file")
    with pytest.raises(Her2BridgeError):
        list(install_scripts(tmp_path / "project" / "scripts"))
    (tmp_path / "scripts" / TRIALS[0]).mkdir(parents=True)
    with pytest.raises(Her2BridgeError, match="cannot be read"):
        list(install_scripts(tmp_path / "scripts"))


def test_a_python_that_would_not_find_us_is_refused(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = environment(tmp_path / "bare")
    for python in ("", str(tmp_path / "nowhere"), str(bare)):
        monkeypatch.setattr(sys, "executable", python)
        with pytest.raises(Her2BridgeError, match="could not start her2bridge"):
            list(install_scripts(tmp_path / "scripts"))
        assert not (tmp_path / "scripts").exists()


def environment(folder: Path, *paths: str) -> Path:
    """The interpreter of a new virtual environment that also looks for packages in ``paths``."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=120)
    (site,) = [folder / "Lib" / "site-packages"] if os.name == "nt" else folder.glob("lib/python*/site-packages")
    (site / "ours.pth").write_text("\n".join(paths), encoding="utf-8")
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def test_a_strange_path_from_end_to_end(tmp_path: Path) -> None:
    """Installed by a Python whose path is hard to write, then started as the script would."""
    around = [path for path in sys.path if path.endswith("site-packages")]
    python = environment(tmp_path / "Zoë's ${HOME} \\n", str(ROOT), *around)
    shared, folder = tmp_path / "groovy" / "shared", tmp_path / "own scripts"
    shared.mkdir(parents=True)
    (shared.parent / TRIALS[0]).write_text(EMPTY_BLOCK, encoding="utf-8")
    install = (
        "import sys\nfrom pathlib import Path\nfrom her2bridge import scripts\n"
        "shared, folder = map(Path, sys.argv[1:])\nscripts.shared_folder = lambda: shared\n"
        "assert list(scripts.install_scripts(folder))"
    )
    subprocess.run([python, "-I", "-c", install, shared, folder], check=True, timeout=120)
    values = {
        name: groovy_reads(source)
        for name, source in re.findall(r"^final String (\w+) = (.*)$", (folder / TRIALS[0]).read_text("ascii"), re.M)
    }
    assert values == {"PYTHON": str(python), "SHARED": str(shared), "INSTALLED": version()}
    command = [values["PYTHON"], "-I", "-m", "her2bridge", "--version"]
    assert (
        subprocess.run(command, capture_output=True, check=True, timeout=120).stdout.split()[-1] == version().encode()
    )


# Stale, edited, missing, dropped


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("INSTALLED", "0.0.9", f"it is of her2bridge 0.0.9, this is {version()}"),
        ("PYTHON", "/gone/bin/python", r"its Python is gone \(/gone/bin/python\)"),
        ("PYTHON", "{other}", r"it starts another Python \(.*other.*\)"),
        ("SHARED", "/gone/shared", r"the shared scripts are gone \(/gone/shared\)"),
        ("SHARED", "{other}", r"it loads other shared scripts \(.*other\)"),
        ("SHARED", "", "it was copied, not installed"),
    ],
)
def test_a_block_that_is_no_longer_so_is_stale(
    installed: Path, tmp_path: Path, name: str, value: str, says: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    if name == "PYTHON":
        other /= "python"
        other.symlink_to(sys.executable)
    written = groovy_string(value.replace("{other}", str(other)))
    change(installed / TRIALS[0], lambda text: re.sub(f"{name} = '.*'", lambda _: f"{name} = {written}", text, count=1))
    found = found_in(installed)
    assert found.state == State.STALE
    assert re.fullmatch(says, found.says)
    states = [one.state for one in install_scripts(installed)]
    assert states.count(State.INSTALLED) == 1
    assert found_in(installed).state == State.CURRENT


def test_the_same_python_by_another_name_is_current(installed: Path) -> None:
    python = Path(sys.executable)
    others = [one for one in python.parent.iterdir() if one.name.startswith("python") and one.samefile(python)]
    for other in others:
        change_to = groovy_string(str(other))
        path = installed / TRIALS[0]
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub("PYTHON = '.*'", lambda _, to=change_to: f"PYTHON = {to}", text), encoding="utf-8")
        assert found_in(installed).state == State.CURRENT


def test_a_newer_text_is_brought_in_without_force(installed: Path, package: Path) -> None:
    change(package / TRIALS[0], lambda text: text.replace("println", "print"))
    assert (found_in(installed).state, found_in(installed).says) == (State.STALE, "its text is not this her2bridge's")
    list(install_scripts(installed))
    assert found_in(installed).state == State.CURRENT
    assert "print '$0" in (installed / TRIALS[0]).read_text(encoding="utf-8")


def test_a_script_copied_by_hand_is_installed(installed: Path, package: Path) -> None:
    shutil.copy(package / TRIALS[0], installed / TRIALS[0])
    assert (found_in(installed).state, found_in(installed).says) == (State.STALE, "it was copied, not installed")
    list(install_scripts(installed))
    assert found_in(installed).state == State.CURRENT


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("println", "print"),
        lambda text: f"// mine\n{text}",
        lambda text: text.replace(END, "// the end"),
        lambda text: re.sub("// digest.*\n", "", text).replace("println", "print"),
        lambda text: "println 'mine'\n",
        lambda text: text.encode("utf-8").decode("latin-1"),
    ],
)
def test_what_a_person_edited_stays(installed: Path, edit: Callable[[str], str]) -> None:
    path = installed / TRIALS[0]
    change(path, edit)
    before = path.read_bytes()
    assert found_in(installed).state == State.EDITED
    (kept,) = [one for one in install_scripts(installed) if one.state != State.CURRENT]
    assert (kept.path, kept.state, path.read_bytes()) == (path, State.EDITED, before)
    assert "--force" in kept.next_step
    (replaced,) = [one for one in install_scripts(installed, force=True) if one.state != State.CURRENT]
    assert (replaced.path, replaced.state) == (path, State.INSTALLED)
    assert found_in(installed).state == State.CURRENT


def test_what_editors_do_by_themselves_is_no_edit(installed: Path) -> None:
    change(installed / TRIALS[0], lambda text: "\ufeff" + text.replace("\n", "\r\n") + "\r\n")
    assert found_in(installed).state == State.CURRENT


def test_a_script_in_another_encoding_is_a_persons(installed: Path) -> None:
    path = installed / TRIALS[0]
    path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))
    assert found_in(installed).state == State.EDITED


def test_a_missing_script_is_told_and_put_back(installed: Path) -> None:
    (installed / TRIALS[0]).unlink()
    assert found_in(installed).state == State.MISSING
    list(install_scripts(installed))
    assert found_in(installed).state == State.CURRENT


def test_what_we_dropped_is_told_and_kept_and_others_are_none_of_ours(installed: Path, package: Path) -> None:
    (package / TRIALS[0]).unlink()
    (installed / "HER2 - My own.groovy").write_text("println 1\n", encoding="utf-8")
    (installed / "Other.groovy").write_bytes(b"\xff")
    before = contents(installed)
    assert found_in(installed).state == State.DROPPED
    (found,) = [one for one in install_scripts(installed, force=True) if one.state != State.CURRENT]
    assert (found.path.name, found.state) == (TRIALS[0], State.DROPPED)
    assert contents(installed) == before


# Where they go


def test_a_projects_scripts(tmp_path: Path) -> None:
    project = tmp_path / "pro.ject" / "project.qpproj"
    project.parent.mkdir()
    with pytest.raises(ProjectNotFound):
        scripts_folder(project.parent, None)
    project.write_text("{}")
    assert scripts_folder(project, None) == scripts_folder(project.parent, None) == project.parent / "scripts"


@pytest.mark.parametrize(
    ("made", "given_folder", "wanted"),
    [
        ("QuPath/v0.6", "QuPath/v0.6", "QuPath/v0.6/scripts"),
        ("mine/extensions", "mine", "mine/scripts"),
        ("mine/scripts", "mine", "mine/scripts"),
        ("mine/scripts", "mine/scripts", "mine/scripts"),
        ("mine", "mine/Scripts", "mine/Scripts"),
        ("scripts/logs", "scripts", "scripts"),
        ("shared for all", "shared for all", "shared for all"),
    ],
)
def test_a_users_scripts(tmp_path: Path, made: str, given_folder: str, wanted: str) -> None:
    (tmp_path / made).mkdir(parents=True)
    assert scripts_folder(None, tmp_path / given_folder) == tmp_path / wanted


def test_places_that_cannot_be(tmp_path: Path) -> None:
    for project, user in ((None, None), (tmp_path, tmp_path)):
        with pytest.raises(UsageError, match="either"):
            scripts_folder(project, user)
    with pytest.raises(UsageError, match="no such folder") as raised:
        scripts_folder(None, tmp_path / "nowhere")
    assert "QuPath/v0.6" in raised.value.next_step
    for name in ("v0.5", "v0.6"):
        (tmp_path / "QuPath" / name).mkdir(parents=True)
    with pytest.raises(UsageError, match="user directory of its own") as raised:
        scripts_folder(None, tmp_path / "QuPath")
    assert str(tmp_path / "QuPath" / "v0.5") in raised.value.next_step

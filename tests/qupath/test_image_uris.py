"""URIs as Java writes them, and where the slides of moved projects are looked for."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from her2bridge.errors import Her2BridgeError, SlideNotFound, UnsupportedServer
from her2bridge.qupath.image_uris import find_slide, path_of

LEGAL = "/-_.!~*'():@&=+$,;"  # what java.net.URI leaves as it is in a path, besides letters and digits


def of_path(path: str) -> str:
    """``Path.toUri`` of a POSIX path."""
    return f"file://{quote(path, safe=LEGAL)}"


def of_file(path: str) -> str:
    """``File.toURI`` as Gson writes it in a server builder: accents are joined (NFC)."""
    return f"file:{quote(unicodedata.normalize('NFC', path), safe=LEGAL)}"


def of_project(path: str) -> str:
    """``File.toURI`` as text, the way a project states its own: letters beyond ASCII stand as they are."""
    return "file:" + "".join(char if char.isalnum() else quote(char, safe=LEGAL) for char in path)


def three_parts(error: Her2BridgeError, *words: str) -> None:
    assert error.what.endswith(".")
    assert error.where
    assert error.next_step.endswith(".")
    for word in words:
        assert word in str(error)


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
POSIX = st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4)
WINDOWS = st.lists(
    st.text(st.characters(exclude_characters='<>:"/\\|?*', exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
    # "." and ".." are no names, and Windows drops what ends in a dot or blank
    .filter(lambda name: not name.endswith((".", " "))),
    min_size=1,
    max_size=4,
)


class TestUris:
    @pytest.mark.parametrize(
        ("name", "written"),
        [
            ("a b.tif", "a%20b.tif"),
            ("a+b.tif", "a+b.tif"),
            ("a#b.tif", "a%23b.tif"),
            ("a%20b.tif", "a%2520b.tif"),
            ("a?b;c=d&e,f@g$h!.tif", "a%3Fb;c=d&e,f@g$h!.tif"),
            ('[x]{y}|^`"<>\\.tif', "%5Bx%5D%7By%7D%7C%5E%60%22%3C%3E%5C.tif"),
            ("T\u00e4st.tif", "T%C3%A4st.tif"),
            ("Ta\u0308st.tif", "Ta%CC%88st.tif"),
            ("胃癌.svs", "%E8%83%83%E7%99%8C.svs"),
            ("nb\u00a0sp.tif", "nb%C2%A0sp.tif"),
            ("~(1)*_-'.tif", "~(1)*_-'.tif"),
        ],
    )
    def test_what_java_wrote(self, name: str, written: str) -> None:
        """Pairs from Java 25, ``Path.toUri``; they prove ``of_path`` as well."""
        path = f"/slides/{name}"
        assert of_path(path) == f"file:///slides/{written}"
        assert path_of(f"file:///slides/{written}") == PurePosixPath(path)

    @pytest.mark.parametrize(
        ("uri", "path"),
        [
            ("file:/C:/Slides/a%20b.svs", r"C:\Slides\a b.svs"),
            ("file:///C:/Slides/a+b.svs", r"C:\Slides\a+b.svs"),
            ("file:/z:/x.svs", r"Z:\x.svs"),
            ("file:/C:/x.svs#3", r"C:\x.svs"),
            ("file://server/share/%C3%A4%23.svs", "\\\\server\\share\\\u00e4#.svs"),
            ("file:////server/share/x.svs", r"\\server\share\x.svs"),
            ("file:////wsl$/Ubuntu/x.svs", r"\\wsl$\Ubuntu\x.svs"),
        ],
    )
    def test_windows(self, uri: str, path: str) -> None:
        found = path_of(uri)
        assert isinstance(found, PureWindowsPath)
        assert found == PureWindowsPath(path)

    @pytest.mark.parametrize(
        "uri", ["file:/x/a.svs", "FILE:///x/a.svs", "file://localhost/x/a.svs", "file:/x/a.svs?y#1"]
    )
    def test_posix(self, uri: str) -> None:
        found = path_of(uri)
        assert isinstance(found, PurePosixPath)
        assert str(found) == "/x/a.svs"

    @given(names=POSIX)
    def test_every_posix_path_comes_back(self, names: list[str]) -> None:
        assume(not re.fullmatch("[A-Za-z]:", names[0]))  # a drive, for all that a URI can tell
        path = "/" + "/".join(names)
        assert str(path_of(of_path(path))) == path
        assert str(path_of(of_project(path))) == path
        assert str(path_of(of_file(path))) == unicodedata.normalize("NFC", path)

    @given(names=WINDOWS, root=st.sampled_from(["C:", "//server/share"]))
    def test_every_windows_path_comes_back(self, names: list[str], root: str) -> None:
        """``File.toURI`` puts one slash before a drive and two before a share, ``Path.toUri`` three and none."""
        path = f"{root}/{'/'.join(names)}"
        before = ("/", "///") if root == "C:" else ("//", "")
        for uri in (of_file(before[0] + path), of_project(before[0] + path), of_project(before[1] + path)):
            expected = unicodedata.normalize("NFC", path) if uri == of_file(before[0] + path) else path
            assert str(path_of(uri)) == str(PureWindowsPath(expected))

    @pytest.mark.parametrize(
        ("uri", "word"),
        [
            ("https://images.example/x.svs", "https:"),
            ("omero:iid=3", "omero:"),
            ("/slides/x.svs", "no scheme"),
            ("", "no scheme"),
            ("file://[broken/x.svs", "cannot be read"),
        ],
    )
    def test_no_file(self, uri: str, word: str) -> None:
        with pytest.raises(UnsupportedServer) as caught:
            path_of(uri)
        three_parts(caught.value, word, uri)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """tmp_path/disk/images/a b.tif; a project would lie in tmp_path/disk/project."""
    (tmp_path / "disk" / "project").mkdir(parents=True)
    path = tmp_path / "disk" / "images" / "a b.tif"
    path.parent.mkdir()
    path.touch()
    return path


class TestMovedProjects:
    OLD = "file:/old/place/project/project.qpproj"

    def find(self, uri: str, slide: Path, saved: str | None = OLD, *relocations: tuple[str, str]) -> Path:
        return find_slide(uri, folder=slide.parents[1] / "project", saved_uri=saved, relocations=relocations)

    def test_where_the_uri_says(self, slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.find(slide.as_uri(), slide, None) == slide
        monkeypatch.chdir(slide.parents[1])
        assert find_slide(slide.as_uri(), folder=Path("project"), saved_uri=None) == slide

    @pytest.mark.parametrize(
        ("uri", "saved"),
        [
            ("file:///old/place/images/a%20b.tif", OLD),
            ("file:/C:/place/images/a%20b.tif", "file:/c:/Place/project/project.qpproj"),
            ("file://server/share/images/a%20b.tif", "file:////server/share/project/project.qpproj"),
        ],
        ids=["posix", "drive", "share"],
    )
    def test_beside_the_project(self, slide: Path, uri: str, saved: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.find(uri, slide, saved) == slide
        monkeypatch.chdir(slide.parents[1])
        assert find_slide(uri, folder=Path("project"), saved_uri=saved) == slide

    def test_within_the_project_and_parents_up(self, slide: Path) -> None:
        folder = slide.parents[1]
        for project in (folder, folder / "project", folder / "project" / "deeper" / "still"):
            saved = of_project(f"/old/disk/{project.relative_to(folder)}/project.qpproj")
            assert find_slide("file:///old/disk/images/a%20b.tif", folder=project, saved_uri=saved) == slide

    def test_letters_beyond_ascii_in_the_projects_uri(self, slide: Path) -> None:
        uri, saved = "file:///alt/Gr%C3%B6%C3%9Fe/images/a%20b.tif", "file:/alt/Größe/project/project.qpproj"
        assert self.find(uri, slide, saved) == slide

    @pytest.mark.parametrize(
        "saved",
        [
            None,
            "",
            "https://host/project/project.qpproj",
            "file:/D:/place/project/project.qpproj",  # another drive
            "file://server/share/project/project.qpproj",
            "file:/place/project/project.qpproj",  # another system
        ],
    )
    def test_nothing_relative_to_go_by(self, slide: Path, saved: str | None) -> None:
        with pytest.raises(SlideNotFound) as caught:
            self.find("file:/C:/place/images/a%20b.tif", slide, saved)
        assert caught.value.where == r"C:\place\images\a b.tif"

    def test_the_order(self, slide: Path, tmp_path: Path) -> None:
        """Relocated, own, beside the project."""
        relocated, own = tmp_path / "relocated" / "a b.tif", tmp_path / "old" / "images" / "a b.tif"
        for place in (relocated, own):
            place.parent.mkdir(parents=True)
            place.touch()
        saved = (tmp_path / "old" / "project" / "project.qpproj").as_uri()
        relocation = (str(own.parent), str(relocated.parent))
        assert self.find(own.as_uri(), slide, saved, relocation) == relocated
        relocated.unlink()
        assert self.find(own.as_uri(), slide, saved, relocation) == own
        own.unlink()
        assert self.find(own.as_uri(), slide, saved, relocation) == slide
        slide.unlink()
        with pytest.raises(SlideNotFound) as caught:
            self.find(own.as_uri(), slide, saved, relocation)
        assert caught.value.where == f"{relocated}, {own}, {slide}"

    def test_the_message_holds_what_to_type(self, slide: Path) -> None:
        with pytest.raises(SlideNotFound) as caught:
            self.find("file:///old/place/other/gone%20x.svs", slide)
        three_parts(caught.value, "gone x.svs", '--relocate "/old/place/other=NEW"')
        assert caught.value.where == f"/old/place/other/gone x.svs, {slide.parents[1] / 'other' / 'gone x.svs'}"
        with pytest.raises(SlideNotFound) as caught:
            self.find("file:/C:/My%20Slides/x.svs", slide)
        three_parts(caught.value, '--relocate "C:\\My Slides=NEW"')

    def test_accents_joined_or_parted(self, slide: Path) -> None:
        for name, other in (("a\u0308.tif", "\u00e4.tif"), ("\u00f6.tif", "o\u0308.tif")):
            path = slide.with_name(name)
            path.touch()
            found = self.find((slide.parent / other).as_uri(), slide, None)
            assert found.samefile(path)

    @pytest.mark.skipif(os.name == "nt", reason="symlinks need rights on Windows")
    def test_a_symlinked_project(self, slide: Path, tmp_path: Path) -> None:
        """Above the link first, as the user sees it, then above the folder itself."""
        link = tmp_path / "home" / "project"
        link.parent.mkdir()
        link.symlink_to(slide.parents[1] / "project")
        uri = "file:///old/place/images/a%20b.tif"
        assert find_slide(uri, folder=link, saved_uri=self.OLD) == slide
        near = tmp_path / "home" / "images" / "a b.tif"
        near.parent.mkdir()
        near.touch()
        assert find_slide(uri, folder=link, saved_uri=self.OLD) == near

    def test_a_folder_is_left_to_the_reader(self, slide: Path) -> None:
        """Which says better what is wrong with it."""
        assert self.find(slide.parent.as_uri(), slide) == slide.parent

    def test_a_name_that_no_disk_takes(self, slide: Path) -> None:
        for name in ("a%00b.tif", "x" * 5000):
            with pytest.raises(SlideNotFound):
                self.find(f"file:///old/{name}", slide)


class TestRelocations:
    def relocate(self, uri: str, slide: Path, *olds: str, new: str | None = None) -> Path:
        pairs = [(old, new or str(slide.parent)) for old in olds]
        return find_slide(uri, folder=slide.parent, saved_uri=None, relocations=pairs)

    @pytest.mark.parametrize(
        "old", ["/old/x y", "/old/x y/", "file:/old/x%20y", "FILE:///old/x%20y/", "/old/x y/a b.tif"]
    )
    def test_posix(self, slide: Path, old: str) -> None:
        new = str(slide) if old.endswith("tif") else None
        assert self.relocate("file:///old/x%20y/a%20b.tif", slide, old, new=new) == slide

    @pytest.mark.parametrize("old", [r"C:\Old", "C:\\Old\\", "C:/Old", "c:/OLD/", "file:/C:/Old", "file:///c:/old"])
    def test_windows(self, slide: Path, old: str) -> None:
        assert self.relocate("file:/C:/Old/a%20b.tif", slide, old) == slide

    @pytest.mark.parametrize("old", [r"\\srv\share\x", "//SRV/share/x/", "file://srv/share/x", "file:////srv/share/x"])
    def test_shares(self, slide: Path, old: str) -> None:
        assert self.relocate("file://srv/share/x/a%20b.tif", slide, old) == slide

    @pytest.mark.parametrize(
        ("uri", "old"),
        [
            ("file:///images/a%20b.tif", "/"),
            ("file:/Z:/images/a%20b.tif", "Z:"),
            ("file:/Z:/images/a%20b.tif", "Z:\\"),
            ("file:/Z:/images/a%20b.tif", "file:///Z:"),
            ("file://srv/share/images/a%20b.tif", r"\\srv\share"),
            ("file://srv/images/a%20b.tif", r"\\srv"),
        ],
    )
    def test_a_whole_drive(self, slide: Path, uri: str, old: str) -> None:
        assert self.relocate(uri, slide, old, new=str(slide.parents[1])) == slide

    def test_the_new_place_as_uri_or_relative(self, slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.relocate("file:/old/a%20b.tif", slide, "/old", new=slide.parent.as_uri()) == slide
        monkeypatch.chdir(slide.parents[1])
        assert self.relocate("file:/old/a%20b.tif", slide, "/old", new="images") == slide

    @pytest.mark.parametrize("old", ["/ol", "/old/imag", "/OLD", "/old\\images", "old", "C:/old", "/old/images/a b.ti"])
    def test_only_whole_folders_fit(self, slide: Path, old: str) -> None:
        with pytest.raises(SlideNotFound) as caught:
            self.relocate("file:///old/images/a%20b.tif", slide, old)
        assert caught.value.where == "/old/images/a b.tif"

    def test_the_longest_first(self, slide: Path, tmp_path: Path) -> None:
        """However it is written: the URI of a short beginning has more letters than the path of a long one."""
        other = tmp_path / "elsewhere" / "images" / "a b.tif"
        other.parent.mkdir(parents=True)
        other.touch()
        short = ("file://localhost/old", str(tmp_path / "elsewhere"))
        long = ("/old/images", str(slide.parent))
        for pairs in ([short, long], [long, short]):
            uri = "file:///old/images/a%20b.tif"
            assert find_slide(uri, folder=tmp_path, saved_uri=None, relocations=pairs) == slide
        slide.unlink()
        assert find_slide(uri, folder=tmp_path, saved_uri=None, relocations=[short, long]) == other

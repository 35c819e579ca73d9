"""What many tests need: a small synthetic slide and projects over it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from her2bridge.demo import Demo, make_demo
from her2bridge.qupath.open import open_project
from her2bridge.qupath.via_files.create import NewImage, create_project
from her2bridge.restore import restore_project

sys.path.insert(0, str(Path(__file__).parent))  # for coordinate_slide.py

_NO_QUPATH = str(Path(__file__).parent / "no-qupath")  # then none that lies about by chance is found
_asked = os.environ.setdefault("PAQUO_QUPATH_DIR", _NO_QUPATH)  # pytest-xdist's processes inherit it
QUPATH = None if _asked == _NO_QUPATH else _asked

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # each core has tests of its own

if find_spec("triton") is not None and not Path("/dev/nvidiactl").exists():
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is first imported, which parts of torch do

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(scope="session", autouse=True)
def no_cache_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is measured in tests is remembered for this session's tests only, and not in the user's home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HER2BRIDGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def small_demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """A demo of 3,072 × 2,048 px that nobody writes to."""
    return make_demo(tmp_path_factory.mktemp("demo"), size=(3072, 2048), seed=3)


@pytest.fixture
def demo(small_demo: Demo, tmp_path: Path) -> Demo:
    """A copy of it that a test may change; the slide itself is shared."""
    project = tmp_path / "pro.ject" / "project.qpproj"
    shutil.copytree(small_demo.project.parent, project.parent)
    return Demo(project, small_demo.slide, small_demo.truth)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, as bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(params=["files", pytest.param("paquo", marks=pytest.mark.qupath)])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend in turn; paquo where PAQUO_QUPATH_DIR names a QuPath."""
    if request.param == "paquo" and QUPATH is None:
        pytest.skip("no QuPath: PAQUO_QUPATH_DIR is not set")
    return str(request.param)


@pytest.fixture(scope="session")
def her2_cores() -> Path:
    """The real cores with their slides, which are too large for this repository; nobody may write there."""
    folder = Path(__file__).parents[2] / "shared" / "data" / "her2_cores"
    if not (folder / "images").is_dir():
        pytest.skip(f"the real cores are not here: {folder}")
    return folder


def redrawn(demo: Demo, folder: Path, *, by: float = -200, reverse: bool = False, restored: bool = True) -> Demo:
    """The same project and results, the first region smaller: what QuPath saves after a person redrew it.

    Args:
        by: pixels that the first region grows on all sides.
        reverse: the regions in the opposite order.
        restored: False leaves the results in the side files only.
    """
    (entry,) = open_project(demo.project, "files").entries
    first, *others = entry.annotations()
    assert first.geometry is not None
    first = replace(first, geometry=first.geometry.buffer(by)) if by else first
    bare = [replace(one, measurements={}) for one in (first, *others)][:: -1 if reverse else 1]
    size = (demo.truth.width, demo.truth.height)
    image = NewImage(demo.slide, entry.name, size=size, mpp=0.25, annotations=bare, metadata={"Specimen": "resection"})
    path = create_project(folder, [image])
    shutil.copytree(demo.project.parent / "her2bridge", folder / "her2bridge")
    if restored:
        assert restore_project(path).restored == 1
    return replace(demo, project=path)

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import tifffile
from coordinate_slide import coordinate_pixels, write_slide
from PIL import Image
from vendor_slides import write_bif, write_dicom, write_scn, write_svs

from her2bridge.errors import SlideUnreadable
from her2bridge.records import SlideSource
from her2bridge.slides import open_slide, slide_readers

READERS = ("tiffslide", "openslide", "tmapslide")


def write(path: Path) -> None:
    """A slide of each kind, by the name; of some no more than is looked at."""
    pixels = coordinate_pixels(118, 118)
    match path.name:
        case "a.svs":
            write_svs(path, pixels, levels=1, mpp=0.25)
        case "a.scn":
            write_scn(path, pixels, at=(4, 4), canvas=(200, 200), nm=250)
        case "a.tif":
            write_slide(path, pixels)
        case "a.bif":
            write_bif(path, pixels, overlap=10, mpp=0.25)
        case "trestle.tif":
            tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64), software="MedScan", metadata=None)
        case "DCM_0":
            write_dicom(path, pixels, mpp=0.25)
        case "a.png":
            Image.fromarray(pixels).save(path)
        case "a.mrxs":
            Image.fromarray(pixels).save(path, "jpeg")
        case "a.vms":
            path.write_text("[Virtual Microscope Specimen]\n")
        case "a.czi":
            path.write_bytes(b"ZISRAWFILE".ljust(600, b"\0"))
        case "a.svslide":
            path.write_bytes(b"SQLite format 3\0".ljust(600, b"\0"))
        case "a.TMAP":
            path.write_bytes(b"TMAP07\0\0".ljust(1500, b"\0"))


@pytest.mark.parametrize(
    ("reader", "names"),
    [
        (None, ["a.svs", "a.scn", "a.tif", "a.png"]),
        ("openslide", ["a.mrxs", "a.vms", "a.czi", "a.svslide", "DCM_0", "a.bif", "trestle.tif"]),
        ("tmap", ["a.TMAP"]),
    ],
)
def test_what_has_to_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str | None, names: list[str]
) -> None:
    """By files alone: neither OpenSlide nor tmapslide is there."""
    for module in ("openslide", "tmapslide"):
        monkeypatch.setitem(sys.modules, module, None)
    for name in names:
        write(tmp_path / name)
        if reader is None:
            open_slide(SlideSource(tmp_path / name)).close()
            continue
        with pytest.raises(SlideUnreadable, match="not installed") as error:
            open_slide(SlideSource(tmp_path / name))
        assert error.value.next_step.startswith(f"Install it: pip install 'her2bridge[{reader}]'.")
        assert error.value.next_step.endswith(".")
        assert error.value.where == str(tmp_path / name)


def test_readers_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    readers = {reader.name: reader for reader in slide_readers()}
    assert list(readers) == ["tiffslide", "Pillow", "OpenSlide", "tmapslide"]
    assert readers["tiffslide"].version == metadata.version("tiffslide")
    assert readers["OpenSlide"].version is None
    assert [reader.install for reader in readers.values()] == [
        "",
        "",
        "pip install 'her2bridge[openslide]'",
        "pip install 'her2bridge[tmap]'",
    ]


def test_what_is_recommended_can_be_installed() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for reader in slide_readers():
        _, _, extra = reader.install.rstrip("]'").partition("[")
        assert not extra or project["optional-dependencies"][extra]


def loaded_after(code: str) -> list[str]:
    ask = f"import json, sys\n{code}\nprint(json.dumps([name for name in {READERS} if name in sys.modules]))"
    run = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    return list(json.loads(run.stdout))


def test_a_reader_is_loaded_when_a_slide_needs_it(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "a.tif", np.zeros((64, 64, 3), np.uint8))
    assert loaded_after("import her2bridge.slides") == []
    opening = "from pathlib import Path\nimport her2bridge.slides, her2bridge.records as r\n"
    opening += f"her2bridge.slides.open_slide(r.SlideSource(Path({str(slide)!r})))"
    assert loaded_after(opening) == ["tiffslide"]

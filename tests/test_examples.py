"""The examples do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import shapely
from PIL import Image

from her2bridge.demo import Demo
from her2bridge.qupath.open import open_project
from her2bridge.qupath.seam import ImageUpdate, NewTiles, PathClassRef
from her2bridge.qupath.server_builder import slide_source
from her2bridge.slides import open_slide
from her2bridge.synth.stains import Stains, unmix

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_draw_tiles(demo: Demo, tmp_path: Path) -> None:
    """A tile of pure green on the glass at the corner is green in the picture, at the stated opacity."""
    tile = NewTiles(
        origins=np.array([[0.0, 0.0]]),
        side=256.0,
        parents=np.array([0]),
        parent_ids=[None],
        classes=np.array([0]),
        path_classes=[PathClassRef(("3+",), (0, 255, 0))],
        measurement_names=(),
        measurements=np.empty((1, 0), dtype=np.float32),
        mark="0123456789ab",
        ids=["6a0e1f0c-8d0f-4f8e-9a57-0f2f6f1d8a11"],
    )
    project = open_project(demo.project, "files")
    with project.writing():
        project.entries[0].apply(ImageUpdate([], [tile], {}, frozenset(), {}))
    out = tmp_path / "out.png"
    command = [sys.executable, str(EXAMPLES / "draw_tiles.py"), str(demo.project), str(out), "--width", "600"]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Research use only" in told.stdout
    picture = np.asarray(Image.open(out)).astype(int)
    assert picture.shape[:2] == (400, 600)
    inside, outside = picture[5, 5], picture[5, 100]
    assert (outside > 200).all()
    assert inside[1] > inside[0] + 60
    assert inside[1] > inside[2] + 60


def test_contact_sheet(tmp_path: Path) -> None:
    """Six rows, one a class; none of them empty, and not two alike."""
    out = tmp_path / "sheet.png"
    command = [sys.executable, str(EXAMPLES / "contact_sheet.py"), str(out), "--tiles", "2"]
    subprocess.run(command, check=True)
    picture = np.asarray(Image.open(out))[:, -512:]
    assert picture.shape == (6 * 256, 512, 3)
    rows = picture.reshape(6, 256, 512, 3).astype(int)
    assert all(np.abs(rows[one] - rows[other]).mean() > 1 for one in range(6) for other in range(one))


def test_draw_labelled_slides(tmp_path: Path) -> None:
    """Each slide has a patient and a glass of its own, and of each class a region of so many whole tiles; stain grows
    from 0 to 3+, and no tile is glass."""
    command = [sys.executable, str(EXAMPLES / "draw_labelled_slides.py"), str(tmp_path), "--size", "64"]
    told = subprocess.run(
        [*command, "--slides", "2", "--tiles-per-class", "3", "--seed", "6"], capture_output=True, text=True, check=True
    )
    project = open_project(Path(told.stdout.strip()), "files")
    assert [entry.metadata["Patient"] for entry in project.entries] == ["P001", "P002"]
    glass = []
    for entry in project.entries:
        with open_slide(slide_source(entry.server_json, folder=project.folder, saved_uri=project.saved_uri)) as slide:
            assert slide.mpp is not None
            assert tuple(slide.mpp) == (1.0, 1.0)
            glass.append(slide.read(0, 0, 64, 64, 64, 64).mean(axis=(0, 1)))
            stain = {}
            for region in entry.annotations():
                assert region.geometry is not None
                assert region.geometry.area == 3 * 64 * 64
                corners = [(x, y) for x, y in np.ndindex(13, 7) if region.geometry.covers(tile_at(64 * x, 64 * y))]
                assert len(corners) == 3
                tiles = [slide.read(64 * x, 64 * y, 64, 64, 64, 64) for x, y in corners]
                background = tuple(glass[-1].tolist())
                assert all((np.abs(tile - glass[-1]).max(axis=2) > 12).mean() > 0.4 for tile in tiles)
                stain[str(region.path_class)] = float(
                    unmix(np.concatenate(tiles), Stains(background=background)).dab.mean()
                )
        assert list(stain) == ["0", "1+", "2+", "3+", "Normal", "Noise"]
        assert stain["0"] < stain["2+"] < stain["3+"]
    assert np.abs(glass[0] - glass[1]).max() > 1


def tile_at(x: float, y: float) -> shapely.Polygon:
    return shapely.box(x, y, x + 64, y + 64)

"""The examples do what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from her2bridge.demo import Demo
from her2bridge.qupath.open import open_project
from her2bridge.qupath.seam import ImageUpdate, NewTiles, PathClassRef

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

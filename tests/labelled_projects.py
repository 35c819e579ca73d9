"""QuPath projects with labels over small pictures, for tests."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from shapely.geometry.base import BaseGeometry

from her2bridge.qupath.classes import path_classes
from her2bridge.qupath.open import open_project
from her2bridge.qupath.results import PROBABILITY_NAMES
from her2bridge.qupath.seam import ImageUpdate, NewTiles, PathClassRef, PathObject
from her2bridge.qupath.via_files.create import NewImage, create_project
from her2bridge.records import TileClass, TileSpec

SPEC = TileSpec(16, 4.0)
"""On these slides a tile is 16 px wide, and 64 µm as everywhere."""
SIZE, MPP = (320, 240), 4.0
TISSUE = (0, 0, 320, 160)
"""What of a slide is tissue; below it is glass."""


def annotation(name: str, class_name: str | None, geometry: BaseGeometry | None, **more: object) -> PathObject:
    """An annotation with an id of its own."""
    path_class = None if class_name is None else PathClassRef(tuple(class_name.split(": ")))
    return PathObject("annotation", str(uuid.uuid4()), None, name, path_class, geometry=geometry, **more)  # type: ignore[arg-type]


def draw_picture(path: Path, seed: int = 0) -> Path:
    """A slide of 320 × 240 px: tissue above, glass below."""
    pixels = np.full((SIZE[1], SIZE[0], 3), 243, dtype=np.uint8)
    left, top, right, bottom = TISSUE
    noise = np.random.default_rng(seed).integers(0, 40, (bottom - top, right - left, 1), dtype=np.uint8)
    pixels[top:bottom, left:right] = np.array([180, 130, 120], dtype=np.uint8) - noise
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def labelled_project(
    folder: Path,
    images: Mapping[str, Sequence[PathObject]],
    metadata: Mapping[str, Mapping[str, str]] | None = None,
    mpp: float = MPP,
) -> Path:
    """A project in ``folder/project``; slides are drawn beside it where they are not there yet."""
    made = []
    for number, (name, drawn) in enumerate(images.items()):
        path = folder.parent / "slides" / name
        if not path.exists():
            draw_picture(path, number)
        made.append(NewImage(path, name, SIZE, mpp, drawn, (metadata or {}).get(name, {})))
    return create_project(folder, made)


def store_tiles(
    project: Path, origins: Sequence[tuple[float, float]], classes: Sequence[str | None], side: float = 16.0
) -> list[str]:
    """Put tiles into the project's first image that a run found to be 0 and a person gave these classes; their ids."""
    names = sorted({name for name in classes if name is not None})
    probabilities = np.zeros((len(origins), len(TileClass)), dtype=np.float32)
    probabilities[:, TileClass.ZERO] = 1.0
    known = {str(one): one for one in path_classes()}
    tiles = NewTiles(
        origins=np.array(origins, dtype=np.float64),
        side=side,
        parents=np.zeros(len(origins), dtype=np.int64),
        parent_ids=[None],
        classes=np.array([-1 if name is None else names.index(name) for name in classes], dtype=np.int64),
        path_classes=[known.get(name, PathClassRef(tuple(name.split(": ")))) for name in names],
        measurement_names=PROBABILITY_NAMES,
        measurements=probabilities,
        mark="a run",
        ids=[str(uuid.uuid4()) for _ in origins],
    )
    opened = open_project(project, "files")
    with opened.writing():
        opened.entries[0].apply(ImageUpdate([], [tiles], {}, frozenset(), {}))
    return list(tiles.ids)

"""``her2bridge demo``: a synthetic slide of known truth in a QuPath project, and how a run's tiles compare with it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from her2bridge.errors import UsageError
from her2bridge.qupath.classes import class_of
from her2bridge.qupath.open import open_project
from her2bridge.qupath.seam import PathClassRef, PathObject
from her2bridge.qupath.via_files.create import NewImage, create_project
from her2bridge.records import IntArray, TileClass, TileCounts
from her2bridge.scoring.rule import resection_score
from her2bridge.synth.layout import SlideTruth
from her2bridge.synth.slide import level_sizes, write_slide

SIZE = (12_288, 8_192)
MPP = 0.25
SEED = 7
_OURS = ("slides", "project", "Thumbs.db", "desktop.ini")
_COLOURS = {"Tumor": (200, 0, 0), "Ignore*": (180, 180, 180)}  # QuPath's own


@dataclass(frozen=True, eq=False)
class Demo:
    """A demo on disk: the project, its slide and what the slide shows."""

    project: Path
    slide: Path
    truth: SlideTruth


@dataclass(frozen=True, eq=False)
class Comparison:
    """A run's tiles against the truth; tiles that show two classes count nowhere.

    Attributes:
        truth: tiles by class, as drawn.
        found: the same tiles, as classified.
        confusion: int64 [6, 6], rows the truth, columns what was found.
        mixed: tiles left out.
        true_score: what the guideline's rule says of ``truth``.
    """

    truth: TileCounts
    found: TileCounts
    confusion: IntArray
    mixed: int
    true_score: str

    @property
    def agreement(self) -> float:
        """Share of tiles, 0–1, whose class was found."""
        return float(self.confusion.trace() / max(1, self.confusion.sum()))


def make_demo(folder: Path, *, size: tuple[int, int] = SIZE, seed: int = SEED, workers: int = 2) -> Demo:
    """Write slide, truth and project into a folder; what is there already is used again.

    Args:
        folder: made where it is missing.
        size: width and height of the slide, pixels.
        seed: of the slide.
        workers: processes that render.

    Raises:
        UsageError: the folder holds something else, or cannot be written.
    """
    slide, truth_file = folder / "slides" / "synthetic-her2.tif", folder / "slides" / "truth.json"
    project = folder / "project" / "project.qpproj"
    try:
        if folder.exists() and any(one.name not in _OURS and not one.name.startswith(".") for one in folder.iterdir()):
            raise _not_ours(folder)
        slide.parent.mkdir(parents=True, exist_ok=True)
        if not (slide.is_file() and truth_file.is_file()):
            part = truth_file.with_suffix(".part")
            write_slide(slide, *size, MPP, seed, workers=workers).write_json(part)
            part.replace(truth_file)
    except OSError as error:
        raise UsageError(
            f"The demo cannot be written ({error.strerror}).",
            where=str(folder),
            next_step="Name a folder that you may write to: her2bridge demo DIR.",
        ) from error
    truth = SlideTruth.read_json(truth_file)
    if not project.is_file():
        image = NewImage(
            path=slide,
            name=slide.name,
            size=(truth.width, truth.height),
            mpp=truth.mpp,
            annotations=_annotations(truth),
            metadata={"Specimen": "resection"},
            levels=level_sizes(truth.width, truth.height),
        )
        create_project(project.parent, [image])
    return Demo(project, slide, truth)


def compare_with_truth(demo: Demo) -> Comparison:
    """Read the tiles that a run left in the demo's project, and compare each with what was drawn there."""
    entry = next(one for one in open_project(demo.project, "files").entries if one.name == demo.slide.name)
    stored = entry.stored_tiles()
    truth = demo.truth.classes_of(stored.bounds)
    found = np.array([class_of(name) for name in stored.class_names], dtype=np.int64)
    clear = (truth >= 0) & (found >= 0)
    confusion = np.zeros((len(TileClass), len(TileClass)), dtype=np.int64)
    np.add.at(confusion, (truth[clear], found[clear]), 1)
    counts = TileCounts.of(truth[clear])
    return Comparison(
        truth=counts,
        found=TileCounts.of(found[clear]),
        confusion=confusion,
        mixed=int((~clear).sum()),
        true_score=resection_score(counts).label,
    )


def _annotations(truth: SlideTruth) -> list[PathObject]:
    return [
        PathObject(
            kind="annotation",
            id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"her2bridge demo {truth.seed} {number}")),
            parent_id=None,
            name=region.name,
            path_class=PathClassRef((region.class_name,), _COLOURS.get(region.class_name)),
            geometry=region.geometry,
        )
        for number, region in enumerate(truth.regions)
    ]


def _not_ours(folder: Path) -> UsageError:
    return UsageError(
        "The folder is not empty, and no demo is in it.",
        where=str(folder),
        next_step="Name a new folder: her2bridge demo DIR.",
    )

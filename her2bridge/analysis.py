"""One image, from its regions to its score; neither reads nor writes a project."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from her2bridge.calibration import MppChoice, resolve_mpp
from her2bridge.errors import NoRegions, UsageError
from her2bridge.events import Emit, ImageStarted, Progress, RuntimeChosen, Warned
from her2bridge.inference.engine import SlideJob, predict_slide
from her2bridge.inference.runtime.base import usual_batch_size
from her2bridge.model.bundle import load_bundle
from her2bridge.pace import paced
from her2bridge.qupath.classes import path_classes
from her2bridge.qupath.earlier_tiles import EarlierTiles, sort_earlier, stored_probabilities
from her2bridge.qupath.regions import ChosenRegions, RegionChoice
from her2bridge.qupath.results import model_title
from her2bridge.qupath.seam import StoredTiles
from her2bridge.records import (
    BoolArray,
    Float32Array,
    FloatArray,
    IntArray,
    Region,
    SlideScore,
    SlideSource,
    Specimen,
    TileGrid,
    TilePredictions,
)
from her2bridge.scoring import Circumstances, score_slide
from her2bridge.scoring.whspn import ReadShares
from her2bridge.settings import RunSettings
from her2bridge.slides import Slide, open_slide
from her2bridge.stopwatch import Stage, Stopwatch
from her2bridge.tiling import check_resolution, make_grid, tissue_region

if TYPE_CHECKING:
    from her2bridge.inference.runtime.base import Runtime

WHOLE_SLIDE = "whole slide"
"""Id and name of the region that stands for all tissue."""

_TISSUE_MPP = 12.0  # µm/px of the thumbnail in which tissue is looked for


class Network:
    """The bundle of a run, and its runtime as soon as a slide needs it.

    Attributes:
        bundle: which network.

    Raises:
        BundleNotFound: no such bundle.
        BundleDamaged: one that is not what its card says.
        UsageError: the WHSPN's SVM is asked for by name, and the bundle has none.
    """

    def __init__(self, settings: RunSettings, emit: Emit) -> None:
        self.bundle = load_bundle(settings.model)
        if settings.whspn == "svm" and self.bundle.whspn is None:
            raise UsageError(
                f"The model {self.bundle.name} has no WHSPN, and so no SVM.",
                where="--whspn svm",
                next_step="Leave --whspn out, and the rule gives the score; or name a model that has one: --model.",
            )
        self._settings = settings
        self._emit = emit
        self._runtime: Runtime | None = None

    @property
    def title(self) -> str:
        """Name and the first 12 digits of the hash, as the project's metadata show it."""
        return model_title(self.bundle.name, self.bundle.sha256)

    @property
    def whspn_choice(self) -> str:
        """Which WHSPN reads the shares: ``mlp``, ``svm``, or ``none`` also where the bundle has none."""
        return "none" if self.bundle.whspn is None else self._settings.whspn

    @property
    def read_shares(self) -> ReadShares | None:
        """The WHSPN that was chosen; None where none is."""
        if self.bundle.whspn is None or self.whspn_choice == "none":
            return None
        return partial(self.bundle.whspn.read, kind=self.whspn_choice)

    @property
    def batch_size(self) -> int:
        """Tiles a call."""
        return self._settings.batch_size or usual_batch_size(self.runtime.device)

    def load(self) -> None:
        """Get the runtime ready; see ``runtime``."""
        _ = self.runtime

    @property
    def runtime(self) -> Runtime:
        """The network, ready.

        Raises:
            DeviceUnavailable: the device is not here.
            UsageError: a device or precision that cannot be.
        """
        if self._runtime is None:
            from her2bridge.inference.runtime.choose import choose_runtime  # loads torch: a dry run does without

            asked = self._settings
            self._runtime = choose_runtime(
                self.bundle, asked.device, asked.precision, require_gpu=asked.require_gpu, runtime=asked.runtime
            )
            self._emit(RuntimeChosen(self._runtime.device, self._runtime.precision, self._runtime.name))
        return self._runtime


@dataclass(frozen=True, eq=False)
class ImageToScore:
    """What scoring needs of an image.

    Attributes:
        name: as the project shows it.
        index: its place in the run.
        source: its pixels.
        chosen: regions and exclusions.
        stored: tiles of earlier runs.
        specimen: as stated.
        graded: centroids of other makers' graded detections, float64 [m, 2].
        renewed: ids of the regions whose tiles are classified; of all others the stored tiles count. None: all regions.
    """

    name: str
    index: int
    source: SlideSource
    chosen: ChosenRegions
    stored: StoredTiles
    specimen: Specimen
    graded: FloatArray
    renewed: frozenset[str] | None = None


@dataclass(frozen=True, eq=False)
class Analysis:
    """What came out for one image.

    Attributes:
        predictions: what the network saw, now or then.
        earlier: the tiles of earlier runs.
        classes: int64 [n], a person's corrections included.
        score: of the slide.
        loose_ends: places of the regions that have no tile, and tiles of ours that lie in no region or are named
            otherwise than this run names them. Where there are any, the score is not that of a full run.
        classified: tiles that the network saw in this run.
    """

    predictions: TilePredictions
    earlier: EarlierTiles
    classes: IntArray
    score: SlideScore
    loose_ends: int = 0
    classified: int = 0


def lay_grid(image: ImageToScore, slide: Slide, network: Network, settings: RunSettings) -> tuple[TileGrid, MppChoice]:
    """The image's tiles and the µm/px they were laid at.

    Raises:
        NoCalibration: no µm/px, or too coarse a slide.
        RegionError: nothing that can be tiled.
    """
    spec = network.bundle.spec
    mpp = resolve_mpp(image.source, slide, settings.mpp)
    check_resolution(spec, mpp.value)
    regions = (_all_tissue(slide, mpp.value),) if settings.whole_slide else image.chosen.regions
    grid = make_grid(regions, spec, mpp.value, slide.size, image.chosen.exclusions, settings.min_overlap)
    return grid, mpp


def analyse(image: ImageToScore, network: Network, settings: RunSettings, emit: Emit, watch: Stopwatch) -> Analysis:
    """Tile, classify and score one image.

    Raises:
        Her2BridgeError: of slide, calibration, regions or network.
    """
    with ExitStack() as stack:
        with watch.on(Stage.TILING):
            slide = stack.enter_context(open_slide(image.source))
            grid, mpp = lay_grid(image, slide, network, settings)
        for warning in (*image.chosen.warnings, *grid.warnings):
            emit(Warned(image.name, warning))
        known = stored_probabilities(image.stored, grid)
        is_new = _to_be_classified(image, grid)
        laid = len(grid)
        grid, known, is_new = _without_gaps(grid, known, is_new)
        fresh = grid if is_new.all() else grid.only(is_new)
        if len(fresh):
            with watch.on(Stage.LOADING):
                network.load()
        emit(ImageStarted(image.name, image.index, len(grid.regions), len(fresh), mpp.value, mpp.origin))
        if len(fresh):
            known[is_new] = _predict(image, fresh, network, slide, emit, watch)
    with watch.on(Stage.SCORING):
        if settings.mpp is not None and mpp.origin != "--mpp":
            emit(Warned(image.name, f"--mpp {settings.mpp:g} is not used: {mpp.origin} says {mpp.value:g} µm/px"))
        analysis = _score(image, TilePredictions(grid, known), laid - len(grid), mpp.value, network, settings, emit)
        return replace(analysis, classified=len(fresh))


def _score(
    image: ImageToScore,
    predictions: TilePredictions,
    gaps: int,
    mpp: float,
    network: Network,
    settings: RunSettings,
    emit: Emit,
) -> Analysis:
    """The slide's score, and what a person should know of it; ``gaps`` places of the regions have no tile."""
    grid = predictions.grid
    earlier = sort_earlier(image.stored, grid, image.renewed)
    loose = _loose_tiles(image, earlier, settings)
    _tell_of_astray(image, earlier, gaps, loose, emit)
    classes = earlier.applied_to(predictions.classes)
    notes = [check_resolution(grid.spec, mpp), _by_persons(earlier), _unclassified(gaps)]
    circumstances = Circumstances(
        specimen=image.specimen,
        whole_slide=settings.whole_slide,
        other_graded=_inside(image.graded, grid),
        notes=tuple(note for note in notes if note is not None),
    )
    probabilities = predictions.probabilities
    score = score_slide(grid, classes, probabilities, circumstances, settings.scores, network.read_shares)
    return Analysis(predictions, earlier, classes, score, gaps + loose)


def _to_be_classified(image: ImageToScore, grid: TileGrid) -> BoolArray:
    """Which of the grid's n tiles the network is to see, bool [n]."""
    if image.renewed is None:
        return np.ones(len(grid), dtype=bool)
    wanted = np.array([region.id in image.renewed for region in grid.regions], dtype=bool)
    return np.asarray(wanted[grid.owner], dtype=bool)


def _without_gaps(grid: TileGrid, known: Float32Array, is_new: BoolArray) -> tuple[TileGrid, Float32Array, BoolArray]:
    """All three without the tiles that are neither known nor to be classified."""
    there = is_new | np.isfinite(known).all(axis=1)
    return (grid, known, is_new) if there.all() else (grid.only(there), known[there], is_new[there])


def _predict(
    image: ImageToScore, grid: TileGrid, network: Network, slide: Slide, emit: Emit, watch: Stopwatch
) -> Float32Array:
    """Class probabilities of the grid's n tiles, float32 [n, 6]."""
    total = len(grid)
    tell = paced(total, lambda done, rate, left: emit(Progress(image.name, done, total, rate, left)))
    job = SlideJob(image.source, grid)
    found = predict_slide(
        job, network.runtime, batch_size=network.batch_size, slide=slide, on_progress=tell, watch=watch
    )
    return found.probabilities


def _loose_tiles(image: ImageToScore, earlier: EarlierTiles, settings: RunSettings) -> int:
    """How many of our tiles stay and are not what a full run would leave: beside the grid, or named otherwise."""
    names = {str(one) for one in path_classes(settings.class_prefix)}
    named = np.array([image.stored.class_names[row] in names for row in earlier.left.tolist()], dtype=bool)
    return int((~named | (earlier.left_cells < 0)).sum())


def _tell_of_astray(image: ImageToScore, earlier: EarlierTiles, gaps: int, loose: int, emit: Emit) -> None:
    """Places without a tile, and tiles that stay and count for nothing."""
    astray = int((earlier.cells < 0).sum())
    told = (
        (astray, "corrected tiles lie where no tile is now: kept, and not counted"),
        (gaps, "places of the regions have no tile, and do not count: score all regions anew"),
        (loose, "tiles of an earlier run lie in no region now, or are named otherwise: score all regions anew"),
    )
    for count, what in told:
        if count:
            emit(Warned(image.name, f"{count} {what}"))


def _unclassified(gaps: int) -> str | None:
    """What a reader of the score must know of places without a tile."""
    return f"places of the regions that no tile stands for: {gaps}" if gaps else None


def _by_persons(earlier: EarlierTiles) -> str | None:
    """What a reader of the score must know of corrected tiles."""
    return f"tiles that count as a person classed them: {earlier.counted}" if earlier.counted else None


def what_decides(
    network: Network, settings: RunSettings, choice: RegionChoice, mpp: tuple[float, float] | None
) -> dict[str, Any]:
    """All that a score depends on besides pixels, regions and corrections; made for a digest.

    Args:
        choice: which annotations are scored.
        mpp: QuPath's calibration.
    """
    return {
        "model": network.bundle.sha256,
        "choice": choice.asked(),
        "class_prefix": settings.class_prefix,
        "min_overlap": settings.min_overlap,
        "specimen": settings.specimen,
        "mpp": mpp or settings.mpp,
        "scores": dataclasses.asdict(settings.scores),
        "whspn": network.whspn_choice,
    }


def _all_tissue(slide: Slide, mpp: float) -> Region:
    pixels, downsample = slide.thumbnail(max(1, round(max(slide.size) * mpp / _TISSUE_MPP)))
    tissue = tissue_region(pixels, downsample)
    if tissue.is_empty:
        raise NoRegions(
            "No tissue was found on the slide.",
            where=str(slide.source.path),
            next_step="Look at the slide in QuPath; draw a Tumor region and run without --whole-slide.",
        )
    return Region(WHOLE_SLIDE, WHOLE_SLIDE, None, tissue)


def _inside(points: FloatArray, grid: TileGrid) -> int:
    """How many points lie in a region of the grid."""
    inside = np.zeros(len(points), dtype=bool)
    for region in grid.regions:
        inside |= shapely.intersects_xy(region.geometry, points[:, 0], points[:, 1])
    return int(inside.sum())

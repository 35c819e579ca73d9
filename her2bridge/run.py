"""The main sentences: what ``her2bridge run`` does with a project, image by image."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import her2bridge.events as ev
import her2bridge.provenance as provenance
from her2bridge.analysis import Analysis, ImageToScore, Network, analyse, lay_grid, what_decides
from her2bridge.errors import (
    DeviceUnavailable,
    Her2BridgeError,
    NoEarlierScore,
    NoRegions,
    RegionError,
    SlideNotFound,
    UnsupportedServer,
    UsageError,
)
from her2bridge.provenance import Standing
from her2bridge.qupath import results
from her2bridge.qupath.classes import GRADED_LAST_NAMES, path_classes
from her2bridge.qupath.earlier_tiles import EarlierTiles, staying_tiles
from her2bridge.qupath.open import open_project
from her2bridge.qupath.regions import RegionChoice, choose_regions
from her2bridge.qupath.results import RunStamp
from her2bridge.qupath.seam import Entry, ImageUpdate, NewTiles, PathClassRef, PathObject, Project, StoredTiles
from her2bridge.qupath.server_builder import calibration_of, slide_source
from her2bridge.qupath.side_files import SideResult, left_metadata, results_folder, stored_entries, write_side_files
from her2bridge.records import SlideSource, Specimen
from her2bridge.scope import Scope, scope_of
from her2bridge.settings import RunSettings
from her2bridge.slides import open_slide
from her2bridge.stopwatch import Stage, Stopwatch
from her2bridge.version import version

__all__ = ["RunSettings", "run_project"]

_LOG = logging.getLogger(__name__)

UNKNOWN_MODEL = "unknown (tiles brought in)"
"""Of tiles that came by import: they do not say which model made them."""


@dataclass(frozen=True, eq=False)
class _Run:
    """What all images of a run share."""

    id: str
    version: str
    project: Project
    network: Network
    settings: RunSettings
    emit: ev.Emit

    @property
    def classes(self) -> list[PathClassRef]:
        """The six PathClasses, in the project's colours."""
        return results.coloured(path_classes(self.settings.class_prefix), self.project.path_classes)

    @cached_property
    def results_there(self) -> frozenset[str]:
        """The entryIDs that earlier runs left results of."""
        return frozenset(stored_entries(self.project.folder))

    def source_of(self, entry: Entry) -> SlideSource:
        """Where the image's pixels are.

        Raises:
            SlideNotFound: the file is missing.
            UnsupportedServer: an image that is shown in a way that we do not know.
        """
        return slide_source(
            entry.server_json,
            folder=self.project.folder,
            saved_uri=self.project.saved_uri,
            relocations=self.settings.relocations,
        )


def run_project(
    path: Path | str, settings: RunSettings | None = None, emit: ev.Emit = lambda event: None
) -> ev.RunFinished:
    """Score the images of a QuPath project and write the results into it.

    An image that fails is told as ``ImageFailed`` and stops no other. Ctrl-C ends the run after what was finished has
    been kept: ``RunFinished.interrupted``.

    Args:
        path: the ``.qpproj`` or its folder.
        settings: what is asked for; the defaults where None.
        emit: hears all events, the returned one last.

    Raises:
        Her2BridgeError: of project, model or settings as a whole; no image has been touched then.
    """
    settings = settings or RunSettings()
    return score_project(open_project(path, settings.backend, relocations=settings.relocations), settings, emit)


def score_project(project: Project, settings: RunSettings, emit: ev.Emit) -> ev.RunFinished:
    """Score the images of a project that is open; see ``run_project``."""
    began = time.monotonic()
    entries = wanted_entries(project, settings.images)
    run = _Run(provenance.new_run_id(), version(), project, Network(settings, emit), settings, emit)
    emit(ev.RunStarted(run.id, run.version, project.backend, run.network.title, len(entries), settings.dry_run))
    _warn_of_the_project(run, entries)
    may_write = project.read_only_reason is None and not settings.dry_run
    tally: Counter[str] = Counter()
    interrupted = False
    with project.writing() if may_write else contextlib.nullcontext():
        try:
            for index, entry in enumerate(entries):
                tally[_guarded(run, entry, index)] += 1
        except KeyboardInterrupt:
            interrupted = True
    seconds = time.monotonic() - began
    finished = ev.RunFinished(tally["scored"], tally["skipped"], tally["failed"], interrupted, seconds)
    emit(finished)
    return finished


def _guarded(run: _Run, entry: Entry, index: int) -> str:
    """Run one image; whatever goes wrong with it is told, and stays with it."""
    try:
        return run_image(run, entry, index)
    except (UsageError, DeviceUnavailable):  # of the run as a whole
        raise
    except Her2BridgeError as error:
        what, where, next_step = error.what, error.where, error.next_step
        kind = type(error).__name__
    except Exception as error:  # noqa: BLE001 - one image must not stop a cohort; the traceback is logged
        _LOG.exception("entry %s failed", entry.id)
        kind = type(error).__name__
        what = f"An error that her2bridge did not foresee: {kind}: {error}"
        where, next_step = entry.name, "Please report it with the traceback in the log; the image was left as it was."
    run.emit(ev.ImageFailed(entry.name, kind, what, where, next_step))
    return "failed"


def run_image(run: _Run, entry: Entry, index: int) -> str:
    """Score one image, or say why not: ``scored``, ``skipped`` or ``planned``."""
    watch = Stopwatch()
    settings = run.settings
    with watch.on(Stage.PROJECT):
        annotations, stored = entry.annotations(), entry.stored_tiles()
    stamp = results.stamp_of(entry.metadata)
    scope = _scope(run, entry, annotations, stored, stamp)
    if scope.renewed is not None:
        _refuse_another_model(run, entry, stored)
    settings = replace(settings, whole_slide=scope.choice.whole_slide, region_classes=scope.choice.region_classes)
    chosen = scope.chosen
    specimen = settings.specimen or results.stated_specimen(entry.metadata) or Specimen.NOT_STATED
    mpp = calibration_of(entry.server_json)
    decides = what_decides(run.network, replace(settings, specimen=specimen), scope.choice, mpp)
    model = run.network.title
    if settings.recalculate and entry.metadata.get(results.MODEL, UNKNOWN_MODEL) == UNKNOWN_MODEL:
        decides["model"] = model = UNKNOWN_MODEL
    now = _Now(scope.choice, model, decides, provenance.regions_digest(chosen.regions, chosen.exclusions))
    standing = provenance.standing(
        stamp,
        settings=provenance.settings_digest(decides),
        regions=(_regions_as_asked_then(annotations, stamp) if stamp else None) or "",
        tiles=provenance.tiles_digest(stored.bounds, stored.class_names),
    )
    if standing is Standing.STANDS and not settings.force and not settings.selected:
        reason = "scored before by the same model, settings and regions"
        run.emit(ev.ImageSkipped(entry.name, reason, entry.metadata.get(results.SCORE, "")))
        return "skipped"
    _tell_of_earlier_results(run, entry, stamp, standing)
    source = run.source_of(entry)
    graded = np.empty((0, 2)) if settings.class_prefix else entry.detection_centroids(GRADED_LAST_NAMES)
    image = ImageToScore(entry.name, index, source, chosen, stored, specimen, graded, scope.renewed)
    if settings.dry_run:
        with open_slide(source) as slide:
            grid, _ = lay_grid(image, slide, run.network, settings)
        run.emit(ev.ImagePlanned(entry.name, f"score ({standing})", standing, len(grid.regions), len(grid)))
        return "planned"
    analysis = analyse(image, run.network, settings, run.emit, watch)
    with watch.on(Stage.WRITING):
        scored = _write(run, entry, stored, analysis, now, watch)
    if settings.profile:
        run.emit(watch.told(entry.name, analysis.classified))
    run.emit(scored)
    return "scored"


@dataclass(frozen=True)
class _Now:
    """What the metadata will say: which regions were asked for, the model, all that decides, the regions' digest."""

    choice: RegionChoice
    model: str
    decides: Mapping[str, Any]
    regions: str


def _scope(
    run: _Run, entry: Entry, annotations: Sequence[PathObject], stored: StoredTiles, stamp: RunStamp | None
) -> Scope:
    """The regions; where there are none any more, the score that the project still shows is called STALE."""
    try:
        return scope_of(annotations, stored, stamp, run.settings, where=entry.name)
    except NoRegions:
        if stamp is not None and _regions_as_asked_then(annotations, stamp) is None:
            shown = f"the score {entry.metadata.get(results.SCORE, '')} of {stamp.time}"
            run.emit(
                ev.Warned(entry.name, f"STALE: the project still shows {shown}, whose regions are no longer there")
            )
        raise


def _refuse_another_model(run: _Run, entry: Entry, stored: StoredTiles) -> None:
    """Tiles of two models make no score.

    Raises:
        NoEarlierScore: the tiles that are there are not of this run's model.
    """
    model = entry.metadata.get(results.MODEL, UNKNOWN_MODEL)
    fitting = (run.network.title, UNKNOWN_MODEL) if run.settings.recalculate else (run.network.title,)
    if len(stored) and model not in fitting:
        raise NoEarlierScore(
            f"The image's tiles were classified by another model, {model}; this is {run.network.title}.",
            where=entry.name,
            next_step="Score all regions anew, or name the model that was used then.",
        )


def _tell_of_earlier_results(run: _Run, entry: Entry, stamp: RunStamp | None, standing: Standing) -> None:
    """What a person should know of earlier runs, and of a specimen that is stated twice."""
    if stamp is None and entry.id in run.results_there:
        folder = results_folder(run.project.folder)
        told = "holds results of an earlier run that the project does not show; her2bridge restore brings them back"
        run.emit(ev.Warned(entry.name, f"{folder} {told}"))
    elif stamp is not None and standing is not Standing.STANDS:
        made = "would be made" if run.settings.dry_run else "is made"
        run.emit(ev.Warned(entry.name, f"its score of {stamp.time} {made} anew ({standing})"))
    stated, asked = results.stated_specimen(entry.metadata), run.settings.specimen
    text = results.stated_specimen_text(entry.metadata)
    if stated not in (None, asked) and asked is not None:
        run.emit(ev.Warned(entry.name, f"the image's metadata say {stated}; --specimen {asked} is used"))
    elif text and stated is None and asked is None:
        told = f"the specimen {text!r} is neither resection nor biopsy to us, and is taken as not stated"
        run.emit(ev.Warned(entry.name, told))


def _regions_as_asked_then(annotations: Sequence[PathObject], stamp: RunStamp) -> str | None:
    """Digest of the regions that the run of a stamp would choose now; None where it would find none."""
    try:
        chosen = choose_regions(annotations, stamp.choice, where="")
    except RegionError:
        return None
    return provenance.regions_digest(chosen.regions, chosen.exclusions)


def _write(
    run: _Run, entry: Entry, stored: StoredTiles, analysis: Analysis, now: _Now, watch: Stopwatch
) -> ev.ImageScored:
    """The results to the side files, and to the project where it may be written; what is to be told of them."""
    grid, score, earlier = analysis.predictions.grid, analysis.score, analysis.earlier
    below = not now.choice.whole_slide
    rows = earlier.open_cells(len(grid))
    fresh = results.new_tiles(analysis.predictions, rows, run.classes, run.id, below_regions=below)
    foreign = results.foreign_keys(entry.metadata, left_metadata(run.project.folder, entry.id))
    if foreign:
        run.emit(ev.Warned(entry.name, f"not written by her2bridge, and so left as they are: {', '.join(foreign)}"))
    tiles = marked_tiles_digest(fresh, stored, earlier)
    # With loose ends no other run asks for the same, and none is skipped for this score's sake.
    ends = {"loose_ends": analysis.loose_ends} if analysis.loose_ends else {}
    settings = provenance.settings_digest({**now.decides, **ends})
    stamp = RunStamp(run.id, provenance.now(), run.version, settings, now.regions, tiles, foreign, now.choice)
    metadata = results.score_metadata(score, now.model, stamp)
    measured = zip(grid.regions, score.region_counts, strict=True) if below else ()
    measurements = {r.id: results.region_measurements(counts, assessable=score.assessable) for r, counts in measured}
    counts = ev.counts_by_label(score.counts)
    written_to = ""
    if run.project.keeps_results:
        tiles_now = [fresh, *staying_tiles(stored, earlier, grid, run.classes, below_regions=below)]
        side = SideResult(entry.id, entry.name, metadata, measurements, run.classes, counts, tiles_now)
        written_to = str(write_side_files(run.project.folder, side))
    if entry.read_only_reason is None:
        removed = [stored.ids[row] for row in earlier.replaced]
        run.project.merge_path_classes(run.classes)
        entry.apply(
            ImageUpdate(removed, [fresh], measurements, frozenset(results.REGION_MEASUREMENTS), metadata),
        )
        written_to = str(run.project.path)
    else:
        run.emit(ev.Warned(entry.name, f"{entry.read_only_reason}; the results are only in {written_to}"))
    return ev.ImageScored(
        image=entry.name,
        score=score.score,
        status=str(score.status),
        counts=counts,
        tumour_tiles=score.counts.tumour,
        tile_h_score=score.counts.h_score,
        review=score.review,
        regions=ev.region_rows(grid.regions, score.region_counts),
        metadata=metadata,
        written_to=written_to,
        corrected_tiles=earlier.counted,
        seconds=watch.seconds,
    )


def marked_tiles_digest(fresh: NewTiles, stored: StoredTiles, earlier: EarlierTiles) -> str:
    """Digest of the tiles that the image will have: the new ones and those that stay."""
    names = fresh.class_names() + [stored.class_names[row] for row in earlier.staying]
    return provenance.tiles_digest(np.concatenate([fresh.bounds(), stored.bounds[earlier.staying]]), names)


def wanted_entries(project: Project, names: Sequence[str]) -> list[Entry]:
    """The project's images of these names; all where none is given.

    Raises:
        UsageError: a name that no image has.
    """
    known = {entry.name for entry in project.entries}
    for name in names:
        if name not in known:
            some = ", ".join(sorted(known)[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
            raise UsageError(
                f"The project has no image called {name!r}.",
                where=str(project.path),
                next_step=f"Its images are: {some or 'none'}.",
            )
    return [entry for entry in project.entries if not names or entry.name in names]


def _warn_of_the_project(run: _Run, entries: Sequence[Entry]) -> None:
    """What concerns more than one image: a project that must not be written, and all slides that are missing."""
    if run.project.read_only_reason is not None and not run.settings.dry_run:
        reason = run.project.read_only_reason
        run.emit(ev.Warned(None, f"{reason}; results go to {run.project.folder / 'her2bridge' / 'results'} only"))
    missing: dict[str, list[str]] = {}
    for entry in entries:
        try:
            run.source_of(entry)
        except SlideNotFound as error:
            missing.setdefault(error.next_step, []).append(entry.name)
        except UnsupportedServer:  # told when its turn comes
            continue
    if sum(map(len, missing.values())) > 1:
        for next_step, names in missing.items():
            run.emit(ev.Warned(None, f"{len(names)} slides were not found: {', '.join(names)}. {next_step}"))

"""``her2bridge restore``: attach the results of earlier runs again, from the files that each run leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import her2bridge.provenance as provenance
from her2bridge.errors import Her2BridgeError, RegionError
from her2bridge.events import Emit, ImageFailed, ImageSkipped, Restored, RestoreFinished, Warned
from her2bridge.qupath import results
from her2bridge.qupath.earlier_tiles import corrected_rows
from her2bridge.qupath.open import open_project
from her2bridge.qupath.regions import choose_regions
from her2bridge.qupath.seam import Entry, ImageUpdate, NewTiles, Project
from her2bridge.qupath.side_files import read_side_files, results_folder, stored_entries
from her2bridge.run import wanted_entries


def restore_project(
    path: Path | str, *, images: Sequence[str] = (), backend: str = "auto", emit: Emit = lambda event: None
) -> RestoreFinished:
    """Put tiles, measurements and metadata of the last run back into the images that lost them.

    What a person corrected in the project meanwhile stays.

    Args:
        path: the ``.qpproj`` or its folder.
        images: names; empty for all that have results.
        backend: ``auto``, ``paquo`` or ``files``.
        emit: hears all events, the returned one last.

    Raises:
        ProjectError: the project cannot be read or must not be written.
        UsageError: an image that the project has not.
    """
    project = open_project(path, backend)
    have = set(stored_entries(project.folder))
    if not have:
        told = (
            f"no results of an earlier run lie in {results_folder(project.folder)}: her2bridge run PROJECT makes some"
        )
        emit(Warned(None, told))
    tally: Counter[str] = Counter()
    with project.writing():
        for entry in wanted_entries(project, images):
            if entry.id in have:
                tally[_guarded(project, entry, emit)] += 1
            elif images:
                emit(ImageSkipped(entry.name, "no run has left results for it", ""))
                tally["skipped"] += 1
    finished = RestoreFinished(tally["restored"], tally["skipped"], tally["failed"])
    emit(finished)
    return finished


def _guarded(project: Project, entry: Entry, emit: Emit) -> str:
    try:
        return restore_image(project, entry, emit)
    except Her2BridgeError as error:
        emit(ImageFailed(entry.name, type(error).__name__, error.what, error.where, error.next_step))
        return "failed"


def restore_image(project: Project, entry: Entry, emit: Emit) -> str:
    """Restore one image: ``restored``, or ``skipped`` where the project has the results already."""
    side = read_side_files(project.folder, entry.id)
    score = side.metadata.get(results.SCORE, "")
    stored = entry.stored_tiles()
    stamp = results.stamp_of(side.metadata)
    has_tiles = stamp and stamp.tiles == provenance.tiles_digest(stored.bounds, stored.class_names)
    if has_tiles and all(entry.metadata.get(key) == value for key, value in side.metadata.items()):
        emit(ImageSkipped(entry.name, "the project has these results", score))
        return "skipped"
    theirs = results.stamp_of(entry.metadata)
    if stamp and theirs and theirs.run_id != stamp.run_id and theirs.time > stamp.time:
        emit(
            ImageSkipped(
                entry.name, f"the project has newer results, of {theirs.time}", entry.metadata.get(results.SCORE, "")
            )
        )
        return "skipped"
    _warn_if_stale(entry, stamp, emit)
    is_corrected = corrected_rows(stored)
    removed = [stored.ids[row] for row in np.flatnonzero(~is_corrected).tolist()]
    annotations = {annotation.id for annotation in entry.annotations()}
    orphans = sorted({str(one) for group in side.tiles for one in group.parent_ids if one} - annotations)
    if orphans:
        emit(Warned(entry.name, f"{len(orphans)} regions of that run are gone: their tiles go below the root"))
    corners = {tuple(corner) for corner in np.rint(stored.bounds[is_corrected, :2]).tolist()}
    tiles = [_without(_reparented(group, annotations), corners) for group in side.tiles]
    measurements = {region: values for region, values in side.region_measurements.items() if region in annotations}
    foreign = results.foreign_keys(entry.metadata, side.metadata)
    metadata = {key: value for key, value in side.metadata.items() if key not in foreign}
    project.merge_path_classes(side.path_classes)
    entry.apply(ImageUpdate(removed, tiles, measurements, frozenset(results.REGION_MEASUREMENTS), metadata))
    emit(Restored(entry.name, sum(map(len, tiles)), int(is_corrected.sum()), score))
    return "restored"


def _warn_if_stale(entry: Entry, stamp: results.RunStamp | None, emit: Emit) -> None:
    """Results of regions that have changed since are brought back, as asked for, and called what they are."""
    if stamp is None:
        return
    try:
        chosen = choose_regions(entry.annotations(), stamp.choice, where=entry.name)
        digest = provenance.regions_digest(chosen.regions, chosen.exclusions)
    except RegionError:
        digest = provenance.regions_digest((), ())
    if digest != stamp.regions:
        emit(
            Warned(
                entry.name, f"STALE: the regions have changed since {stamp.time}; run again to score them as they are"
            )
        )


def _reparented(group: NewTiles, annotations: set[str]) -> NewTiles:
    return replace(group, parent_ids=[one if one in annotations else None for one in group.parent_ids])


def _without(group: NewTiles, corners: set[tuple[float, ...]]) -> NewTiles:
    """The group less the tiles whose place a corrected tile has."""
    places = np.rint(group.origins).tolist()
    rows = np.array([row for row, place in enumerate(places) if tuple(place) not in corners], dtype=np.int64)
    return replace(
        group,
        origins=group.origins[rows],
        parents=group.parents[rows],
        classes=group.classes[rows],
        measurements=group.measurements[rows],
        ids=[group.ids[row] for row in rows],
    )

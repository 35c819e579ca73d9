"""One slide without a project: regions from GeoJSON, tiles to GeoJSON, the score as the last event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import her2bridge.provenance as provenance
from her2bridge.analysis import ImageToScore, Network, analyse, what_decides
from her2bridge.events import Emit, ImageScored, RunStarted, counts_by_label, region_rows
from her2bridge.qupath.classes import path_classes
from her2bridge.qupath.geojson import write_tiles
from her2bridge.qupath.regions import ChosenRegions, RegionChoice, choose_regions
from her2bridge.qupath.results import RunStamp, new_tiles, no_tiles, score_metadata
from her2bridge.qupath.seam import NewTiles, PathObject
from her2bridge.records import Region, SlideScore, SlideSource, Specimen
from her2bridge.settings import RunSettings
from her2bridge.stopwatch import Stage, Stopwatch
from her2bridge.version import version


def analyze_slide(
    source: SlideSource,
    regions: Sequence[PathObject],
    output: Path | None,
    settings: RunSettings | None = None,
    emit: Emit = lambda event: None,
) -> SlideScore:
    """Score one slide and write its tiles.

    Args:
        source: the slide, as QuPath shows it.
        regions: annotations; their ids become the tiles' parents. Where none has a class, all are scored; else those
            that a run would score.
        output: ``.geojson`` or ``.geojson.gz``; None writes no tiles.
        settings: those that concern a project are left unheeded.
        emit: hears all events; ``ImageScored`` comes last.

    Raises:
        Her2BridgeError: of slide, regions, model or output.
    """
    settings = settings or RunSettings()
    watch = Stopwatch()
    network = Network(settings, emit)
    run_id = provenance.new_run_id()
    emit(RunStarted(run_id, version(), "none", network.title, 1, dry_run=False))
    chosen = _choose(source, regions, settings)
    specimen = settings.specimen or Specimen.NOT_STATED
    name = source.path.name
    image = ImageToScore(name, 0, source, chosen, no_tiles(), specimen, np.empty((0, 2)))
    analysis = analyse(image, network, settings, emit, watch)
    grid, score = analysis.predictions.grid, analysis.score
    below = not settings.whole_slide
    rows = np.arange(len(grid), dtype=np.int64)
    tiles = new_tiles(analysis.predictions, rows, path_classes(settings.class_prefix), run_id, below_regions=below)
    if output is not None:
        with watch.on(Stage.WRITING):
            write_tiles(output, [tiles])
    stamp = _stamp(run_id, what_decides(network, settings, settings.choice, source.mpp), settings.choice, chosen, tiles)
    if settings.profile:
        emit(watch.told(name, analysis.classified))
    emit(
        ImageScored(
            image=name,
            score=score.score,
            status=str(score.status),
            counts=counts_by_label(score.counts),
            tumour_tiles=score.counts.tumour,
            tile_h_score=score.counts.h_score,
            review=score.review,
            regions=region_rows(grid.regions, score.region_counts),
            metadata=score_metadata(score, network.title, stamp),
            written_to=str(output) if output else "",
            corrected_tiles=0,
            seconds=watch.seconds,
        )
    )
    return score


def _stamp(
    run_id: str, decides: Mapping[str, Any], choice: RegionChoice, chosen: ChosenRegions, tiles: NewTiles
) -> RunStamp:
    return RunStamp(
        run_id,
        provenance.now(),
        version(),
        provenance.settings_digest(decides),
        provenance.regions_digest(chosen.regions, chosen.exclusions),
        provenance.tiles_digest(tiles.bounds(), tiles.class_names()),
        choice=choice,
    )


def _choose(source: SlideSource, regions: Sequence[PathObject], settings: RunSettings) -> ChosenRegions:
    if regions and not settings.region_classes and all(region.path_class is None for region in regions):
        areas = [Region(one.id, one.name, None, one.geometry) for one in regions if one.geometry is not None]
        return ChosenRegions(tuple(areas), ())
    return choose_regions(regions, settings.choice, where=source.path.name)

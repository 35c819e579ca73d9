"""SlideScore and TilePredictions to and from what a project shows: metadata keys, PathClasses, measurements.

All names that we write into a project stand here. Image metadata are strings; tiles carry their class probabilities,
so that a class which a person changed can be told from the one we wrote.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from her2bridge.qupath.regions import RegionChoice
from her2bridge.qupath.seam import NewTiles, PathClassRef, StoredTiles
from her2bridge.records import (
    TUMOUR_CLASSES,
    IntArray,
    SlideScore,
    Specimen,
    TileClass,
    TileCounts,
    TilePredictions,
)

PROBABILITY_NAMES = tuple(f"HER2: p({tile_class.label})" for tile_class in TileClass)
"""Measurements of a tile, in the network's order."""

SCORE, STATUS, REVIEW, MODEL, RUN = (f"HER2 AI {name}" for name in ("score", "status", "review", "model", "run"))
WHSPN = "HER2 AI WHSPN"
_SHARES = {tile_class: f"% tiles {tile_class.label}" for tile_class in TUMOUR_CLASSES}
_TUMOUR_TILES, _H_SCORE = "tumour tiles", "tile H-score"
METADATA_KEYS = (
    SCORE,
    STATUS,
    *(f"HER2 AI {share}" for share in _SHARES.values()),
    f"HER2 AI {_TUMOUR_TILES}",
    f"HER2 AI {_H_SCORE}",
    "HER2 AI rule score",
    WHSPN,
    REVIEW,
    "HER2 AI specimen",
    MODEL,
    RUN,
)
"""Every key that a run writes into an image's metadata."""

REGION_MEASUREMENTS = (*(f"HER2: {share}" for share in _SHARES.values()), f"HER2: {_TUMOUR_TILES}", f"HER2: {_H_SCORE}")
"""Every measurement that a run writes on a region."""
TUMOUR_TILES = f"HER2: {_TUMOUR_TILES}"
"""The one of them that every scored region has."""

SPECIMEN_KEY = "Specimen"
"""Image metadata key that a user may set to ``resection`` or ``biopsy``."""

RESEARCH_USE_ONLY = "research use only"


@dataclass(frozen=True)
class RunStamp:
    """What the metadata key ``HER2 AI run`` says; enough to tell whether a score still stands.

    Attributes:
        run_id: the mark on the run's tiles.
        time: ISO 8601, UTC.
        version: of her2bridge.
        settings: digest of model and settings, 12 hex digits.
        regions: digest of the regions and what was cut out of them, 12 hex digits.
        tiles: digest of the image's marked tiles after the run, 12 hex digits.
        kept: keys of ``METADATA_KEYS`` that somebody else had written before; never overwritten.
        choice: which annotations were asked for.
    """

    run_id: str
    time: str
    version: str
    settings: str
    regions: str
    tiles: str
    kept: tuple[str, ...] = ()
    choice: RegionChoice = field(default_factory=RegionChoice)

    def __str__(self) -> str:
        parts = [self.run_id, self.time, f"her2bridge {self.version}", RESEARCH_USE_ONLY]
        parts += [f"settings {self.settings}", f"regions {self.regions}", f"tiles {self.tiles}"]
        asked = self.choice.asked()
        parts += [f"asked {json.dumps(asked, ensure_ascii=False)}"] if asked else []
        return " | ".join(parts + ([f"not written: {', '.join(self.kept)}"] if self.kept else []))

    @classmethod
    def parse(cls, text: str | None) -> RunStamp | None:
        """The stamp that a text is; None where her2bridge did not write it."""
        match = _STAMP.fullmatch(text or "")
        if match is None:
            return None
        fields = match.groupdict()
        kept, asked = fields.pop("kept"), fields.pop("asked")
        try:
            given: dict[str, Any] = json.loads(asked or "{}")
            names = ("region_classes", "exclude_classes", "only")
            classes, excluded, only = (tuple(given.get(name, ())) for name in names)
            choice = RegionChoice(classes, excluded, bool(given.get("whole_slide")), only)
        except (ValueError, TypeError):
            return None
        return cls(**fields, kept=tuple(kept.split(", ")) if kept else (), choice=choice)


_STAMP = re.compile(
    r"(?P<run_id>[0-9a-f]{12}) \| (?P<time>\S+) \| her2bridge (?P<version>\S+) \| research use only"
    r" \| settings (?P<settings>[0-9a-f]{12}) \| regions (?P<regions>[0-9a-f]{12}) \| tiles (?P<tiles>[0-9a-f]{12})"
    r"(?: \| asked (?P<asked>\{.*\}))?(?: \| not written: (?P<kept>[^{}]+))?"
)


def stamp_of(metadata: Mapping[str, str]) -> RunStamp | None:
    """The stamp of the run that scored the image; None where none did."""
    return RunStamp.parse(metadata.get(RUN))


def model_title(name: str, sha256: str) -> str:
    """What the metadata say of a bundle: its name and the first 12 digits of its hash."""
    return f"{name} {sha256[:12]}"


def foreign_keys(metadata: Mapping[str, str], left: Mapping[str, str]) -> tuple[str, ...]:
    """Those of our keys that stand in the metadata and that no run of ours wrote.

    Args:
        metadata: of the image, in the project.
        left: what the last run left in the side files; where the stamp in the project is gone, it tells what was ours.
    """
    stamp = stamp_of(metadata)
    if stamp is not None:
        return tuple(key for key in METADATA_KEYS if key in stamp.kept and key in metadata)
    return tuple(key for key in METADATA_KEYS if key in metadata and metadata[key] != left.get(key))


def score_metadata(score: SlideScore, model: str, stamp: RunStamp) -> dict[str, str]:
    """Image metadata of a score, in the order of ``METADATA_KEYS``, without the keys that ``stamp.kept`` names.

    Shares and H-score are empty, never 0 or NaN, where the slide could not be assessed. What the WHSPN says is empty
    where it said nothing.
    """
    counts = score.counts
    shares = {_SHARES[c]: f"{100 * counts.share(c):.1f}" if score.assessable else "" for c in TUMOUR_CLASSES}
    values = [
        score.score,
        str(score.status),
        *shares.values(),
        str(counts.tumour),
        f"{counts.h_score:.1f}" if score.assessable else "",
        score.rule_score or "",
        str(score.whspn or ""),
        "; ".join(score.review),
        str(score.specimen),
        model,
        str(stamp),
    ]
    return {key: value for key, value in zip(METADATA_KEYS, values, strict=True) if key not in stamp.kept}


def region_measurements(counts: TileCounts, *, assessable: bool) -> dict[str, float]:
    """Measurements of a region: its tumour tiles, and shares in % and tile H-score where there is something to say.

    Args:
        counts: the tiles whose centre lies in the region.
        assessable: whether the slide's score is.
    """
    values: dict[str, float] = {}
    if assessable and counts.tumour:
        values |= {f"HER2: {share}": 100 * counts.share(tile_class) for tile_class, share in _SHARES.items()}
        values[f"HER2: {_H_SCORE}"] = counts.h_score
    values[TUMOUR_TILES] = float(counts.tumour)
    return {name: values[name] for name in REGION_MEASUREMENTS if name in values}


def stated_specimen(metadata: Mapping[str, str]) -> Specimen | None:
    """The specimen that the image's metadata state; None where they state none, or none that we know."""
    stated = stated_specimen_text(metadata).casefold()
    named = [one for one in (Specimen.RESECTION, Specimen.BIOPSY) if one.value in stated]
    if stated == Specimen.NOT_STATED.value:
        return Specimen.NOT_STATED
    return named[0] if len(named) == 1 else None


def stated_specimen_text(metadata: Mapping[str, str]) -> str:
    """What the image's metadata say of the specimen, in whatever case the key is written; may be empty."""
    found = [value for key, value in metadata.items() if key.strip().casefold() == SPECIMEN_KEY.casefold()]
    return (found[0] or "").strip() if found else ""


def coloured(classes: Sequence[PathClassRef], project: Sequence[PathClassRef]) -> list[PathClassRef]:
    """The classes, each in the colour that the project gives it, if it does."""
    colours = {known.names: known.rgb for known in project if known.rgb is not None}
    return [replace(one, rgb=colours.get(one.names, one.rgb)) for one in classes]


def no_tiles() -> StoredTiles:
    """The stored tiles of an image that was never scored."""
    return StoredTiles((), np.empty((0, 4)), (), {}, ())


def new_ids(count: int) -> list[str]:
    """Random UUIDs of version 4 as text, which QuPath knows objects by; drawn at once, as 100,000 may be asked for."""
    drawn = np.frombuffer(os.urandom(16 * count), dtype=np.uint8).reshape(count, 16).copy()
    drawn[:, 6] = drawn[:, 6] & 0x0F | 0x40  # the version
    drawn[:, 8] = drawn[:, 8] & 0x3F | 0x80  # the variant
    digits = drawn.tobytes().hex()
    texts = (digits[first : first + 32] for first in range(0, 32 * count, 32))
    return [f"{one[:8]}-{one[8:12]}-{one[12:16]}-{one[16:20]}-{one[20:]}" for one in texts]


def new_tiles(
    predictions: TilePredictions, rows: IntArray, classes: Sequence[PathClassRef], mark: str, *, below_regions: bool
) -> NewTiles:
    """The tile objects of a run.

    Args:
        predictions: of all n tiles.
        rows: the tiles to be written.
        classes: the six PathClasses, in the network's order.
        mark: the run's id.
        below_regions: False puts them below the root: the regions are no annotations of the project.
    """
    grid = predictions.grid
    parents = grid.owner[rows] if below_regions else np.zeros(len(rows), dtype=np.int64)
    return NewTiles(
        origins=grid.origins()[rows],
        side=grid.side,
        parents=parents,
        parent_ids=[region.id for region in grid.regions] if below_regions else [None],
        classes=predictions.classes[rows],
        path_classes=classes,
        measurement_names=PROBABILITY_NAMES,
        measurements=np.ascontiguousarray(predictions.probabilities[rows]),
        mark=mark,
        ids=new_ids(len(rows)),
    )

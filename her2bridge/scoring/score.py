"""Tile classes to the slide's score: shares, rule and WHSPN, whether it can be assessed, why a person should look."""

from __future__ import annotations

from dataclasses import dataclass

from her2bridge.records import (
    NOT_ASSESSABLE,
    Float32Array,
    IntArray,
    SlideScore,
    Specimen,
    Status,
    TileClass,
    TileCounts,
    TileGrid,
    WhspnReading,
)
from her2bridge.scoring.rule import STAINED, at_least, biopsy_score, reaches_a_tenth, resection_score
from her2bridge.scoring.settings import ScoreSettings
from her2bridge.scoring.whspn import ReadShares


@dataclass(frozen=True)
class Circumstances:
    """What scoring must know of the image beyond its tiles.

    Attributes:
        specimen: as stated by the user or the project.
        whole_slide: no regions were drawn; the tissue was found by its colour.
        other_graded: detections of other makers with graded classes inside the regions.
        notes: further reasons for review that earlier steps found, e.g. a slide coarser than the network wants.
    """

    specimen: Specimen = Specimen.NOT_STATED
    whole_slide: bool = False
    other_graded: int = 0
    notes: tuple[str, ...] = ()


def status_of(grade: TileClass) -> Status:
    """The three-class reading: 0 and 1+ negative, 2+ equivocal, 3+ positive (Table 1 of the paper)."""
    if grade is TileClass.THREE:
        return Status.POSITIVE
    return Status.EQUIVOCAL if grade is TileClass.TWO else Status.NEGATIVE


def score_slide(
    grid: TileGrid,
    classes: IntArray,
    probabilities: Float32Array,
    circumstances: Circumstances,
    settings: ScoreSettings | None = None,
    read_shares: ReadShares | None = None,
) -> SlideScore:
    """Score one slide.

    The score is the WHSPN's where there is one and the specimen is stated to be a resection, else the rule's. Where
    the two differ in status, the status is ``Discordant (review)``. The WHSPN knows resections only: it is not asked
    about biopsies.

    Args:
        grid: the n tiles and their k regions.
        classes: int64 [n], a person's corrections included; ``LEFT_OUT`` counts nowhere.
        probabilities: float32 [n, 6].
        circumstances: specimen and what else bears on review.
        settings: thresholds; the defaults where None.
        read_shares: the WHSPN; None for the rule alone.
    """
    settings = settings or ScoreSettings()
    counts = TileCounts.of(classes)
    by_resection = resection_score(counts)
    by_biopsy = biopsy_score(grid, classes, probabilities, settings)
    is_biopsy = circumstances.specimen is Specimen.BIOPSY
    by_rule = by_biopsy if is_biopsy else by_resection
    enough = _enough_tumour(counts, grid, settings)
    reading = read_shares(counts) if read_shares and enough and not is_biopsy else None
    review = list(_always_for_review(circumstances))
    if not enough:
        review.insert(0, _too_little(counts, grid))
    else:
        review[:0] = _discordance(by_rule, reading)
        review += _about_the_shares(counts, by_rule, settings, is_biopsy=is_biopsy)
        if reading and reading.margin is not None and reading.margin < settings.min_whspn_margin:
            review.append(f"the WHSPN is not sure: margin {reading.margin:.2f}")
        if circumstances.specimen is Specimen.NOT_STATED and by_biopsy is not by_resection:
            review.append(f"specimen not stated: as a biopsy the score would be {by_biopsy.label}")
    review += _about_the_field(counts, circumstances, settings)
    decides = reading.score if reading and circumstances.specimen is Specimen.RESECTION else by_rule.label
    return SlideScore(
        score=decides if enough else NOT_ASSESSABLE,
        status=_status(by_rule, reading) if enough else Status.NOT_ASSESSABLE,
        counts=counts,
        rule_score=by_rule.label if enough else None,
        specimen=circumstances.specimen,
        review=tuple(review),
        region_counts=tuple(TileCounts.of(classes[members]) for members in grid.members),
        whspn=reading,
    )


def _status(by_rule: TileClass, reading: WhspnReading | None) -> Status:
    """The reading that rule and WHSPN share; ``Discordant (review)`` where they share none."""
    status = status_of(by_rule)
    agree = reading is None or status_of(TileClass.from_label(reading.score)) is status
    return status if agree else Status.DISCORDANT


def _discordance(by_rule: TileClass, reading: WhspnReading | None) -> list[str]:
    if reading is None or _status(by_rule, reading) is not Status.DISCORDANT:
        return []
    return [f"discordant: {by_rule.label} by the rule, {reading.score} by the WHSPN"]


def _enough_tumour(counts: TileCounts, grid: TileGrid, settings: ScoreSettings) -> bool:
    if not counts.tumour:  # even where the settings ask for none: there is nothing to take a share of
        return False
    return counts.tumour >= settings.min_tumour_tiles and _tumour_mm2(counts, grid) >= settings.min_tumour_mm2


def _tumour_mm2(counts: TileCounts, grid: TileGrid) -> float:
    return counts.tumour * grid.spec.field_um**2 / 1e6


def _too_little(counts: TileCounts, grid: TileGrid) -> str:
    return f"too little tumour found: {counts.tumour} tiles, {_tumour_mm2(counts, grid):.2f} mm²"


def _always_for_review(circumstances: Circumstances) -> list[str]:
    reasons = []
    if circumstances.specimen is Specimen.BIOPSY:
        reasons.append("biopsy: a focus of tiles stands in for a cluster of at least 5 cells")
    if circumstances.whole_slide:
        reasons.append("whole slide: controls and tissue other than tumour were not excluded")
    return reasons


def _about_the_shares(counts: TileCounts, grade: TileClass, settings: ScoreSettings, *, is_biopsy: bool) -> list[str]:
    reasons = []
    strong = counts.by_class[TileClass.THREE]
    if strong and not reaches_a_tenth(strong, counts.tumour):
        reasons.append(
            f"strong staining in {_percent(strong, counts.tumour)} of tumour tiles: consider ISH or another block"
        )
    if is_biopsy:  # its score does not turn on a share
        return reasons
    for stained in STAINED:
        part = at_least(counts, stained)
        decides = stained in (grade, grade + 1)
        if decides and settings.doubt_low <= part / counts.tumour < settings.doubt_high:
            reasons.append(
                f"close to the 10 % that decide: {stained.label} or stronger in {_percent(part, counts.tumour)}"
            )
    return reasons


def _about_the_field(counts: TileCounts, circumstances: Circumstances, settings: ScoreSettings) -> list[str]:
    reasons = []
    for tile_class, limit in ((TileClass.NOISE, settings.max_noise), (TileClass.NORMAL, settings.max_normal)):
        part = counts.by_class[tile_class]
        if counts.total and part / counts.total > limit:
            reasons.append(f"{tile_class.label} in {_percent(part, counts.total)} of all tiles")
    if circumstances.other_graded:
        reasons.append(
            f"{circumstances.other_graded} other detections with graded classes lie in the regions and mix into"
            " QuPath's own H-score: use --class-prefix HER2"
        )
    return reasons + list(circumstances.notes)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %"

"""What a run does with one image: which regions count, and which of them the network looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from her2bridge.errors import NoEarlierScore
from her2bridge.qupath.earlier_tiles import centres_inside
from her2bridge.qupath.regions import ChosenRegions, RegionChoice, choose_regions
from her2bridge.qupath.results import TUMOUR_TILES, RunStamp
from her2bridge.qupath.seam import PathObject, StoredTiles
from her2bridge.settings import RunSettings


@dataclass(frozen=True, eq=False)
class Scope:
    """The regions of one image that its score is made of.

    Attributes:
        chosen: regions, exclusions and warnings.
        choice: the words that say so, kept with the score.
        renewed: ids of the regions whose tiles are classified; None for all.
    """

    chosen: ChosenRegions
    choice: RegionChoice
    renewed: frozenset[str] | None = None


def scope_of(
    annotations: Sequence[PathObject],
    stored: StoredTiles,
    stamp: RunStamp | None,
    settings: RunSettings,
    *,
    where: str,
) -> Scope:
    """Choose the regions.

    Where only some are classified anew, a slide's score is made of these and of those that were scored before.

    Args:
        annotations: of the image.
        stored: tiles of earlier runs.
        stamp: of the last of them.
        settings: what is asked for; to recalculate, what was asked for then.
        where: the image's name, for messages.

    Raises:
        NoRegions: nothing to score, or a selected region that is none.
        NoEarlierScore: nothing to recalculate.
    """
    if settings.recalculate:
        if not len(stored):
            raise NoEarlierScore(
                "There is nothing to recalculate: the image holds no tiles of ours.",
                where=where,
                next_step="Score the image first.",
            )
        asked = replace(stamp.choice, only=()) if stamp else settings.choice
    elif settings.selected:
        asked = settings.choice
    else:
        return Scope(choose_regions(annotations, settings.choice, where=where), settings.choice)
    every = choose_regions(annotations, asked, where=where)
    selected = frozenset(settings.selected)
    if asked.whole_slide:
        return Scope(every, asked, selected)
    every.only(selected, where=where)  # refuses what is no region
    counted = selected | _scored_before(annotations, every, stored, stamp)
    if not counted:
        raise NoEarlierScore(
            "There is nothing to recalculate: no tile of ours lies in a region.",
            where=where,
            next_step="Look whether the regions were moved; score the image anew.",
        )
    if counted == {region.id for region in every.regions}:
        return Scope(every, asked, selected)
    choice = replace(asked, only=tuple(sorted(counted)))
    return Scope(choose_regions(annotations, choice, where=where), choice, selected)


def _scored_before(
    annotations: Sequence[PathObject], every: ChosenRegions, stored: StoredTiles, stamp: RunStamp | None
) -> set[str]:
    """Ids of the regions that an earlier run scored: they carry its measurements. Where tiles were brought in there are
    none, and their place tells.
    """
    ids = {region.id for region in every.regions}
    if stamp is not None and len(stored):
        return {one.id for one in annotations if one.id in ids and TUMOUR_TILES in one.measurements}
    return {region.id for region in every.regions if centres_inside(stored.bounds, region.geometry).any()}

"""Which annotations of an image are scored, and which are cut out of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from shapely.geometry.base import BaseGeometry

from her2bridge.errors import BadRegion, NoRegions
from her2bridge.qupath.classes import is_excluded_by_name, is_exclusion, is_scored_region
from her2bridge.qupath.seam import PathObject
from her2bridge.records import Region


@dataclass(frozen=True)
class RegionChoice:
    """Which annotations a run was asked to score.

    Attributes:
        region_classes: PathClasses that are scored; empty for ``Tumor``, ``Tumour`` and what derives from them.
        exclude_classes: PathClasses that are cut out, besides those whose name ends in ``*``.
        whole_slide: all tissue instead of annotations; only what is cut out is wanted of them.
        only: of the annotations that these words mean, the ids of those that are scored; empty for all.
    """

    region_classes: tuple[str, ...] = ()
    exclude_classes: tuple[str, ...] = ()
    whole_slide: bool = False
    only: tuple[str, ...] = ()

    def asked(self) -> dict[str, Any]:
        """What differs from the default, for a stamp or a digest."""
        return {name: value for name, value in asdict(self).items() if value}


@dataclass(frozen=True, eq=False)
class ChosenRegions:
    """The regions to be scored, what is cut out of them, and what was passed over on the way."""

    regions: tuple[Region, ...]
    exclusions: tuple[BaseGeometry, ...]
    warnings: tuple[str, ...] = ()

    def only(self, ids: Collection[str], *, where: str) -> ChosenRegions:
        """These regions alone.

        Raises:
            NoRegions: one of them is not there.
        """
        lacking = set(ids) - {region.id for region in self.regions}
        if lacking:
            raise NoRegions(
                f"{len(lacking)} of the regions to be scored are no longer there, or of another class.",
                where=f"{where}, {', '.join(sorted(lacking)[:3])}",
                next_step="Choose regions of the class that is scored, or score all of them.",
            )
        return replace(self, regions=tuple(region for region in self.regions if region.id in ids))


def choose_regions(annotations: Sequence[PathObject], choice: RegionChoice, *, where: str) -> ChosenRegions:
    """Sort the annotations of one image.

    Raises:
        NoRegions: nothing to score; the message names the classes that are there.
    """
    regions, exclusions, warnings = [], [], []
    for annotation in annotations:
        if annotation.geometry is None:
            continue
        is_scored = not choice.whole_slide and is_scored_region(annotation.path_class, choice.region_classes)
        by_name = is_scored and bool(choice.region_classes)  # a starred class may be asked for by name
        starred = not by_name and is_exclusion(annotation.path_class, ())
        excluded = starred or is_excluded_by_name(annotation.path_class, choice.exclude_classes)
        if not excluded and not is_scored:
            continue
        _, z, t = annotation.plane
        if (z, t) != (0, 0):
            warnings.append(f"{_title(annotation)} lies on plane z={z}, t={t} and is passed over")
        elif excluded:
            exclusions.append(annotation.geometry)
        else:
            class_name = str(annotation.path_class)
            regions.append(Region(annotation.id, annotation.name, class_name, annotation.geometry))
    if not regions and not choice.whole_slide:
        but = f" ({'; '.join(warnings)})" if warnings else ""
        wanted = choice.region_classes[0] if choice.region_classes else "Tumor"
        raise NoRegions(
            f"There is no region to score: no annotation is classed {_wanted(choice.region_classes)}{but}.",
            where=where,
            next_step=f"{_classes_there(annotations)} Draw a region and class it {wanted} in QuPath,"
            " or name another class with --region-class, or score all tissue with --whole-slide.",
        )
    _refuse_twins(regions, where)
    chosen = ChosenRegions(tuple(regions), tuple(exclusions), tuple(warnings))
    return chosen.only(choice.only, where=where) if choice.only else chosen


def _refuse_twins(regions: Sequence[Region], where: str) -> None:
    """Tiles and measurements find their region by its id."""
    twins = [one for one, count in Counter(region.id for region in regions).items() if count > 1]
    if twins:
        raise BadRegion(
            f"{len(twins)} regions share their id with another one: copies, as an import makes them.",
            where=f"{where}, {', '.join(twins[:3])}",
            next_step="In QuPath, delete the copies, or give them ids (Objects, Refresh duplicate object IDs); save.",
        )


def _title(annotation: PathObject) -> str:
    return f"the annotation {annotation.name or annotation.id} ({annotation.path_class})"


def _wanted(region_classes: Sequence[str]) -> str:
    return " or ".join(region_classes) if region_classes else "Tumor or Tumour"


def _classes_there(annotations: Sequence[PathObject]) -> str:
    if not annotations:
        return "The image has no annotations."
    counts = Counter(str(a.path_class) if a.path_class else "unclassified" for a in annotations)
    return f"Its annotations are: {', '.join(f'{name} ({n})' for name, n in counts.items())}."

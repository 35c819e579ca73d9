"""Which annotations of an image are scored, and which are cut out of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from shapely.geometry.base import BaseGeometry

from her2bridge.errors import NoRegions
from her2bridge.qupath.classes import is_exclusion, is_scored_region
from her2bridge.qupath.seam import PathObject
from her2bridge.records import Region


@dataclass(frozen=True)
class RegionChoice:
    """Which annotations a run was asked to score.

    Attributes:
        region_classes: PathClasses that are scored; empty for ``Tumor``, ``Tumour`` and what derives from them.
        exclude_classes: PathClasses that are cut out, besides those whose name ends in ``*``.
        whole_slide: all tissue instead of annotations; only what is cut out is wanted of them.
    """

    region_classes: tuple[str, ...] = ()
    exclude_classes: tuple[str, ...] = ()
    whole_slide: bool = False


@dataclass(frozen=True, eq=False)
class ChosenRegions:
    """The regions to be scored, what is cut out of them, and what was passed over on the way."""

    regions: tuple[Region, ...]
    exclusions: tuple[BaseGeometry, ...]
    warnings: tuple[str, ...] = ()


def choose_regions(annotations: Sequence[PathObject], choice: RegionChoice, *, where: str) -> ChosenRegions:
    """Sort the annotations of one image.

    Raises:
        NoRegions: nothing to score; the message names the classes that are there.
    """
    regions, exclusions, warnings = [], [], []
    for annotation in annotations:
        if annotation.geometry is None:
            continue
        excluded = is_exclusion(annotation.path_class, choice.exclude_classes)
        is_scored = not choice.whole_slide and is_scored_region(annotation.path_class, choice.region_classes)
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
        raise NoRegions(
            f"There is no region to score: no annotation is classed {_wanted(choice.region_classes)}.",
            where=where,
            next_step=f"{_classes_there(annotations)} Draw a region and class it Tumor in QuPath,"
            " or name another class with --region-class, or score all tissue with --whole-slide.",
        )
    return ChosenRegions(tuple(regions), tuple(exclusions), tuple(warnings))


def _title(annotation: PathObject) -> str:
    return f"the annotation {annotation.name or annotation.id} ({annotation.path_class})"


def _wanted(region_classes: Sequence[str]) -> str:
    return " or ".join(region_classes) if region_classes else "Tumor or Tumour"


def _classes_there(annotations: Sequence[PathObject]) -> str:
    if not annotations:
        return "The image has no annotations."
    counts = Counter(str(a.path_class) if a.path_class else "unclassified" for a in annotations)
    return f"Its annotations are: {', '.join(f'{name} ({n})' for name, n in counts.items())}."

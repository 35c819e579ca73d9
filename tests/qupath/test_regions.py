"""Which annotations are scored, which are cut out, and what is said where there is nothing to score."""

from __future__ import annotations

import pytest
from shapely.geometry import box
from shapely.geometry.base import BaseGeometry

from her2bridge.errors import NoRegions
from her2bridge.qupath.regions import ChosenRegions, RegionChoice, choose_regions
from her2bridge.qupath.seam import PathClassRef, PathObject

SQUARE = box(0, 0, 10, 10)


def annotation(
    name: str,
    class_name: str | None = "Tumor",
    geometry: BaseGeometry | None = SQUARE,
    plane: tuple[int, int, int] = (-1, 0, 0),
) -> PathObject:
    path_class = PathClassRef(tuple(class_name.split(": "))) if class_name else None
    return PathObject("annotation", f"id of {name}", None, name, path_class, geometry=geometry, plane=plane)


def choose(*annotations: PathObject, **how: object) -> ChosenRegions:
    return choose_regions(annotations, RegionChoice(**how), where="slide 1")  # type: ignore[arg-type]


def names(chosen: ChosenRegions) -> list[str | None]:
    return [region.name for region in chosen.regions]


def test_regions_in_the_projects_order_and_what_is_cut_out_of_them() -> None:
    hole = box(2, 2, 3, 3)
    chosen = choose(
        annotation("b"),
        annotation("glass", "Ignore*", hole),
        annotation("stroma", "Stroma"),
        annotation("unclassified", None),
        annotation("a", "Tumor: Positive"),
    )
    assert names(chosen) == ["b", "a"]
    first, second = chosen.regions
    assert (first.id, first.class_name, second.class_name) == ("id of b", "Tumor", "Tumor: Positive")
    assert first.geometry is SQUARE
    assert chosen.exclusions == (hole,)
    assert chosen.warnings == ()


def test_other_classes_by_name() -> None:
    annotations = annotation("t"), annotation("n", "Invasive"), annotation("x", "Necrosis")
    chosen = choose(*annotations, region_classes=["invasive"], exclude_classes=["necrosis"])
    assert names(chosen) == ["n"]
    assert len(chosen.exclusions) == 1


def test_what_is_excluded_by_name_is_not_scored() -> None:
    chosen = choose(annotation("t"), annotation("p", "Tumor: Positive"), exclude_classes=["Tumor: Positive"])
    assert names(chosen) == ["t"]
    assert len(chosen.exclusions) == 1


def test_whole_slide_wants_only_the_exclusions() -> None:
    chosen = choose(annotation("t"), annotation("i", "Ignore*"), whole_slide=True)
    assert chosen.regions == ()
    assert len(chosen.exclusions) == 1
    assert choose(whole_slide=True).exclusions == ()


@pytest.mark.parametrize("class_name", ["Tumor", "Ignore*"])
def test_other_planes_are_passed_over_and_told(class_name: str) -> None:
    chosen = choose(annotation("t"), annotation("deep", class_name, plane=(-1, 2, 0)))
    assert names(chosen) == ["t"]
    assert chosen.exclusions == ()
    assert chosen.warnings == (f"the annotation deep ({class_name}) lies on plane z=2, t=0 and is passed over",)


def test_a_plane_of_one_channel_is_the_image() -> None:
    assert names(choose(annotation("t", plane=(1, 0, 0)))) == ["t"]


def test_annotations_without_an_outline_are_none() -> None:
    assert names(choose(annotation("t"), annotation("summary", geometry=None))) == ["t"]


class TestNothingToScore:
    def test_the_classes_that_are_there_are_named(self) -> None:
        with pytest.raises(NoRegions) as caught:
            choose(annotation("a", "Stroma"), annotation("b", "Stroma"), annotation("c", None))
        error = caught.value
        assert "Tumor or Tumour" in error.what
        assert error.where == "slide 1"
        assert "Stroma (2), unclassified (1)" in error.next_step
        assert "--region-class" in error.next_step

    def test_the_classes_that_were_wanted_are_named(self) -> None:
        with pytest.raises(NoRegions, match="Invasive or Front"):
            choose(annotation("a"), region_classes=["Invasive", "Front"])

    def test_no_annotations_at_all(self) -> None:
        with pytest.raises(NoRegions) as caught:
            choose()
        assert "no annotations" in caught.value.next_step

    def test_on_other_planes_only(self) -> None:
        with pytest.raises(NoRegions):
            choose(annotation("deep", plane=(-1, 1, 0)))

"""Which PathClasses are written, read back, scored and cut out."""

from __future__ import annotations

import pytest

from her2bridge.qupath.classes import GRADED_LAST_NAMES, class_of, is_exclusion, is_scored_region, path_classes
from her2bridge.qupath.seam import PathClassRef
from her2bridge.records import LEFT_OUT, TileClass


def ref(name: str | None) -> PathClassRef | None:
    return None if name is None else PathClassRef(tuple(name.split(": ")))


class TestWritten:
    def test_names_and_colours(self) -> None:
        assert [(str(one), one.rgb) for one in path_classes()] == [
            ("Negative", (112, 112, 225)),
            ("1+", (255, 255, 0)),
            ("2+", (255, 187, 62)),
            ("3+", (250, 62, 62)),
            ("Normal", (120, 190, 200)),
            ("Noise*", (150, 150, 150)),
        ]

    def test_prefix(self) -> None:
        assert [str(one) for one in path_classes("HER2")] == [f"HER2: {one}" for one in path_classes()]
        assert [one.rgb for one in path_classes("HER2")] == [one.rgb for one in path_classes()]

    @pytest.mark.parametrize("prefix", [None, "", "HER2", "AI: HER2"])
    def test_are_read_back(self, prefix: str | None) -> None:
        assert [class_of(str(one)) for one in path_classes(prefix)] == list(TileClass)

    def test_qupath_grades_the_four_of_tumour_and_no_other(self) -> None:
        written = [path_class.names[-1] in GRADED_LAST_NAMES for path_class in path_classes("HER2")]
        assert written == [tile_class.is_tumour for tile_class in TileClass]

    @pytest.mark.parametrize("name", [None, "", "Noise", "negative", "Positive", "3+ ", "Stroma", "3+: Stroma", "HER2"])
    def test_other_names_mean_no_class(self, name: str | None) -> None:
        assert class_of(name) == LEFT_OUT


class TestScored:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("Tumor", True),
            ("Tumour", True),
            ("tumor", True),
            ("TUMOUR", True),
            ("Tumor: Positive", True),
            ("Tumour: Positive: 2+", True),
            ("Tumors", False),
            ("Tumor bed", False),
            ("Other: Tumor", False),
            ("Stroma", False),
            (None, False),
        ],
    )
    def test_by_default(self, name: str | None, expected: bool) -> None:
        assert is_scored_region(ref(name), ()) is expected

    @pytest.mark.parametrize(
        ("name", "wanted", "expected"),
        [
            ("Invasive", ["Invasive"], True),
            ("Invasive", ["Other", " invasive "], True),
            ("Invasive: Core", ["Invasive"], True),
            ("Invasive: Core", ["Invasive: core"], True),
            ("Invasive", ["Invasive: Core"], False),
            ("Invasively", ["Invasive"], False),
            ("Tumor", ["Invasive"], False),
            (None, ["Invasive"], False),
        ],
    )
    def test_by_name(self, name: str | None, wanted: list[str], expected: bool) -> None:
        assert is_scored_region(ref(name), wanted) is expected


class TestCutOut:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("Ignore*", True),
            ("Necrosis*", True),
            ("Other: Ignore*", True),
            ("Region*", False),
            ("region*", False),
            ("Ignore", False),
            ("Ignore*: Tumor", False),
            ("Tumor", False),
            (None, False),
        ],
    )
    def test_by_default(self, name: str | None, expected: bool) -> None:
        assert is_exclusion(ref(name), ()) is expected

    def test_by_name(self) -> None:
        assert is_exclusion(ref("Necrosis"), ["necrosis"])
        assert is_exclusion(ref("Necrosis: Old"), ["necrosis"])
        assert is_exclusion(ref("Region*"), ["Region*"])
        assert not is_exclusion(ref("Stroma"), ["necrosis"])
        assert not is_exclusion(None, ["necrosis"])

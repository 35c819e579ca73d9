"""Which names of classes are labels, and what mapping files say."""

from __future__ import annotations

from pathlib import Path

import pytest

from her2bridge.errors import UsageError
from her2bridge.qupath.label_classes import LabelClasses, Use, read_mapping
from her2bridge.qupath.seam import PathClassRef
from her2bridge.records import LEFT_OUT, TileClass

PLAIN = LabelClasses()


def ref(name: str) -> PathClassRef:
    return PathClassRef(tuple(name.split(": ")))


@pytest.mark.parametrize(
    ("name", "label"),
    [
        *(("0", "0"), ("HER2 0", "0"), ("tumour: 0", "0")),
        *(("1+", "1+"), ("Tumor: 1+", "1+"), ("TUMOR 1 +", "1+"), ("label 1+", "1+")),
        *(("HER2 2+", "2+"), ("HER2: 2+", "2+"), ("her-2/neu  2+", "2+"), ("HER2_2+", "2+")),
        *(("Score 3+", "3+"), ("IHC: Score: 3+", "3+"), (" 3+ ", "3+")),
        *(("Normal", "normal"), ("normal tissue", "normal"), ("HER2: Normal", "normal")),
        *(("Noise", "noise"), ("Noise*", "noise"), ("NOISE *", "noise"), ("HER2: Noise*", "noise")),
    ],
)
def test_names_of_labels(name: str, label: str) -> None:
    use = PLAIN.use_of(ref(name))
    assert use.tile_class is not None
    assert (use.use, use.tile_class.label, use.becomes) == (Use.LABEL, label, label)


@pytest.mark.parametrize(
    ("name", "use"),
    [
        *((name, Use.UNKNOWN) for name in ("Stroma", "4+", "10+", "2", "0+", "Abnormal", "Noisemaker", "3++", "1+2+")),
        *((name, Use.NOT_USED) for name in ("Tumor", "Tumour: Positive", "Region*", "Negative", "Tumor: Negative")),
        *((name, Use.CUT_OUT) for name in ("Ignore*", "Necrosis*")),
    ],
)
def test_names_of_others(name: str, use: Use) -> None:
    found = PLAIN.use_of(ref(name))
    assert (found.use, found.tile_class) == (use, None)
    assert found.reason


@pytest.mark.parametrize("name", ["Tumor: 2", "Tumor: Positive", "HER2: 3"])
def test_what_looks_like_a_label_and_is_none_is_told(name: str) -> None:
    found = PLAIN.use_of(ref(name))
    assert found.is_open
    assert "looks like a label" in found.reason
    assert not PLAIN.use_of(ref("Tumor")).is_open


def test_no_class_is_told_too() -> None:
    found = PLAIN.use_of(None)
    assert (found.name, found.use) == ("unclassified", Use.UNKNOWN)


def test_negative_is_zero_only_if_somebody_says_so() -> None:
    assert "--negative-is-zero" in PLAIN.use_of(ref("Negative")).reason
    for classes in (LabelClasses(negative_is_zero=True), LabelClasses({"negative": TileClass.ZERO})):
        assert classes.use_of(ref("Negative")).tile_class is TileClass.ZERO
    assert LabelClasses(negative_is_zero=True).use_of(ref("HER2: Negative")).tile_class is TileClass.ZERO
    assert LabelClasses({"Negative": None}, negative_is_zero=True).use_of(ref("Negative")).use is Use.NOT_USED


def test_a_mapping_counts_before_all_else() -> None:
    classes = LabelClasses({"tumor:stroma": TileClass.NORMAL, "Ignore*": TileClass.NOISE, "3+": None})
    assert classes.use_of(ref("Tumor: Stroma")).tile_class is TileClass.NORMAL
    assert classes.use_of(ref("Ignore*")).tile_class is TileClass.NOISE
    assert classes.use_of(ref("3+")).use is Use.NOT_USED
    assert classes.use_of(ref("3+")).becomes == "not used (as the mapping file says)"
    assert LabelClasses({"unclassified": TileClass.ONE}).use_of(None).tile_class is TileClass.ONE


def test_classes_of_corrected_tiles() -> None:
    classes = LabelClasses({"Stroma": TileClass.NORMAL, "Negative": None})
    names = ("Negative", "HER2: Negative", "3+", "Noise*", "Stroma", "Score 2+", "Tumor", None)
    assert [classes.tile_class_of(name) for name in names] == [0, 0, 3, 5, 4, 2, LEFT_OUT, LEFT_OUT]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.toml", '"Negative" = "0"\n"Stroma" = "Normal"\n"Other" = "ignore"\n'),
        ("map.json", '{"Negative": "0", "Stroma": " normal", "Other": "Ignore"}'),
    ],
)
def test_mapping_files(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert read_mapping(path) == {"Negative": TileClass.ZERO, "Stroma": TileClass.NORMAL, "Other": None}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("map.toml", '"Negative" = "4+"', "'4+', which is none"),
        ("map.toml", '"Negative" = 0', "the label 0, which is none"),
        ("map.toml", "Negative: 0", "not TOML or JSON"),
        ("map.json", "[1]", "names no classes"),
        ("map.json", "{", "not TOML or JSON"),
        ("map.toml", '"Stroma" = "0"\n"stroma " = "1+"', "twice"),
    ],
)
def test_mapping_files_that_are_none(tmp_path: Path, name: str, text: str, told: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UsageError, match=told.replace("+", r"\+")):
        read_mapping(path)


def test_a_mapping_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_mapping(tmp_path / "nowhere.toml")

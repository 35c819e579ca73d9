"""QuPath's GeoJSON: exports of real QuPaths, tiles there and back, and every way in which a file can be wrong."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import math
import struct
import tempfile
import uuid
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiPoint, Polygon, box, shape

from her2bridge.errors import BadRegion, Her2BridgeError, UsageError, WriteFailed
from her2bridge.qupath.geojson import read_regions, read_tiles, write_tiles
from her2bridge.qupath.seam import NewTiles, PathClassRef, PathObject

EXPORTS = sorted((Path(__file__).parents[1] / "fixtures").rglob("expected/*.geojson"))
PARENT, TILE_1, TILE_2 = (f"00000000-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))
SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 9], [0, 0]]]}
INNER = {"type": "Polygon", "coordinates": [[[5, 5], [20, 5], [20, 20], [5, 20], [5, 5]]]}
LINE = {"type": "LineString", "coordinates": [[0, 0], [5, 5.5]]}


def feature(geometry: Any = SQUARE, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "id": PARENT, "geometry": geometry, "properties": properties}


def collection(*features: Any) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}


def regions_of(content: Any, folder: Path) -> list[PathObject]:
    path = folder / "regions.geojson"
    path.write_text(json.dumps(content))
    return read_regions(path)


def region_of(content: Any, folder: Path) -> PathObject:
    (region,) = regions_of(content, folder)
    return region


def two_tiles(**changes: Any) -> NewTiles:
    """One of a derived class below an annotation, one unclassified below the root."""
    columns: dict[str, Any] = {
        "origins": np.array([[0.0, 264.4628099173554], [528.9256198347108, 0.1]]),
        "side": 264.4628099173554,
        "parents": np.array([1, 0]),
        "parent_ids": [None, PARENT],
        "classes": np.array([0, -1]),
        "path_classes": [PathClassRef(("HER2", "3+"), (250, 62, 62))],
        "measurement_names": ["HER2: p(3+)", "µ"],
        "measurements": np.array([[0.1, 0.75], [np.nan, -np.inf]], dtype=np.float32),
        "mark": "0123456789ab",
        "ids": [TILE_1, TILE_2],
    }
    return NewTiles(**{**columns, **changes})


def rows_of(groups: list[NewTiles]) -> list[tuple[Any, ...]]:
    """What each tile is, whatever the order and the numbers inside its group; floats by their bits."""
    rows = []
    for group in groups:
        classes = [*group.path_classes, None]
        for row in range(len(group)):
            bits = struct.pack("<3d", *group.origins[row], group.side)
            values = dict(
                zip(group.measurement_names, group.measurements[row].tobytes().hex(" ", 4).split(), strict=True)
            )
            parent = group.parent_ids[group.parents[row]]
            rows.append((group.ids[row], bits, group.mark, parent, classes[group.classes[row]], values))
    return sorted(rows, key=lambda row: row[0])


class TestTiles:
    def test_what_qupath_reads(self, tmp_path: Path) -> None:
        write_tiles(tmp_path / "tiles.geojson", [two_tiles(side=0.5)])
        first, second = json.loads((tmp_path / "tiles.geojson").read_bytes())["features"]
        x, y = 0.0, 264.4628099173554
        assert first == {
            "type": "Feature",
            "id": TILE_1,
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[x, y], [x + 0.5, y], [x + 0.5, y + 0.5], [x, y + 0.5], [x, y]]],
            },
            "parent": PARENT,
            "run": "0123456789ab",
            "side": 0.5,
            "properties": {
                "objectType": "tile",
                "classification": {"names": ["HER2", "3+"], "color": [250, 62, 62]},
                "measurements": {"HER2: p(3+)": 0.10000000149011612, "µ": 0.75},
            },
        }
        assert second["parent"] is None
        assert second["properties"] == {"objectType": "tile", "measurements": {"HER2: p(3+)": "NaN", "µ": "-Infinity"}}

    def test_a_ring_is_a_rectangle_to_the_last_bit(self, tmp_path: Path) -> None:
        """Only then does QuPath make a rectangle of it (JTS ``Polygon.isRectangle``)."""
        write_tiles(tmp_path / "tiles.geojson", [two_tiles()])
        for one in json.loads((tmp_path / "tiles.geojson").read_bytes())["features"]:
            (ring,) = one["geometry"]["coordinates"]
            assert ring[0] == ring[-1]
            assert [len(set(axis)) for axis in zip(*ring, strict=True)] == [2, 2]
            assert all((ax == bx) != (ay == by) for (ax, ay), (bx, by) in itertools.pairwise(ring))

    @pytest.mark.parametrize(
        ("path_class", "written"),
        [
            (PathClassRef(("3+",), (1, 2, 3)), {"name": "3+", "color": [1, 2, 3]}),
            (PathClassRef(("3+",)), {"name": "3+", "color": None}),
            (PathClassRef(("A", "B", "3+"), (0, 0, 0)), {"names": ["A", "B", "3+"], "color": [0, 0, 0]}),
            (PathClassRef(("A: B", "3+"), (0, 0, 0)), {"names": ["A", "B", "3+"], "color": [0, 0, 0]}),
        ],
    )
    def test_classes(self, path_class: PathClassRef, written: dict[str, Any], tmp_path: Path) -> None:
        write_tiles(tmp_path / "t.geojson", [two_tiles(path_classes=[path_class])])
        first, _ = json.loads((tmp_path / "t.geojson").read_bytes())["features"]
        assert first["properties"]["classification"] == written
        (group,) = read_tiles(tmp_path / "t.geojson")
        assert group.class_names() == [str(path_class), None]
        assert group.path_classes[0].rgb == path_class.rgb

    def test_groups_of_one_side_mark_and_names(self, tmp_path: Path) -> None:
        written = [
            two_tiles(),
            two_tiles(mark="cba987654321", ids=["a", "b"]),
            two_tiles(side=264.46280991735547, ids=["c", "d"]),
            two_tiles(measurement_names=[], measurements=np.empty((2, 0), dtype=np.float32), ids=["e", "f"]),
            two_tiles(ids=["g", "h"], path_classes=[PathClassRef(("Stroma",))], parent_ids=[None, None]),
            two_tiles(
                origins=np.empty((0, 2)),
                parents=np.empty(0, dtype=np.int64),
                classes=np.empty(0, dtype=np.int64),
                measurements=np.empty((0, 2), dtype=np.float32),
                ids=[],
            ),
        ]
        write_tiles(tmp_path / "t.geojson.gz", written)
        read = read_tiles(tmp_path / "t.geojson.gz")
        assert rows_of(read) == rows_of(written)
        assert [list(group.ids) for group in read] == [[TILE_1, TILE_2, "g", "h"], ["a", "b"], ["c", "d"], ["e", "f"]]

    def test_texts_of_any_kind(self, tmp_path: Path) -> None:
        """Ids, marks, parents and names of measurements are put between the other pieces as they are."""
        names = ['50 % "of all"', "%s{0}\\"]
        written = [two_tiles(measurement_names=names, ids=['"', "%d\n"], mark="{}%", parent_ids=['a"', None])]
        write_tiles(tmp_path / "t.geojson", written)
        assert rows_of(read_tiles(tmp_path / "t.geojson")) == rows_of(written)

    def test_a_zero_keeps_its_sign(self, tmp_path: Path) -> None:
        written = [two_tiles(origins=np.array([[0.0, -0.0], [-0.0, 0.0]]))]
        write_tiles(tmp_path / "t.geojson", written)
        assert rows_of(read_tiles(tmp_path / "t.geojson")) == rows_of(written)

    def test_no_tiles(self, tmp_path: Path) -> None:
        write_tiles(tmp_path / "t.geojson", [])
        assert read_tiles(tmp_path / "t.geojson") == []

    def test_equal_tiles_give_equal_bytes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_tiles(tmp_path / "new" / "a.geojson.gz", [two_tiles()])
        monkeypatch.setattr("time.time", lambda: 0.0)
        write_tiles(tmp_path / "b.GEOJSON.GZ", [two_tiles()])
        write_tiles(tmp_path / "c.geojson", [two_tiles()])
        packed = (tmp_path / "new" / "a.geojson.gz").read_bytes()
        assert packed == (tmp_path / "b.GEOJSON.GZ").read_bytes()
        assert gzip.decompress(packed) == (tmp_path / "c.geojson").read_bytes()

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(WriteFailed):
            write_tiles(tmp_path / "file" / "t.geojson", [two_tiles()])

    def test_tiles_without_a_place_are_not_written(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no finite place"):
            write_tiles(tmp_path / "t.geojson", [two_tiles(side=math.nan)])
        assert not list(tmp_path.iterdir())


FLOATS = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e7, max_value=1e7)
NAMES = st.text(st.characters(exclude_categories=("Cs", "Z", "Cc"), exclude_characters=":"), min_size=1, max_size=8)
COLOURS = st.none() | st.tuples(*3 * [st.integers(0, 255)])
CLASSES = st.builds(PathClassRef, st.lists(NAMES, min_size=1, max_size=3).map(tuple), COLOURS)


@st.composite
def groups(draw: st.DrawFn) -> NewTiles:
    count = draw(st.integers(0, 5))
    names = draw(st.lists(st.text(st.characters(exclude_categories=("Cs",))), max_size=3, unique=True))
    classes = draw(st.lists(CLASSES, max_size=3))
    parents = draw(st.lists(st.none() | st.uuids().map(str), min_size=1, max_size=3))

    def numbers(low: int, high: int) -> Any:
        return np.array(draw(st.lists(st.integers(low, high), min_size=count, max_size=count)), dtype=np.int64)

    def floats(width: int, strategy: st.SearchStrategy[float]) -> list[list[float]]:
        row = st.lists(strategy, min_size=width, max_size=width)
        return draw(st.lists(row, min_size=count, max_size=count))

    return NewTiles(
        origins=np.array(floats(2, FLOATS), dtype=np.float64).reshape(count, 2),
        side=draw(st.floats(1e-3, 1e5)),
        parents=numbers(0, len(parents) - 1),
        parent_ids=parents,
        classes=numbers(-1, len(classes) - 1),
        path_classes=classes,
        measurement_names=names,
        measurements=np.array(floats(len(names), st.floats(width=32)), dtype=np.float32).reshape(count, len(names)),
        mark=draw(st.text("0123456789abcdef", min_size=12, max_size=12)),
        ids=[str(draw(st.uuids())) for _ in range(count)],
    )


@given(st.lists(groups(), max_size=3), st.sampled_from(["t.geojson", "t.geojson.gz"]))
def test_tiles_come_back_to_the_bit(written: list[NewTiles], name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_tiles(Path(folder) / name, written)
        read = read_tiles(Path(folder) / name)
    without_nan_payloads = [
        NewTiles(
            **{**vars(one), "measurements": np.where(np.isnan(one.measurements), np.float32("nan"), one.measurements)}
        )
        for one in written
    ]
    assert rows_of(read) == rows_of(without_nan_payloads)
    kinds = [(group.side, group.mark, tuple(group.measurement_names)) for group in read]
    assert len(set(kinds)) == len(kinds)


class TestDamagedTiles:
    """``side_files`` translates OSError, ValueError, KeyError and TypeError; nothing else may come out."""

    @staticmethod
    def written(folder: Path, name: str = "t.geojson") -> tuple[Path, bytes]:
        write_tiles(folder / name, [two_tiles()])
        return folder / name, (folder / name).read_bytes()

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            read_tiles(tmp_path / "t.geojson.gz")

    @pytest.mark.parametrize("length", [0, 2, 5, 11, 40, -9, -4, -1])
    def test_truncated_gzip(self, tmp_path: Path, length: int) -> None:
        path, data = self.written(tmp_path, "t.geojson.gz")
        path.write_bytes(data[:length])
        with pytest.raises(ValueError):  # noqa: PT011  # of several kinds
            read_tiles(path)

    @pytest.mark.parametrize("place", [*range(10, 60, 7), -6])
    def test_a_flipped_byte(self, tmp_path: Path, place: int) -> None:
        path, data = self.written(tmp_path, "t.geojson.gz")
        changed = bytearray(data)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        with pytest.raises(ValueError):  # noqa: PT011  # of several kinds
            read_tiles(path)

    @pytest.mark.parametrize(
        "content",
        [
            5,
            [],
            {},
            collection("feature"),
            collection(feature()),
            {"type": "FeatureCollection", "features": {}},
            {"type": "FeatureCollection", "features": "none"},
        ],
        ids=str,
    )
    def test_not_ours(self, tmp_path: Path, content: Any) -> None:
        path = tmp_path / "t.geojson"
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match="no tiles of her2bridge's"):
            read_tiles(path)

    @pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe\xff", b"[" * 100_000])
    def test_no_json(self, tmp_path: Path, text: bytes) -> None:
        path = tmp_path / "t.geojson"
        path.write_bytes(text)
        with pytest.raises(ValueError):  # noqa: PT011  # of several kinds
            read_tiles(path)

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b'"side":264.4628099173554', b'"side":"wide"'),
            (b'"side":264.4628099173554', b'"side":' + b"9" * 400),
            (b'"run":"0123456789ab"', b'"run":["0123456789ab"]'),
            (b'"parent":null,', b""),
            (b'"coordinates":[[[', b'"coordinates":[[["a"],['),
            (b'"coordinates":[[[0.0,264.4628099173554]', b'"coordinates":[[[0.0]'),
            (b'"coordinates":[[[', b'"coordinates":[[[7.0,'),
            (b'"coordinates":', b'"corners":'),
            (b'"HER2: p(3+)":"NaN"', b'"HER2: p(3+)":"none"'),
            (b'"HER2: p(3+)":"NaN"', b'"HER2: p(3+)":{}'),
            (b'"color":[250,62,62]', b'"color":[250]'),
            (b'"names":["HER2","3+"],', b""),
            (b'"classification":{', b'"classification":7,"was":{'),
        ],
    )
    def test_wrong_values(self, tmp_path: Path, old: bytes, new: bytes) -> None:
        path, data = self.written(tmp_path)
        assert old in data
        path.write_bytes(data.replace(old, new))
        with pytest.raises(ValueError, match="no tiles of her2bridge's"):
            read_tiles(path)


def test_exports_are_there() -> None:
    assert len(EXPORTS) == 19


@pytest.mark.parametrize("path", EXPORTS, ids=lambda path: "-".join(path.parts[-4:]))
def test_equals_qupaths_own_export(path: Path) -> None:
    features = [
        one for one in json.loads(path.read_bytes())["features"] if one["properties"]["objectType"] == "annotation"
    ]
    regions = read_regions(path)
    assert [one.id for one in regions] == [one["id"] for one in features]
    for region, exported in zip(regions, features, strict=True):
        properties, geometry = exported["properties"], exported["geometry"]
        assert (region.kind, region.parent_id, region.nucleus) == ("annotation", None, None)
        assert region.name == properties.get("name")
        assert region.locked == properties.get("isLocked", False)
        assert region.rgb == (tuple(properties["color"]) if "color" in properties else None)
        assert region.measurements == properties.get("measurements", {})
        described = {} if region.description is None else {"ANNOTATION_DESCRIPTION": region.description}
        assert {**region.metadata, **described} == properties.get("metadata", {})
        if "classification" in properties:
            assert region.path_class is not None
            classification = properties["classification"]
            assert list(region.path_class.names) == classification.get("names", [classification.get("name")])
            assert region.path_class.rgb == tuple(classification["color"])
        else:
            assert region.path_class is None
        assert region.is_ellipse == geometry.get("isEllipse", False)
        assert region.plane == tuple(geometry.get("plane", {"c": -1, "z": 0, "t": 0}).values())
        assert region.geometry is not None
        assert region.geometry.equals_exact(shape(geometry))


def test_exports_hold_what_matters() -> None:
    """Else the test above would say little."""
    regions = [region for path in EXPORTS for region in read_regions(path)]
    kinds = {region.geometry.geom_type for region in regions if region.geometry is not None}
    assert kinds == {"Polygon", "MultiPolygon", "LineString", "MultiPoint"}
    assert {region.locked for region in regions} == {region.is_ellipse for region in regions} == {False, True}
    assert any(region.description for region in regions)
    assert any(region.measurements for region in regions)
    assert any(region.rgb for region in regions)
    assert {"Tumor", "Ignore*", "1+", "None"} <= {str(region.path_class) for region in regions}


class TestForms:
    @pytest.mark.parametrize(
        ("content", "count"),
        [
            (collection(), 0),
            ([], 0),
            (collection(feature(), feature()), 2),
            ([feature(), feature(LINE)], 2),
            ([collection(feature()), [feature()], SQUARE], 3),
            (feature(), 1),
            (SQUARE, 1),
            ({"type": "GeometryCollection", "geometries": [SQUARE]}, 1),
        ],
    )
    def test_documents(self, tmp_path: Path, content: Any, count: int) -> None:
        assert len(regions_of(content, tmp_path)) == count

    @pytest.mark.parametrize("name", ["r.json", "R.GEOJSON", "r.geojson.gz", "without", "r.geojson"])
    @pytest.mark.parametrize("packed", [False, True])
    def test_files(self, tmp_path: Path, name: str, packed: bool) -> None:
        text = json.dumps(collection(feature(name="Größe"))).encode("utf-8-sig")
        (tmp_path / name).write_bytes(gzip.compress(text) if packed else text)
        assert [region.name for region in read_regions(tmp_path / name)] == ["Größe"]

    def test_zip(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "r.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("folder/a.geojson", json.dumps(collection(feature(name="a"))))
            archive.writestr("b.JSON", json.dumps([feature(name="b")]))
            archive.writestr("c.geojson.gz", gzip.compress(json.dumps(feature(name="c")).encode()))
            archive.writestr("__MACOSX/folder/._a.geojson", b"\0\5\x16\7")
            archive.writestr("readme.txt", b"no JSON")
        assert [region.name for region in read_regions(tmp_path / "r.zip")] == ["a", "b", "c"]

    @pytest.mark.parametrize("kind", ["detection", "tile", "cell", "tmaCore", "tma_core", "root", "PathCellObject"])
    def test_other_kinds_are_left_out(self, tmp_path: Path, kind: str) -> None:
        others = [feature({"type": "nothing"}, **{key: kind}) for key in ("objectType", "object_type", "type")]
        assert [one.name for one in regions_of(collection(*others, feature(name="here")), tmp_path)] == ["here"]

    @pytest.mark.parametrize(
        "properties",
        [
            None,
            {},
            {"objectType": "annotation"},
            {"object_type": "annotation"},
            {"type": "annotation"},
            {"type": "tree"},
        ],
    )
    def test_annotations(self, tmp_path: Path, properties: Any) -> None:
        region = region_of({**feature(), "properties": properties}, tmp_path)
        assert (region.kind, region.id) == ("annotation", PARENT)

    def test_our_own_tiles_are_no_regions(self, tmp_path: Path) -> None:
        write_tiles(tmp_path / "t.geojson.gz", [two_tiles()])
        assert read_regions(tmp_path / "t.geojson.gz") == []

    def test_nested(self, tmp_path: Path) -> None:
        """As ``FeatureCollection.wrap(objects, true)`` writes."""
        inner = {**feature(name="inner"), "id": TILE_1}
        cell = {**feature(objectType="cell", children=[{**feature(name="below a cell"), "id": TILE_2}])}
        outer = feature(name="outer", childObjects=[inner, cell])
        found = [(one.name, one.id, one.parent_id) for one in regions_of(outer, tmp_path)]
        assert found == [("outer", PARENT, None), ("inner", TILE_1, PARENT), ("below a cell", TILE_2, PARENT)]


class TestIds:
    def test_without_one(self, tmp_path: Path) -> None:
        """Always the same one, another for each region; QuPath 0.2 wrote the kind there."""
        bare = {key: value for key, value in feature().items() if key != "id"}
        old = {**bare, "id": "PathAnnotationObject"}
        content = [bare, bare, {**bare, "id": None}, old, SQUARE, feature(childObjects=[bare, bare])]
        ids = [region.id for region in regions_of(content, tmp_path)]
        assert ids == [region.id for region in regions_of(content, tmp_path)]
        assert len(set(ids)) == len(ids) == 8
        assert all(str(uuid.UUID(one)) == one for one in ids)

    def test_a_kind_as_id(self, tmp_path: Path) -> None:
        assert regions_of({**feature(), "id": "PathDetectionObject"}, tmp_path) == []

    @pytest.mark.parametrize(("given_id", "id_"), [("region 7", "region 7"), (7, "7"), (0, "0")])
    def test_no_uuid(self, tmp_path: Path, given_id: Any, id_: str) -> None:
        assert region_of({**feature(), "id": given_id}, tmp_path).id == id_


RED = (200, 0, 0)
PACKED = -3670016  # 0xFFC80000 as Java's int


class TestProperties:
    @pytest.mark.parametrize(
        ("classification", "names", "rgb"),
        [
            ("Tumor", ("Tumor",), None),
            ("Tumor: Positive", ("Tumor", "Positive"), None),
            ("Tumor:Positive:", ("Tumor", "Positive"), None),
            ({"name": "Tumor", "color": [200, 0, 0]}, ("Tumor",), RED),
            ({"name": "Tumor: Positive ", "color": [200, 0, 0]}, ("Tumor", "Positive"), RED),
            ({"names": ["Tumor", "Positive"], "color": [200, 0, 0, 128]}, ("Tumor", "Positive"), RED),
            ({"names": ["Tumor"], "color": PACKED}, ("Tumor",), RED),
            ({"name": "Tumor", "color": []}, ("Tumor",), None),
            ({"name": "Tumor"}, ("Tumor",), None),
            ({"name": "Tumor", "colorRGB": PACKED}, ("Tumor",), RED),
            (
                {"parentClass": {"name": "Tumor", "colorRGB": 1}, "name": "Positive", "colorRGB": PACKED},
                ("Tumor", "Positive"),
                RED,
            ),
        ],
    )
    def test_classes(
        self, tmp_path: Path, classification: Any, names: tuple[str, ...], rgb: tuple[int, int, int] | None
    ) -> None:
        assert region_of(feature(classification=classification), tmp_path).path_class == PathClassRef(names, rgb)

    @pytest.mark.parametrize("classification", [None, {}, "", ":", {"names": [], "color": [1, 2, 3]}])
    def test_no_class(self, tmp_path: Path, classification: Any) -> None:
        assert region_of(feature(classification=classification), tmp_path).path_class is None

    def test_measurements(self, tmp_path: Path) -> None:
        values = {"a": 1, "b": "NaN", "c": "-Infinity", "d": math.inf, "e": None}
        region = region_of(feature(measurements=values), tmp_path)
        assert math.isnan(region.measurements["b"])
        assert {**region.measurements, "b": 0.0} == {"a": 1.0, "b": 0.0, "c": -math.inf, "d": math.inf}
        pairs = [{"name": "a", "value": 1.5}, {"name": "b", "value": 2}]  # before 0.4
        assert region_of(feature(measurements=pairs), tmp_path).measurements == {"a": 1.5, "b": 2.0}

    def test_the_rest(self, tmp_path: Path) -> None:
        geometry = {**SQUARE, "plane": {"c": 1, "z": 2, "t": 3}, "isEllipse": True}
        metadata = {"k": "v", "n": 5, "x": None, "ANNOTATION_DESCRIPTION": "why"}
        region = region_of(feature(geometry, name=7, color=PACKED, isLocked=True, metadata=metadata), tmp_path)
        assert (region.name, region.rgb, region.plane) == ("7", RED, (1, 2, 3))
        assert (region.locked, region.is_ellipse, region.description) == (True, True, "why")
        assert region.metadata == {"k": "v", "n": "5"}
        bare = region_of(
            feature({**SQUARE, "plane": {"z": 4}, "isEllipse": False}, name=None, isLocked=False), tmp_path
        )
        assert (bare.name, bare.rgb, bare.plane) == (None, None, (-1, 4, 0))
        assert (bare.locked, bare.is_ellipse, bare.description) == (False, False, None)


class TestGeometries:
    def test_floats_are_kept(self, tmp_path: Path) -> None:
        corner = [264.4628099173554, 1e-9]
        geometry = {"type": "Polygon", "coordinates": [[corner, [300.5, 0.125], [300, 9], corner]]}
        region = region_of(feature(geometry), tmp_path)
        assert region.geometry is not None
        assert region.geometry.equals_exact(Polygon([corner, [300.5, 0.125], [300, 9]]))

    def test_heights_are_dropped(self, tmp_path: Path) -> None:
        geometry = {"type": "Polygon", "coordinates": [[[0, 0, 1], [9, 0, 2], [9, 9, 3], [0, 0, 1]]]}
        region = region_of(geometry, tmp_path)
        assert region.geometry is not None
        assert not region.geometry.has_z

    @pytest.mark.parametrize("geometry", [None, {}])
    def test_none_at_all(self, tmp_path: Path, geometry: Any) -> None:
        """An annotation without a ROI, which QuPath writes as {}."""
        assert region_of(feature(geometry), tmp_path).geometry is None

    def test_an_outline_that_crosses_itself_is_left_to_the_tiling(self, tmp_path: Path) -> None:
        bow = {"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [9, 0], [0, 9], [0, 0]]]}
        region = region_of(bow, tmp_path)
        assert region.geometry is not None
        assert not region.geometry.is_valid

    @pytest.mark.parametrize(
        ("parts", "expected"),
        [
            ([LINE, SQUARE, {"type": "Point", "coordinates": [1, 1]}], box(0, 0, 9, 9)),
            ([SQUARE, INNER], box(0, 0, 9, 9).union(box(5, 5, 20, 20))),
            ([{"type": "GeometryCollection", "geometries": [SQUARE, LINE]}], box(0, 0, 9, 9)),
            ([LINE, {"type": "Point", "coordinates": [1, 1]}], LineString([(0, 0), (5, 5.5)])),
            ([{"type": "MultiPoint", "coordinates": [[1, 1], [2, 2]]}], MultiPoint([(1, 1), (2, 2)])),
        ],
    )
    def test_collections(self, tmp_path: Path, parts: list[Any], expected: Any) -> None:
        region = region_of(feature({"type": "GeometryCollection", "geometries": parts}), tmp_path)
        assert region.geometry is not None
        assert region.geometry.geom_type == expected.geom_type
        assert region.geometry.equals(expected)


def has_three_parts(error: Her2BridgeError, path: Path) -> bool:
    return bool(error.what.endswith(".") and str(path) in error.where and error.next_step.endswith("."))


class TestErrors:
    def test_missing(self, tmp_path: Path) -> None:
        for path in (tmp_path / "regions.geojson", tmp_path):
            with pytest.raises(UsageError, match="cannot be read") as caught:
                read_regions(path)
            assert has_three_parts(caught.value, path)

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "Expecting value"),
            (b"{", "Expecting property name"),
            (b"\xff\xd8\xff", "decode"),
            (b"[" * 100_000, "recursion"),
            (b"5", "neither Feature nor geometry: 5"),
            (b'{"type": "Topology"}', "neither Feature nor geometry"),
            (b'{"type": ["Feature"]}', "unhashable"),
            (b'{"type": "FeatureCollection"}', "features is missing"),
            (b'{"type": "FeatureCollection", "features": {}}', "features is no list"),
            (b'{"type": "FeatureCollection", "features": [null]}', "neither Feature nor geometry: None"),
            (gzip.compress(b"{}", mtime=0)[:-3], "damaged gzip"),
            (gzip.compress(b"{}", mtime=0)[:-8] + bytes(8), "damaged gzip"),
            (gzip.compress(b"{}", mtime=0)[:10] + b"\xff\xff\xff", "damaged gzip"),
            (b"PK\x03\x04 and no more", "zip"),
        ],
        ids=lambda value: str(value)[:30],
    )
    def test_no_geojson(self, tmp_path: Path, data: bytes, reason: str) -> None:
        path = tmp_path / "regions.geojson"
        path.write_bytes(data)
        with pytest.raises(UsageError, match=reason) as caught:
            read_regions(path)
        assert has_three_parts(caught.value, path)

    def test_a_zip_without_any(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
            archive.writestr("image.png", b"")
        with pytest.raises(UsageError, match=r"without \.geojson"):
            read_regions(tmp_path / "r.zip")

    @pytest.mark.parametrize(("place", "value"), [(6, 1), (30, 0x41)], ids=["locked", "another name"])
    def test_a_zip_that_cannot_be_read(self, tmp_path: Path, place: int, value: int) -> None:
        with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
            archive.writestr("r.geojson", json.dumps(feature()))
        data = bytearray((tmp_path / "r.zip").read_bytes())
        data[place] = value
        if place == 6:
            data[data.index(b"PK\x01\x02") + 8] = value  # encrypted, says the directory too
        (tmp_path / "r.zip").write_bytes(data)
        with pytest.raises(UsageError, match="a zip file that cannot be read"):
            read_regions(tmp_path / "r.zip")

    @pytest.mark.parametrize(
        ("geometry", "reason"),
        [
            ({"type": "Polygon"}, "no coordinates"),
            ({"type": "Polygon", "coordinates": []}, "no coordinates"),
            ({"type": "MultiPolygon", "coordinates": [[]]}, "no coordinates"),
            ({"type": "GeometryCollection", "geometries": []}, "no coordinates"),
            ({"type": "GeometryCollection"}, "geometries is missing"),
            ({"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, math.nan], [0, 0]]]}, "no finite number"),
            ({"type": "Polygon", "coordinates": [[[math.nan, 0], [9, 0], [9, 9], [math.nan, 0]]]}, "no finite number"),
            ({"type": "Point", "coordinates": [math.inf, 0]}, "no finite number"),
            ({"type": "Point", "coordinates": [10**400, 0]}, "too large"),
            ({"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [0, 0]]]}, "at least 4 positions"),
            ({"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 9]]]}, "end where it started"),
            ({"type": "MultiPolygon", "coordinates": [[[[0, 0], [9, 0], [9, 9], [0, 9]]]]}, "end where it started"),
            ({"type": "LineString", "coordinates": [[0, 0]]}, "two or more positions"),
            ({"type": "Point", "coordinates": [1]}, "exactly 2 or 3"),
            ({"type": "Polygon", "coordinates": [[["0", 0], [9, 0], [9, 9], ["0", 0]]]}, "not a JSON compliant number"),
            ({"type": "Polygon", "coordinates": [1, 2]}, "must be a list"),
            ({"type": "Polygon", "coordinates": [[1, 2, 3, 1]]}, "cannot be read"),
            ({"type": "Polygon", "coordinates": 5}, "cannot be read"),
            ({"type": "Polygon", "coordinates": [[[[0]], [[1]], [[2]], [[0]]]]}, "cannot be read"),
            ({"type": "Circle", "coordinates": [1, 2]}, "Circle is no kind of geometry"),
            ({"coordinates": [1, 2]}, "None is no kind of geometry"),
            ({**SQUARE, "plane": {"z": "up"}}, "invalid literal"),
            ("POLYGON", "cannot be read"),
            ([1, 2], "cannot be read"),
        ],
    )
    def test_geometries(self, tmp_path: Path, geometry: Any, reason: str) -> None:
        with pytest.raises(BadRegion, match=reason) as caught:
            regions_of(collection(feature(), feature(geometry, name="the bad one")), tmp_path)
        assert has_three_parts(caught.value, tmp_path / "regions.geojson")
        assert caught.value.where.endswith("feature 2 (the bad one)")

    @pytest.mark.parametrize(
        "properties",
        [
            {"classification": 5},
            {"classification": {"color": [1, 2, 3]}},
            {"classification": {"name": 5, "color": [1, 2, 3]}},
            {"classification": {"name": "Tumor", "color": [1, 2]}},
            {"color": "red"},
            {"measurements": {"a": "much"}},
            {"measurements": [1]},
            {"metadata": [1]},
            {"childObjects": [5]},
            {"objectType": ["annotation"]},
        ],
        ids=str,
    )
    def test_properties(self, tmp_path: Path, properties: dict[str, Any]) -> None:
        with pytest.raises(BadRegion, match="A region cannot be read") as caught:
            regions_of(feature(**properties), tmp_path)
        assert caught.value.where.endswith(f"feature 1 ({PARENT})")


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["type", "x", "name"]), inner, max_size=2)
    ),
    max_leaves=8,
)
KEYS = ["objectType", "name", "classification", "color", "measurements", "metadata", "isLocked", "childObjects"]
ALMOST = st.fixed_dictionaries(
    {"type": st.just("Feature")},
    optional={
        "id": JUNK,
        "geometry": JUNK
        | st.fixed_dictionaries(
            {"type": st.sampled_from(["Polygon", "MultiPolygon", "LineString", "Point", "GeometryCollection"])},
            optional={"coordinates": JUNK, "geometries": st.lists(JUNK, max_size=2), "plane": JUNK},
        ),
        "properties": JUNK | st.dictionaries(st.sampled_from(KEYS), JUNK, max_size=3),
    },
)


@given(JUNK | st.lists(ALMOST, max_size=3))
def test_junk_is_refused_in_our_own_words(content: Any) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(BadRegion, UsageError):
        assert all(isinstance(region.id, str) for region in regions_of(content, Path(folder)))

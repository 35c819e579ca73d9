"""A request of the QuPath scripts: one image that is open in QuPath, as a project of one entry.

The scripts put into a folder what QuPath holds in memory, saved or not, and put the answer back there themselves. What
lies between is the same as for a project on disk: this is the seam's third backend.

    image.json            entry, name, metadata, server, path_classes, graded, settings
    annotations.geojson   all annotations, as QuPath writes them
    tiles.json            our earlier tiles, in columns
    ─▶ tiles.geojson      the tiles to be added, each with its parent and mark
    ─▶ update.json        what to remove, measurements, metadata, classes
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from her2bridge.errors import UsageError
from her2bridge.qupath.geojson import path_class_of, read_regions, write_tiles
from her2bridge.qupath.seam import Entry, ImageUpdate, PathClassRef, PathObject, StoredTiles
from her2bridge.records import FloatArray
from her2bridge.storage import write_atomically

SCHEMA = 1
IMAGE, ANNOTATIONS, TILES = "image.json", "annotations.geojson", "tiles.json"
NEW_TILES, UPDATE = "tiles.geojson", "update.json"

_NEXT = "Install the scripts again: her2bridge scripts install. If it stays so, please report it."


class RequestProject:
    """A request's folder as a project; see ``seam.Project``.

    Attributes:
        settings: what the script asks for, as it wrote it.
    """

    backend = "an image open in QuPath"
    read_only_reason: str | None = None
    saved_uri: str | None = None
    keeps_results = False  # the folder is gone when it has been answered

    def __init__(self, folder: Path) -> None:
        """Read a request.

        Raises:
            UsageError: it is not what the scripts write.
        """
        content = _read_json(folder / IMAGE)
        try:
            if content["schema"] != SCHEMA:
                raise ValueError(f"schema {content['schema']}")
            self.settings: Mapping[str, Any] = dict(content.get("settings") or {})
            self.path_classes: Sequence[PathClassRef] = _path_classes(content["path_classes"])
            self.path = folder / IMAGE
            self.folder = folder
            self.added: list[PathClassRef] = []
            self.entries: Sequence[Entry] = [RequestEntry(self, content)]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _broken(folder / IMAGE, error) from error

    def merge_path_classes(self, classes: Sequence[PathClassRef]) -> None:
        """See the seam; the script merges them."""
        self.added = list(classes)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """See the seam; a request has one reader."""
        yield


class RequestEntry:
    """The image of a request; see ``seam.Entry``."""

    read_only_reason: str | None = None

    def __init__(self, project: RequestProject, content: Mapping[str, Any]) -> None:
        self._project = project
        self.id = str(content["entry"])
        self.name = str(content["name"])
        self.metadata: Mapping[str, str] = {str(key): str(value) for key, value in content["metadata"].items()}
        self.server_json: Mapping[str, Any] = dict(content["server"])
        self._graded = np.array(content["graded"], dtype=np.float64).reshape(-1, 2)
        self._tiles: StoredTiles | None = None

    def annotations(self) -> list[PathObject]:
        """See the seam."""
        return read_regions(self._project.folder / ANNOTATIONS)

    def objects(self) -> Iterator[PathObject]:
        """The annotations: a request holds no other objects whole."""
        yield from self.annotations()

    def stored_tiles(self) -> StoredTiles:
        """See the seam."""
        if self._tiles is None:
            self._tiles = _read_tiles(self._project.folder / TILES)
        return self._tiles

    def detection_centroids(self, last_names: frozenset[str]) -> FloatArray:
        """See the seam; the script has chosen them."""
        return self._graded

    def apply(self, update: ImageUpdate) -> None:
        """Write the answer, for the script to put it into the image.

        Raises:
            UsageError: it holds new annotations, which the scripts do not take.
        """
        if update.annotations:
            raise UsageError(
                "An image that is open in QuPath takes no new annotations from outside.",
                where=self.name,
                next_step="Save the image, close the project in QuPath, and name the project instead.",
            )
        folder = self._project.folder
        write_tiles(folder / NEW_TILES, update.tiles)
        content = {
            "schema": SCHEMA,
            "notice": "Research use only.",
            "remove": list(update.remove_ids),
            "region_measurements": {region: dict(values) for region, values in update.region_measurements.items()},
            "measurement_names": sorted(update.measurement_names),
            "metadata": dict(update.metadata),
            "path_classes": [{"name": str(one), "color": one.rgb} for one in self._project.added],
        }
        write_atomically(folder / UPDATE, (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _read_tiles(path: Path) -> StoredTiles:
    content = _read_json(path)
    try:
        count = len(content["ids"])
        tiles = StoredTiles(
            ids=[str(one) for one in content["ids"]],
            bounds=np.array(content["bounds"], dtype=np.float64).reshape(count, 4),
            class_names=[None if one is None else str(one) for one in content["classes"]],
            measurements={
                name: np.array(values, dtype=np.float32)  # null becomes NaN
                for name, values in content["measurements"].items()
            },
            run_ids=[str(one) for one in content["runs"]],
        )
        columns: list[Sequence[Any]] = [tiles.class_names, tiles.run_ids, *map(list, tiles.measurements.values())]
        if any(len(column) != count for column in columns):
            raise ValueError("its columns are of different lengths")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _broken(path, error) from error
    return tiles


def _path_classes(content: Sequence[Any]) -> list[PathClassRef]:
    found = [path_class_of(one) for one in content]
    return [one for one in found if one is not None]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _broken(path, error) from error


def _broken(path: Path, error: Exception) -> UsageError:
    what = f"This is no request of the QuPath scripts ({type(error).__name__}: {error})."
    return UsageError(what, where=str(path), next_step=_NEXT)

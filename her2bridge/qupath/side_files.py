"""The results of every run, kept beside the project in ``her2bridge/results/<entryID>.json`` and ``.geojson.gz``.

A QuPath that has the project open holds it in memory and can write over what we wrote. From these files
``her2bridge restore`` attaches the results again; for a project that we must not write they are the only results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from her2bridge.errors import ProjectDamaged
from her2bridge.qupath.geojson import read_tiles, write_tiles
from her2bridge.qupath.seam import NewTiles, PathClassRef
from her2bridge.storage import sha256_of, write_atomically

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class SideResult:
    """What one run made of one image.

    Attributes:
        entry_id: QuPath's entryID.
        image: its name when it was scored.
        metadata: what the run sets in the image's metadata.
        region_measurements: annotation id -> {name: value}.
        path_classes: the classes of its tiles, with the project's colours.
        counts: tiles of the slide by class label; a person's corrections included.
        tiles: every tile that stands for the score, corrected ones included.
    """

    entry_id: str
    image: str
    metadata: Mapping[str, str]
    region_measurements: Mapping[str, Mapping[str, float]]
    path_classes: Sequence[PathClassRef]
    counts: Mapping[str, int]
    tiles: Sequence[NewTiles]


def results_folder(project_folder: Path) -> Path:
    """Where the side files of a project lie."""
    return project_folder / "her2bridge" / "results"


def write_side_files(project_folder: Path, result: SideResult) -> Path:
    """Write both files, the tiles first, and return the path of the JSON.

    Raises:
        WriteFailed: the folder cannot be written, or the disk is full.
    """
    folder = results_folder(project_folder)
    tiles = folder / f"{result.entry_id}.geojson.gz"
    write_tiles(tiles, result.tiles)
    content = {
        "schema": SCHEMA,
        "notice": "Research use only.",
        "entry": result.entry_id,
        "image": result.image,
        "metadata": dict(result.metadata),
        "tile_counts": dict(result.counts),
        "tiles_sha256": sha256_of(tiles.read_bytes()),
        "region_measurements": {region: dict(values) for region, values in result.region_measurements.items()},
        "path_classes": [{"names": list(one.names), "rgb": one.rgb} for one in result.path_classes],
    }
    path = folder / f"{result.entry_id}.json"
    write_atomically(path, (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode())
    return path


def left_metadata(project_folder: Path, entry_id: str) -> dict[str, str]:
    """The metadata that the last run set in an image; empty where none left any."""
    try:
        return dict(json.loads((results_folder(project_folder) / f"{entry_id}.json").read_bytes())["metadata"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def stored_entries(project_folder: Path) -> list[str]:
    """The entryIDs that have side files."""
    return sorted(path.stem for path in results_folder(project_folder).glob("*.json"))


def read_side_files(project_folder: Path, entry_id: str) -> SideResult:
    """What ``write_side_files`` wrote.

    Raises:
        ProjectDamaged: they are not what it writes.
    """
    folder = results_folder(project_folder)
    path = folder / f"{entry_id}.json"
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}")
        tiles = folder / f"{entry_id}.geojson.gz"
        if sha256_of(tiles.read_bytes()) != content["tiles_sha256"]:
            raise ValueError(f"{tiles.name} is of another run")
        return SideResult(
            entry_id=content["entry"],
            image=content["image"],
            metadata=content["metadata"],
            region_measurements=content["region_measurements"],
            path_classes=[_class_ref(one) for one in content["path_classes"]],
            counts=content["tile_counts"],
            tiles=read_tiles(tiles),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProjectDamaged(
            f"These results cannot be read ({type(error).__name__}: {error}).",
            where=str(path),
            next_step="Score the image again: her2bridge run PROJECT --force --image NAME.",
        ) from error


def _class_ref(content: Mapping[str, Any]) -> PathClassRef:
    names = tuple(content["names"])
    if content["rgb"] is None:
        return PathClassRef(names)
    red, green, blue = content["rgb"]
    return PathClassRef(names, (red, green, blue))

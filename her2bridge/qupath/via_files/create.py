"""New projects over slides: for the demo, and for tests."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from her2bridge.errors import UsageError
from her2bridge.qupath.project_json import ClassList, as_json
from her2bridge.qupath.seam import PathClassRef, PathObject
from her2bridge.qupath.via_files.data_file import new_data_file
from her2bridge.qupath.via_files.summary import server_summary, summary_of
from her2bridge.storage import write_atomically

_VERSION = "0.5.1"  # of the QuPath whose files these are like: later ones read them too
_PROVIDER = "qupath.lib.images.servers.openslide.OpenslideServerBuilder"
_CHANNELS = {"Red": -65536, "Green": -16711936, "Blue": -16776961}


@dataclass(frozen=True, eq=False)
class NewImage:
    """An image to be put into a project.

    Attributes:
        path: the slide, 8-bit RGB.
        name: as the project shall show it.
        size: width and height, pixels.
        mpp: µm/px.
        annotations: all below the root.
        metadata: of the image in the project.
        levels: width and height of each level of the slide's pyramid, the full one first; empty for that one alone.
    """

    path: Path
    name: str
    size: tuple[int, int]
    mpp: float
    annotations: Sequence[PathObject]
    metadata: Mapping[str, str]
    levels: Sequence[tuple[int, int]] = ()


def create_project(folder: Path, images: Sequence[NewImage]) -> Path:
    """Write a project into a folder, and return its ``project.qpproj``.

    Raises:
        UsageError: there is a project already.
        WriteFailed: the folder cannot be written.
    """
    path = folder.absolute() / "project.qpproj"
    if path.exists():
        raise UsageError(
            "There is a project already.", where=str(path), next_step="Name another folder, or use that project."
        )
    entries = []
    for number, image in enumerate(images, start=1):
        server = _server(image)
        home = path.parent / "data" / str(number)
        data = home / "data.qpdata"
        key = f"{path}::{number}"
        file = new_data_file(server, image.annotations, qupath_version=_VERSION, entry_key=key, where=str(data))
        write_atomically(data, file.data)
        now = int(data.stat().st_mtime * 1000)
        write_atomically(home / "summary.json", summary_of(file, server_summary(server), now))
        write_atomically(home / "server.json", as_json({"builder": server, "metadata": server["metadata"]}))
        entries.append(
            {
                "serverBuilder": server,
                "entryID": number,
                "randomizedName": str(uuid.uuid4()),
                "imageName": image.name,
                "metadata": dict(image.metadata),
            }
        )
    ClassList(path.parent).merge(_classes(images))
    milliseconds = int(time.time() * 1000)
    content = {
        "version": _VERSION,
        "createTimestamp": milliseconds,
        "modifyTimestamp": milliseconds,
        "uri": path.as_uri().replace("file:///", "file:/", 1),  # as Java's File.toURI
        "lastID": len(entries),
        "images": entries,
    }
    write_atomically(path, as_json(content))
    return path


def _classes(images: Sequence[NewImage]) -> list[PathClassRef]:
    every = itertools.chain.from_iterable(image.annotations for image in images)
    return list(dict.fromkeys(one.path_class for one in every if one.path_class is not None))


def _server(image: NewImage) -> dict[str, Any]:
    """A server builder as QuPath writes it for a slide that OpenSlide opens."""
    width, height = image.size
    mpp = {"value": image.mpp, "unit": "µm"}
    metadata = {
        "name": image.name,
        "width": width,
        "height": height,
        "sizeZ": 1,
        "sizeT": 1,
        "channelType": "DEFAULT",
        "isRGB": True,
        "pixelType": "UINT8",
        "levels": [{"downsample": width / w, "width": w, "height": h} for w, h in image.levels or [image.size]],
        "channels": [{"name": name, "color": colour} for name, colour in _CHANNELS.items()],
        "pixelCalibration": {
            "pixelWidth": mpp,
            "pixelHeight": mpp,
            "zSpacing": {"value": 1.0, "unit": "z-slice"},
            "timeUnit": "SECONDS",
            "timepoints": [],
        },
        "preferredTileWidth": 256,
        "preferredTileHeight": 256,
    }
    uri = image.path.absolute().as_uri()
    return {"builderType": "uri", "providerClassName": _PROVIDER, "uri": uri, "args": [], "metadata": metadata}

"""QuPath's server builders, the JSON that says how an image comes from a file, as a ``SlideSource``.

A builder is ``uri`` (a file, its reader and the reader's arguments) or wraps another one under the key ``builder``.
Each may carry the ``metadata`` of the image that it shows: the innermost ones describe the image in the file, the
outermost ones the image that QuPath shows, the pixel size that a person typed in included. What each builder does was
read from QuPath 0.5.1, 0.6.0 and 0.7.0 (``ImageServers``, ``RotatedImageServer``, ``CroppedImageServer``,
``FlippedImageServer``, ``PyramidGeneratingImageServer``) and compared with the pixels that they show.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from her2bridge.calibration import mpp_pair
from her2bridge.errors import UnsupportedServer, UsageError
from her2bridge.qupath.image_uris import find_slide
from her2bridge.records import Crop, Flip, Rotate, SlideSource, ViewStep

_OPENSLIDE = "qupath.lib.images.servers.openslide.OpenslideServerBuilder"
_BIO_FORMATS = "qupath.lib.images.servers.bioformats.BioFormatsServerBuilder"
_IMAGEJ = "qupath.imagej.images.servers.ImageJServerBuilder"

_HEEDED_BY = {
    "--no-crop": _OPENSLIDE,
    "--icc-profile": _OPENSLIDE,  # from 0.7 on: other colours
    "--icc-profile-source": _OPENSLIDE,
    "--icc-profile-dest": _OPENSLIDE,
    "--series": _BIO_FORMATS,
    "--name": _BIO_FORMATS,  # the series by its name
    "--dims": _BIO_FORMATS,  # swaps x, y, channels and planes
    "--bfOptions": _BIO_FORMATS,  # of one file format or another
}
"""The arguments that readers know, and the one that heeds each; to the others it is harmless. ImageJ's heeds none."""

_SHORT = {"-s": "--series", "-n": "--name"}
_FLAGS = ("--no-crop", "--icc-profile")
_FOLLOWED = ("--no-crop", "--series")

_TURNS = {"ROTATE_NONE": 0, "ROTATE_90": 1, "ROTATE_180": 2, "ROTATE_270": 3}
_FLIPS = {
    "NONE": Flip(horizontal=False, vertical=False),
    "HORIZONTAL": Flip(horizontal=True, vertical=False),
    "VERTICAL": Flip(horizontal=False, vertical=True),
    "BOTH": Flip(horizontal=True, vertical=True),
}
_KINDS = ("uri", "cropped", "rotated", "flipped", "pyramidize")

_EXPORT = "Export the image from QuPath as an 8-bit RGB OME-TIFF, add that to the project, and score it there."


def slide_source(
    server_json: Mapping[str, Any],
    *,
    folder: Path,
    saved_uri: str | None,
    relocations: Sequence[tuple[str, str]] = (),
) -> SlideSource:
    """The slide behind an image of QuPath's, and how QuPath shows it.

    Args:
        server_json: the builder, or the ``{builder, metadata}`` of QuPath 0.5's ``server.json``.
        folder: where the project lies now; slides of moved projects are looked for beside it.
        saved_uri: where its project file lay when QuPath saved it.
        relocations: (old, new) beginnings of slide paths or URIs.

    Raises:
        SlideNotFound: the file is in none of the places where it could be.
        UnsupportedServer: a builder, reader or argument that we do not know, or JSON that is no builder.
    """
    *wrappers, file = _layers(server_json)
    view = [step for layer in reversed(wrappers) if (step := _step(layer, server_json))]
    provider, uri, options = _reading(file)
    path = find_slide(uri, folder=folder, saved_uri=saved_uri, relocations=relocations)
    size = _whole(_part(file, "metadata"), "width", "height")
    return SlideSource(
        path=path,
        file_size=(size[0], size[1]) if size else None,
        mpp=calibration_of(server_json),
        series=_series(uri, options) if provider == _BIO_FORMATS else 0,
        use_bounds=provider == _OPENSLIDE and "--no-crop" not in options,
        view=tuple(view),
    )


def calibration_of(server_json: Mapping[str, Any]) -> tuple[float, float] | None:
    """QuPath's own µm/px (x, y) of the shown image; None where it has none, or one in other units.

    The outermost metadata decide, even if they state none. A builder without metadata takes its calibration from the
    image that it wraps: cropped images and pyramids from that image's metadata; rotated and flipped ones from what
    the image would state had it no metadata, and so at last from the file, which is not ours to read.

    Raises:
        UnsupportedServer: a builder that we do not know, or JSON that is none.
    """
    asked, turned = True, False
    for layer in _layers(server_json):
        if asked and isinstance(layer.get("metadata"), Mapping):
            mpp = _calibration(layer["metadata"])
            return (mpp[1], mpp[0]) if mpp and turned else mpp
        step = _step(layer, server_json)
        turned ^= isinstance(step, Rotate) and step.quarter_turns % 2 == 1
        asked = not isinstance(step, Rotate | Flip)
    return None


def read_server_json(path: Path) -> Mapping[str, Any]:
    """The content of an image's ``server.json``, for ``slide_source`` and ``calibration_of``.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        UnsupportedServer: it does not hold a builder that we know.
    """
    hint = "Give the server.json of one image, from the project's folder data/ and there the image's number."
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"The file cannot be read: {error.strerror}.", where=str(path), next_step=hint) from error
    except ValueError as error:
        raise UnsupportedServer(f"The file is not JSON: {error}.", where=str(path), next_step=hint) from error
    if not isinstance(content, Mapping) or not content.keys() & {"builder", "builderType"}:
        raise UnsupportedServer("The JSON does not describe an image server.", where=str(path), next_step=hint)
    _layers(content)
    return content


def _layers(server_json: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The builders from the outermost to the ``uri`` one."""
    layer: Any = server_json
    if "builderType" not in layer and "builder" in layer:  # as QuPath 0.5 saves an image server with its metadata
        layer = layer["builder"]
        if isinstance(layer, Mapping) and isinstance(server_json.get("metadata"), Mapping):
            layer = {**layer, "metadata": server_json["metadata"]}
    layers: list[Mapping[str, Any]] = []
    while not layers or layers[-1]["builderType"] != "uri":
        kind = layer.get("builderType") if isinstance(layer, Mapping) else None
        if kind is None:
            raise _not_understood("builderType", kind, server_json)
        if kind not in _KINDS:
            raise UnsupportedServer(
                f"QuPath makes this image with a builder that her2bridge does not know: {kind}.",
                where=_whereabouts(server_json),
                next_step=_EXPORT,
            )
        layers.append(layer)
        layer = layer.get("builder")
    return layers


def _step(layer: Mapping[str, Any], server_json: Mapping[str, Any]) -> ViewStep | None:
    """What a builder does to the image that it wraps."""
    match layer["builderType"]:
        case "cropped":
            box = _whole(_part(layer, "region"), "x", "y", "width", "height")
            if box is None:
                raise _not_understood("region", layer.get("region"), server_json)
            return Crop(*box)
        case "rotated":
            rotation = layer.get("rotation")
            if not isinstance(rotation, str) or rotation not in _TURNS:
                raise _not_understood("rotation", rotation, server_json)
            return Rotate(_TURNS[rotation])
        case "flipped":
            flip = layer.get("flip")
            if not isinstance(flip, str) or flip not in _FLIPS:
                raise _not_understood("flip", flip, server_json)
            return _FLIPS[flip]
    return None


def _reading(file: Mapping[str, Any]) -> tuple[str, str, dict[str, str]]:
    """Reader, URI and arguments of a ``uri`` builder, all of them known."""
    provider, uri, args = file.get("providerClassName"), file.get("uri"), file.get("args") or []
    if not isinstance(uri, str):
        raise _not_understood("uri", uri, file)
    if not isinstance(args, list) or not all(isinstance(arg, str) for arg in args):
        raise _not_understood("args", args, file)
    if provider not in (_OPENSLIDE, _BIO_FORMATS, _IMAGEJ):
        raise UnsupportedServer(
            f"QuPath reads this image with a reader that her2bridge does not know: {provider or 'none is named'}.",
            where=uri,
            next_step=_EXPORT,
        )
    options = _options(args)
    for name in options:
        if name not in _HEEDED_BY or (_HEEDED_BY[name] == provider and name not in _FOLLOWED):
            raise UnsupportedServer(
                f"QuPath reads this image with an argument that her2bridge does not follow: {name}.",
                where=uri,
                next_step=f"Where the image is right without {name}, add it to the project anew. Otherwise: {_EXPORT}",
            )
    return provider, uri, options


def _options(args: Sequence[str]) -> dict[str, str]:
    """Arguments by name, as picocli parses them for Bio-Formats: ``--series 1``, ``--series=1``, ``-s 1``."""
    options = {}
    rest = iter(args)
    for arg in rest:
        name, stated, value = arg.partition("=")
        name = _SHORT.get(name, name)
        if not stated and name in _HEEDED_BY and name not in _FLAGS:
            value = next(rest, "")
        options[name] = value
    return options


def _series(uri: str, options: Mapping[str, str]) -> int:
    """Bio-Formats' number of the image in the file: an argument, else the URI's fragment (query, long ago), else 0."""
    parts = urlsplit(uri)
    of_uri = parts.fragment or parts.query.removeprefix("series=") or "0"
    stated = options.get("--series", of_uri)
    if not stated.isdecimal():
        raise UnsupportedServer(
            f'QuPath reads the image "{stated}" of the file; her2bridge knows only their numbers.',
            where=uri,
            next_step=_EXPORT,
        )
    return int(stated)


def _calibration(metadata: Mapping[str, Any]) -> tuple[float, float] | None:
    calibration = _part(metadata, "pixelCalibration")
    x, y = _part(calibration, "pixelWidth"), _part(calibration, "pixelHeight")
    if not x.get("unit") == y.get("unit") == "µm":
        return None
    return mpp_pair(x.get("value"), y.get("value"))


def _part(whole: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = whole.get(key)
    return part if isinstance(part, Mapping) else {}


def _whole(part: Mapping[str, Any], *keys: str) -> tuple[int, ...] | None:
    """The whole numbers under these keys; None where one of them is none."""
    values = [part.get(key) for key in keys]
    whole = tuple(value for value in values if type(value) is int)
    return whole if len(whole) == len(values) else None


def _not_understood(key: str, value: Any, server_json: Mapping[str, Any]) -> UnsupportedServer:
    return UnsupportedServer(
        f"QuPath's description of this image cannot be followed: its {key} is {json.dumps(value)}.",
        where=_whereabouts(server_json),
        next_step=_EXPORT,
    )


def _whereabouts(server_json: Mapping[str, Any]) -> str:
    """The URI within, however unknown the builders around it are."""
    layer: Any = server_json
    while isinstance(layer, Mapping):
        if isinstance(layer.get("uri"), str):
            return str(layer["uri"])
        layer = layer.get("builder")
    return "an image without URI"

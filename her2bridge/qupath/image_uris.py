"""Where a slide lies: the URIs that QuPath writes, read as paths, and the search for slides of projects that moved.

A URI is one that Java made (``File.toURI``, ``Path.toUri``) on the machine where the image was added. So it is read as
a path of *that* machine, of Windows or not, and only then looked for on this one.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from urllib.parse import unquote, urlsplit

from her2bridge.errors import SlideNotFound, UnsupportedServer


def path_of(uri: str) -> PurePath:
    """The path that a ``file:`` URI names, in the manner of the machine that wrote it.

    ``file:/C:/x`` and ``file:///C:/x`` are of Windows, as are the shares ``file://server/share`` and
    ``file:////server/share``; all others are POSIX. Query and fragment are no part of the path, and a plus is a plus.

    Raises:
        UnsupportedServer: not the URI of a file.
    """
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise _not_a_file("cannot be read", uri) from error
    if parts.scheme != "file":
        raise _not_a_file(f"begins with {parts.scheme}:" if parts.scheme else "has no scheme", uri)
    host, path = unquote(parts.netloc), unquote(parts.path)
    if host and host.lower() != "localhost":
        return PureWindowsPath(f"//{host}{path}")
    if path.startswith("//"):
        return PureWindowsPath(path)
    with_drive = re.fullmatch("/([A-Za-z]:(?:/.*)?)", path)
    return PureWindowsPath(with_drive[1]) if with_drive else PurePosixPath(path)


def find_slide(uri: str, *, folder: Path, saved_uri: str | None, relocations: Sequence[tuple[str, str]] = ()) -> Path:
    """The slide of a URI, looked for where relocations say, then where the URI says, then beside the project.

    Args:
        uri: the image's.
        folder: where the project lies now.
        saved_uri: where its project file lay when QuPath saved it.
        relocations: (old, new) beginnings of a path or URI, whole folders; the longest old one is tried first. Old
            ones are compared as the slide's own system does: on Windows neither case nor the kind of slash matters.

    Raises:
        SlideNotFound: in none of these places.
        UnsupportedServer: not the URI of a file.
    """
    recorded = path_of(uri)
    own = Path(recorded) if isinstance(folder, type(recorded)) else recorded
    beside = _beside(recorded, saved_uri, Path(os.path.abspath(folder)))
    places = dict.fromkeys([*relocated(recorded, relocations), own, *beside])
    for place in places:
        if isinstance(place, Path) and (found := _existing(place)):
            return found
    raise SlideNotFound(
        f"The slide {recorded.name} was not found.",
        where=", ".join(str(place) for place in places),
        next_step="Connect the drive, or say where the folder is now with "
        f'--relocate "{recorded.parent}=NEW", the folder in place of NEW.',
    )


def _existing(place: Path) -> Path | None:
    """The file as the disk spells it: a letter and its accent may be one character there or two.

    QuPath may join them in a URI (NFC), macOS may part them in a name (NFD), and other disks tell the two apart.
    """
    text = str(place)
    forms = [text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)]
    return next((Path(form) for form in forms if os.path.exists(form)), None)


def relocated(recorded: PurePath, relocations: Sequence[tuple[str, str]]) -> Iterator[Path]:
    """The places of a slide by each relocation that fits it."""
    parts = recorded.as_posix().split("/")
    fitting = []
    for old, new in relocations:
        old_parts = _components(old, recorded)
        if old_parts == _components(recorded.as_posix(), recorded)[: len(old_parts)]:
            fitting.append((len(old_parts), Path(_without_uri(new))))
    for length, new_folder in sorted(fitting, key=lambda fit: -fit[0]):
        yield Path(os.path.abspath(new_folder.joinpath(*parts[length:])))


def _components(beginning: str, recorded: PurePath) -> list[str]:
    """The parts of a beginning of ``recorded``, made comparable."""
    text = _without_uri(beginning)
    if isinstance(recorded, PureWindowsPath):
        text = text.replace("\\", "/").lower()
    return text.rstrip("/").split("/")


def _without_uri(text: str) -> str:
    return path_of(text).as_posix() if text.lower().startswith("file:") else text


def _beside(recorded: PurePath, saved_uri: str | None, folder: Path) -> Iterator[Path]:
    """The slide's place relative to the project as it was when saved, seen from where the project lies now.

    A project folder may be a symlink: ``..`` is tried as the user sees the folder, then as the disk has it.
    """
    try:
        saved = path_of(saved_uri or "")
    except UnsupportedServer:  # nothing to go by
        return
    if type(saved) is not type(recorded):
        return
    for ups, parent in enumerate(saved.parents):
        if recorded.is_relative_to(parent):
            steps = [*[os.pardir] * ups, *recorded.relative_to(parent).parts]
            for start in (folder, folder.resolve()):
                yield Path(os.path.normpath(start.joinpath(*steps)))
            return


def _not_a_file(how: str, uri: str) -> UnsupportedServer:
    return UnsupportedServer(
        f"The image is no file on a disk: its URI {how}.",
        where=uri or "an image without URI",
        next_step="Save the slide as a file, add that to the project in QuPath, and score it there.",
    )

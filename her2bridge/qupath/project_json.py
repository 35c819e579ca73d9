"""``project.qpproj`` and ``classifiers/classes.json``: read, and changed in nothing but what is asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from her2bridge.errors import ChangedOnDisk, ProjectDamaged, ProjectNotFound
from her2bridge.qupath.seam import PathClassRef, packed_colour, rgb_of_packed
from her2bridge.storage import read_if_there, write_atomically

NEWEST_KNOWN = (0, 7)
"""The newest QuPath whose projects we know."""

_BACKUP = ".backup"
_ENTRY_ID = re.compile(r"[0-9A-Za-z_-]+")
_TRIES = 5


class ProjectJson:
    """The content of a project file.

    Attributes:
        path: the file.
        content: as it was read last.
    """

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            ProjectNotFound: no such file.
            ProjectDamaged: not what QuPath writes.
        """
        self.path = path
        self._take(self._read())

    def _take(self, data: bytes) -> None:
        """Hold what a file's bytes say."""
        self.content = self._parsed(data)
        self._images = {str(image["entryID"]): image for image in self.content["images"]}

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError as error:
            raise ProjectNotFound(
                "There is no such project file.",
                where=str(self.path),
                next_step="Name the project.qpproj, or the folder it lies in.",
            ) from error
        except OSError as error:
            raise _damaged(self.path, error.strerror or type(error).__name__) from error

    def _parsed(self, data: bytes) -> dict[str, Any]:
        try:
            content = json.loads(data)
        except ValueError as error:
            raise _damaged(self.path, f"it is not JSON ({error})") from error
        images = content.get("images") if isinstance(content, dict) else None
        if not isinstance(images, list):
            raise _damaged(self.path, "it has no list of images")
        for image in images:
            is_entry = isinstance(image, dict) and "entryID" in image and isinstance(image.get("serverBuilder"), dict)
            if not is_entry or not isinstance(image.get("metadata"), dict | None):
                raise _damaged(self.path, "an image lacks its entryID or server, or its metadata are no table")
        ids = [str(image["entryID"]) for image in images]
        if len(set(ids)) != len(ids) or not all(map(_ENTRY_ID.fullmatch, ids)):  # each names a folder
            raise _damaged(self.path, "the entryIDs of its images are not numbers, or not different ones")
        return dict(content)

    @property
    def version(self) -> str:
        """The QuPath that wrote it; empty where it does not say."""
        return str(self.content.get("version") or "")

    @property
    def saved_uri(self) -> str | None:
        """Where it lay when QuPath saved it last; None where it does not say."""
        uri = self.content.get("uri")
        return uri if isinstance(uri, str) else None

    @property
    def read_only_reason(self) -> str | None:
        """Why it must not be written: a QuPath newer than we know has written it. None where it may be."""
        match = re.match(r"v?(\d+)\.(\d+)", self.version)
        if match is None or (int(match[1]), int(match[2])) <= NEWEST_KNOWN:
            return None
        newest = ".".join(map(str, NEWEST_KNOWN))
        return f"the project was written by QuPath {self.version}, newer than the {newest} that this her2bridge knows"

    def image(self, entry_id: str) -> dict[str, Any]:
        """The image with an entryID.

        Raises:
            ChangedOnDisk: it is no longer in the project.
        """
        if entry_id in self._images:
            return dict(self._images[entry_id])
        raise ChangedOnDisk(
            "The image is no longer in the project: it was removed in QuPath while this run went on.",
            where=f"{self.path}, entry {entry_id}",
            next_step="Add the image again in QuPath, then run again.",
        )

    def set_metadata(self, entry_id: str, values: Mapping[str, str | None]) -> None:
        """Change metadata of one image in the file as it is on the disk now; None removes a key.

        QuPath may write the file at any time: it is read once more, and if it changes while it is written, once more.
        The file before is kept as QuPath keeps it.

        Raises:
            ChangedOnDisk: the image is no longer there, or the file never keeps still.
            ProjectDamaged: the file is no longer what QuPath writes.
            WriteFailed: it cannot be written.
        """
        backup = self.path.with_name(self.path.name + _BACKUP)
        for _ in range(_TRIES):
            before = self._read()
            self._take(before)
            new = self._with_metadata(entry_id, values)
            if new == before or write_atomically(
                self.path,
                new,
                backup=backup,
                only_if=lambda seen=before: self._read() == seen,  # type: ignore[misc]
            ):
                self._take(new)
                return
        raise ChangedOnDisk(
            "The project file changes all the time.",
            where=str(self.path),
            next_step="Close the project in QuPath, then bring the results in: her2bridge restore PROJECT.",
        )

    def _with_metadata(self, entry_id: str, values: Mapping[str, str | None]) -> bytes:
        every = {**(self.image(entry_id).get("metadata") or {}), **values}
        metadata = {key: value for key, value in every.items() if value is not None}
        images = [
            {**one, "metadata": metadata} if str(one["entryID"]) == entry_id else one for one in self.content["images"]
        ]
        return as_json({**self.content, "images": images})


def as_json(content: Mapping[str, Any]) -> bytes:
    """JSON as QuPath lays it out: two blanks a level, no newline at the end."""
    return json.dumps(content, ensure_ascii=False, indent=2).encode()


class ClassList:
    """The project's PathClasses, ``classifiers/classes.json``; there may be none."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "classifiers" / "classes.json"

    def read(self) -> list[PathClassRef]:
        """The classes, in the file's order.

        Raises:
            ProjectDamaged: not what QuPath writes.
        """
        return [class_of_json(one) for one in self._content()["pathClasses"]]

    def merge(self, classes: Sequence[PathClassRef]) -> None:
        """Add those that are missing, at the end; those that are there stay as they are.

        Raises:
            ProjectDamaged: see ``read``.
            WriteFailed: it cannot be written.
        """
        content = self._content()
        there = {class_of_json(one).names for one in content["pathClasses"]}
        new = [class_as_json(one) for one in classes if one.names not in there]
        if new:
            write_atomically(self.path, as_json({**content, "pathClasses": [*content["pathClasses"], *new]}))

    def _content(self) -> dict[str, Any]:
        try:
            data = read_if_there(self.path)
        except OSError as error:
            raise _damaged(self.path, error.strerror or type(error).__name__) from error
        if data is None:
            return {"pathClasses": []}
        try:
            content = json.loads(data)
            classes = content.get("pathClasses") or []
            for one in classes:
                class_of_json(one)
            return {**content, "pathClasses": classes}
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise _damaged(self.path, f"it is no list of classes ({type(error).__name__})") from error


def class_of_json(content: Mapping[str, Any]) -> PathClassRef:
    """A class of the list: its name with ``: `` between the levels, its colour a signed ARGB number."""
    names = tuple(content["name"].split(": "))
    colour = content.get("color")
    return PathClassRef(names, None if colour is None else rgb_of_packed(colour))


def class_as_json(one: PathClassRef) -> dict[str, Any]:
    """The way back from ``class_of_json``."""
    if one.rgb is None:
        return {"name": str(one)}
    return {"name": str(one), "color": packed_colour(one.rgb)}


def _damaged(path: Path, reason: str) -> ProjectDamaged:
    return ProjectDamaged(
        f"The project cannot be read: {reason}.",
        where=str(path),
        next_step=f"Open the project in QuPath and save it; if QuPath fails too, put back {path.name}{_BACKUP}"
        " or a copy of your own.",
    )

"""The seam over a project's own files: no QuPath, no JVM."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from her2bridge.errors import (
    ChangedOnDisk,
    DataFileDamaged,
    DataFileVersion,
    Her2BridgeError,
    ProjectReadOnly,
    WriteFailed,
)
from her2bridge.qupath.seam import Entry, ImageUpdate, PathClassRef, PathObject, StoredTiles
from her2bridge.qupath.via_files.data_file import KNOWN_VERSION, DataFile, new_data_file
from her2bridge.qupath.via_files.data_update import updated
from her2bridge.qupath.via_files.project_json import ClassList, ProjectJson
from her2bridge.qupath.via_files.summary import server_summary, summary_of
from her2bridge.records import FloatArray
from her2bridge.storage import only_writer, read_if_there, sha256_of, write_atomically

_OURS = "her2bridge"


class FilesProject:
    """A project, read and written as files. See ``seam.Project``."""

    def __init__(self, path: Path) -> None:
        """Open the ``project.qpproj`` at a path.

        Raises:
            ProjectNotFound: no such file.
            ProjectDamaged: not what QuPath writes.
        """
        self._json = ProjectJson(path)
        self._classes = ClassList(path.parent)
        self._loaded: tuple[str, _Loaded] | None = None
        self.path = path
        self.folder = path.parent
        self.version = self._json.version
        self.backend = f"files (the project is of QuPath {self.version or 'an unknown version'})"
        ids = [str(image["entryID"]) for image in self._json.content["images"]]
        self.entries: Sequence[Entry] = [FilesEntry(self, entry_id) for entry_id in ids]

    @property
    def read_only_reason(self) -> str | None:
        """See the seam."""
        return self._json.read_only_reason

    @property
    def saved_uri(self) -> str | None:
        """See the seam."""
        uri = self._json.content.get("uri")
        return uri if isinstance(uri, str) else None

    @property
    def path_classes(self) -> Sequence[PathClassRef]:
        """See the seam."""
        return self._classes.read()

    def merge_path_classes(self, classes: Sequence[PathClassRef]) -> None:
        """See the seam."""
        self._classes.merge(classes)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """See the seam."""
        if self.read_only_reason is not None:
            raise ProjectReadOnly(
                f"This project is read-only here: {self.read_only_reason}.",
                where=str(self.path),
                next_step="Update her2bridge, or work on a copy that an older QuPath has saved.",
            )
        with only_writer(self.folder / _OURS / "lock"):
            yield

    def image_json(self, entry_id: str) -> dict[str, Any]:
        """What the project file says of an image."""
        return self._json.image(entry_id)

    def loaded(self, entry_id: str) -> _Loaded:
        """The data of one image; only one is held at a time."""
        if self._loaded is None or self._loaded[0] != entry_id:
            self._loaded = None
            self._loaded = (entry_id, _Loaded(self, entry_id))
        return self._loaded[1]

    def write(self, loaded: _Loaded, update: ImageUpdate) -> None:
        """Write one image's update: data file, summary, project file, in this order; all or none."""
        data = loaded.updated(update)
        project = self._json.with_metadata(loaded.entry_id, update.metadata)
        self._loaded = None
        try:
            loaded.write(data)
            self._json.write(project)
        except Her2BridgeError:
            loaded.put_back()
            raise


class FilesEntry:
    """One image. See ``seam.Entry``."""

    def __init__(self, project: FilesProject, entry_id: str) -> None:
        self._project = project
        self.id = entry_id

    @property
    def name(self) -> str:
        """See the seam."""
        return str(self._project.image_json(self.id).get("imageName") or f"image {self.id}")

    @property
    def metadata(self) -> Mapping[str, str]:
        """See the seam."""
        return dict(self._project.image_json(self.id).get("metadata") or {})

    @property
    def server_json(self) -> Mapping[str, Any]:
        """See the seam."""
        return copy.deepcopy(self._project.image_json(self.id)["serverBuilder"])

    @property
    def read_only_reason(self) -> str | None:
        """See the seam."""
        return self._project.read_only_reason or self._project.loaded(self.id).read_only_reason

    def annotations(self) -> list[PathObject]:
        """See the seam."""
        return self._project.loaded(self.id).file.annotations()

    def objects(self) -> Iterator[PathObject]:
        """See the seam."""
        return self._project.loaded(self.id).file.objects()

    def stored_tiles(self) -> StoredTiles:
        """See the seam."""
        return self._project.loaded(self.id).file.stored_tiles()

    def detection_centroids(self, last_names: frozenset[str]) -> FloatArray:
        """See the seam."""
        return self._project.loaded(self.id).file.detection_centroids(last_names)

    def apply(self, update: ImageUpdate) -> None:
        """See the seam."""
        self._project.write(self._project.loaded(self.id), update)


class _Loaded:
    """An image's data file, and the hash it had when it was read; an empty one where there is none."""

    def __init__(self, project: FilesProject, entry_id: str) -> None:
        self.entry_id = entry_id
        self._folder = project.folder / "data" / entry_id
        self._path = self._folder / "data.qpdata"
        self._summary = self._folder / "summary.json"
        self._backup = self._folder / "data.qpdata.bkp"
        self._is_written = False
        self._server: Mapping[str, Any] = project.image_json(entry_id)["serverBuilder"]
        data = read_if_there(self._path)
        self._hash = None if data is None else sha256_of(data)
        if data is not None:
            self.file = DataFile(data, str(self._path))
        elif self._backup.exists():  # QuPath puts it there while it writes, and reads it where the data file is missing
            raise DataFileDamaged(
                "The image's data file is missing, and QuPath's backup of it is there: QuPath was stopped as it saved.",
                where=str(self._backup),
                next_step="Open the image in QuPath, which reads the backup, and save it; then run again.",
            )
        else:
            self.file = new_data_file(
                self._server,
                [],
                qupath_version=str(project.version or "0.6.0"),
                entry_key=f"{project.path}::{entry_id}",
                where=str(self._path),
            )

    @property
    def read_only_reason(self) -> str | None:
        """Why the data file must not be written."""
        if self.file.version == KNOWN_VERSION:
            return None
        return f"its data file is of version {self.file.version}, and her2bridge writes version {KNOWN_VERSION}"

    def updated(self, update: ImageUpdate) -> DataFile:
        """The new data file, checked against the old one and against what is on the disk now."""
        if self.read_only_reason is not None:
            raise DataFileVersion(
                f"The image is read-only here: {self.read_only_reason}.",
                where=str(self._path),
                next_step="Update her2bridge, or save the image with a QuPath of 0.5 to 0.7.",
            )
        new = updated(self.file, update)
        now = read_if_there(self._path)
        if self._hash != (None if now is None else sha256_of(now)):
            raise ChangedOnDisk(
                "QuPath saved this image while it was being scored; the image was left as QuPath saved it.",
                where=str(self._path),
                next_step="Close the project in QuPath, then bring the results in: her2bridge restore PROJECT.",
            )
        return new

    def write(self, new: DataFile) -> None:
        """Write data file and summary."""
        write_atomically(self._path, new.data, backup=self._backup)
        self._is_written = True
        milliseconds = int(self._path.stat().st_mtime * 1000)
        write_atomically(self._summary, summary_of(new, self._server_summary(), milliseconds))

    def put_back(self) -> None:
        """Undo ``write``, without need of room on the disk."""
        if not self._is_written:
            return
        if self._hash is None:
            self._path.unlink(missing_ok=True)
        else:
            self._backup.replace(self._path)
        with contextlib.suppress(WriteFailed):  # counts for show only
            milliseconds = int(self._path.stat().st_mtime * 1000) if self._hash else 0
            write_atomically(self._summary, summary_of(self.file, self._server_summary(), milliseconds))

    def _server_summary(self) -> Mapping[str, Any]:
        try:
            stated = json.loads(self._summary.read_bytes())["server"]
        except (OSError, ValueError, LookupError, TypeError):
            stated = None
        return stated if isinstance(stated, dict) else server_summary(self._server)

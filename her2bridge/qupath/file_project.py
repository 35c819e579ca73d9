"""What both backends share: a project whose file is read as it lies on the disk, and one image's objects at a time."""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from her2bridge.errors import ProjectReadOnly
from her2bridge.qupath.entry_files import EntryFiles
from her2bridge.qupath.project_json import ClassList, ProjectJson
from her2bridge.qupath.seam import Entry, ImageUpdate, PathClassRef, PathObject, StoredTiles
from her2bridge.records import FloatArray
from her2bridge.storage import only_writer


class Objects(Protocol):
    """The objects of one image, as a backend holds them; see ``seam.Entry``."""

    def annotations(self) -> list[PathObject]: ...

    def objects(self) -> Iterator[PathObject]: ...

    def stored_tiles(self) -> StoredTiles: ...

    def detection_centroids(self, last_names: frozenset[str]) -> FloatArray: ...


class Loaded(ABC):
    """One image, read: its files as they were, and the objects in them."""

    def __init__(self, files: EntryFiles) -> None:
        self.files = files

    @property
    @abstractmethod
    def objects(self) -> Objects:
        """What lies in the data file."""

    @abstractmethod
    def apply(self, update: ImageUpdate) -> None:
        """See ``seam.Entry``."""


class FileProject(ABC):
    """A project; see ``seam.Project``. A backend says how an image is read and written."""

    backend: str
    keeps_results = True

    def __init__(self, path: Path) -> None:
        """Read the ``project.qpproj`` at a path.

        Raises:
            ProjectNotFound: no such file.
            ProjectDamaged: not what QuPath writes.
        """
        self.json = ProjectJson(path)
        self.classes = ClassList(path.parent)
        self.path = path
        self.folder = path.parent
        self._loaded: tuple[str, Loaded] | None = None
        ids = [str(image["entryID"]) for image in self.json.content["images"]]
        self.entries: Sequence[Entry] = [FileEntry(self, entry_id) for entry_id in ids]

    @property
    def read_only_reason(self) -> str | None:
        """See the seam."""
        return self.json.read_only_reason

    @property
    def saved_uri(self) -> str | None:
        """See the seam."""
        return self.json.saved_uri

    @property
    def path_classes(self) -> Sequence[PathClassRef]:
        """See the seam."""
        return self.classes.read()

    def merge_path_classes(self, classes: Sequence[PathClassRef]) -> None:
        """See the seam."""
        self.classes.merge(classes)

    @abstractmethod
    def load(self, entry_id: str) -> Loaded:
        """Read an image."""

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """See the seam."""
        if self.read_only_reason is not None:
            raise ProjectReadOnly(
                f"This project is read-only here: {self.read_only_reason}.",
                where=str(self.path),
                next_step="Update her2bridge (and QuPath, with --backend paquo), or work on a copy that an older QuPath"
                " has saved.",
            )
        with only_writer(self.folder / "her2bridge" / "lock"):
            yield

    def loaded(self, entry_id: str) -> Loaded:
        """An image; only one is held at a time."""
        if self._loaded is None or self._loaded[0] != entry_id:
            self.forget()
            self._loaded = (entry_id, self.load(entry_id))
        return self._loaded[1]

    def forget(self) -> None:
        """Hold no image: the next to be asked for is read anew."""
        self._loaded = None


class FileEntry:
    """One image. See ``seam.Entry``."""

    def __init__(self, project: FileProject, entry_id: str) -> None:
        self._project = project
        self.id = entry_id
        self._name = str(project.json.image(entry_id).get("imageName") or f"image {entry_id}")

    @property
    def name(self) -> str:
        """See the seam."""
        return self._name  # as it was when the project was opened: an image that is gone has a name too

    @property
    def metadata(self) -> Mapping[str, str]:
        """See the seam."""
        return dict(self._project.json.image(self.id).get("metadata") or {})

    @property
    def server_json(self) -> Mapping[str, Any]:
        """See the seam."""
        return copy.deepcopy(self._project.json.image(self.id)["serverBuilder"])

    @property
    def read_only_reason(self) -> str | None:
        """See the seam."""
        return self._project.read_only_reason or self._project.loaded(self.id).files.read_only_reason

    def annotations(self) -> list[PathObject]:
        """See the seam."""
        return self._project.loaded(self.id).objects.annotations()

    def objects(self) -> Iterator[PathObject]:
        """See the seam."""
        return self._project.loaded(self.id).objects.objects()

    def stored_tiles(self) -> StoredTiles:
        """See the seam."""
        return self._project.loaded(self.id).objects.stored_tiles()

    def detection_centroids(self, last_names: frozenset[str]) -> FloatArray:
        """See the seam."""
        return self._project.loaded(self.id).objects.detection_centroids(last_names)

    def apply(self, update: ImageUpdate) -> None:
        """See the seam."""
        loaded = self._project.loaded(self.id)
        loaded.files.check_writable()
        self._project.forget()
        loaded.apply(update)

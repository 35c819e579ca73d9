"""The seam through paquo: a QuPath on this machine reads and writes the images of the project.

All objects are read, and all data files written, by QuPath. The project file and the list of classes are not: QuPath
would write them whole, from what it holds in memory, with other places of slides and without what it does not know.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jpype
from paquo.projects import QuPathProject

from her2bridge.errors import DataFileDamaged, OutOfMemory, SlideError, SlideUnreadable, WriteFailed
from her2bridge.qupath.entry_files import EntryFiles, damaged
from her2bridge.qupath.file_project import FileProject, Loaded
from her2bridge.qupath.image_uris import find_slide, path_of
from her2bridge.qupath.seam import OWNERSHIP_KEY, ImageUpdate
from her2bridge.qupath.via_files.data_check import check_measurements, check_ours, check_rest
from her2bridge.qupath.via_files.data_file import Graph
from her2bridge.qupath.via_files.java_nodes import StreamError
from her2bridge.qupath.via_paquo.jvm import QuPath, paquo_version, quiet, release_of
from her2bridge.qupath.via_paquo.objects import Maker, graph_of
from her2bridge.storage import write_atomically

_END = b"t\x00\x03EOF"  # what a whole data file ends with; QuPath 0.5 reads for ever in one that does not


_SAVES_WITHOUT_SLIDE = (0, 6)  # from this release on QuPath opens a slide only when its pixels are asked for


def newer_than(qupath: QuPath, project_version: str) -> str | None:
    """Why this QuPath must not write a project: it is older than the one that wrote it. None where it may."""
    if release_of(project_version) <= qupath.release:
        return None
    return f"the project was written by QuPath {project_version}, newer than the QuPath {qupath.version} here"


class PaquoProject(FileProject):
    """A project, read and written by QuPath. See ``seam.Project``."""

    def __init__(self, path: Path, qupath: QuPath, relocations: Sequence[tuple[str, str]] = ()) -> None:
        """Open the ``project.qpproj`` at a path.

        Args:
            path: the file.
            qupath: a running one.
            relocations: (old, new) beginnings of slide paths or URIs: QuPath opens the slides, too.

        Raises:
            ProjectNotFound: no such file.
            ProjectDamaged: not what QuPath writes.
        """
        super().__init__(path)
        self.qupath = qupath
        self._relocations = relocations
        made_by = self.json.version or "an unknown version"
        self.backend = f"paquo {paquo_version()} (QuPath {qupath.version}; the project is of QuPath {made_by})"

    @property
    def read_only_reason(self) -> str | None:
        """See the seam."""
        return super().read_only_reason or newer_than(self.qupath, self.json.version)

    def load(self, entry_id: str) -> Loaded:
        """See ``FileProject``."""
        return _LoadedImage(self, entry_id)

    @functools.cached_property
    def in_qupath(self) -> Any:
        """paquo's project: an image's data file is read when it is asked for; the project file is never written."""
        return QuPathProject(str(self.path), mode="r")

    def place_of(self, uri: str) -> Path | None:
        """Where a slide lies now; None where its URI says so, or nothing does."""
        with contextlib.suppress(SlideError):
            found = find_slide(uri, folder=self.folder, saved_uri=self.saved_uri, relocations=self._relocations)
            return None if str(found) == str(path_of(uri)) else found
        return None


class _LoadedImage(Loaded):
    """An image's objects as QuPath read them, and the files that it read."""

    def __init__(self, project: PaquoProject, entry_id: str) -> None:
        super().__init__(EntryFiles(project.folder, entry_id))
        self._project = project
        self._entry_id = entry_id
        self._is_written = False
        if self.files.data is not None and not self.files.data.endswith(_END):
            raise damaged(str(self.files.data_path), "it is cut short")
        self._graph = self._read()

    @property
    def objects(self) -> Graph:
        """See ``Loaded``."""
        return self._graph

    def _read(self) -> Graph:
        path = str(self.files.data_path)
        try:
            with quiet():
                return graph_of(self._project.qupath, self._image.java_object.readHierarchy(), path)
        except jpype.JException as error:
            _refuse_out_of_memory(error, path)
            raise damaged(path, f"QuPath says {_first_line(error)}") from error

    @functools.cached_property
    def _image(self) -> Any:
        """paquo's image."""
        return next(one for one in self._project.in_qupath.images if one.entry_id == self._entry_id)

    def _set_uris_right(self) -> None:
        """Tell QuPath in memory where a slide that has moved lies now."""
        entry, java = self._image.java_object, self._project.qupath.java
        moved = java("java.util.HashMap")()
        for uri in entry.getURIs():
            place = self._project.place_of(str(uri))
            if place is not None:
                moved.put(uri, java("java.io.File")(str(place)).toPath().toUri())
        if moved.size():
            entry.updateURIs(moved)

    def apply(self, update: ImageUpdate) -> None:
        """Let QuPath write data file and summary, then write the project file; all or none."""
        self._check(update)
        with self._undone_on_error():
            with _translated(self.files.data_path):
                self._save_objects(update)
            self._project.json.set_metadata(self._entry_id, update.metadata)

    def _check(self, update: ImageUpdate) -> None:
        """Raise a ValueError where the update asks for what it may not."""
        marked = {one for columns in self._graph.marked for one in columns.ids}
        marked |= {one.id for one in self._graph.annotations() if OWNERSHIP_KEY in one.metadata}
        if not marked.issuperset(update.remove_ids):
            raise ValueError(f"not ours to remove: {', '.join(sorted({*update.remove_ids} - marked)[:5])}")
        annotations = {one.id for one in self._graph.annotations()}
        parents = {group.parent_ids[row] for group in update.tiles for row in group.parents.tolist()}
        if missing := parents - annotations - {None}:
            raise ValueError(f"no annotations to put tiles below: {', '.join(map(str, missing))}")

    def _save_objects(self, update: ImageUpdate) -> None:
        """Change QuPath's objects, let QuPath save them, and compare what it saved with what was asked for."""
        if self._project.qupath.release < _SAVES_WITHOUT_SLIDE:
            self._set_uris_right()
        image_data = _image_data(self._image)
        try:
            hierarchy = image_data.getHierarchy()
            self.files.check_writable()  # opening the slide took a while
            if int(hierarchy.nObjects()) != self._graph.count:
                raise damaged(str(self.files.data_path), "QuPath reads other objects than lie in it")
            self._change(hierarchy, update)
            self.files.check_writable()
            self._is_written = True
            self._image.java_object.saveImageData(image_data)
        finally:
            is_old = self._project.qupath.release < _SAVES_WITHOUT_SLIDE
            image_data.getServer().close() if is_old else image_data.close()
        if self.files.data is not None:  # QuPath keeps it only while it writes
            write_atomically(self.files.backup_path, self.files.data)
        try:
            saved = self._saved()
            check_measurements(self._graph, saved, update)
            check_ours(self._graph, saved, update)
            check_rest(self._graph, saved, update)
        except StreamError as error:
            raise DataFileDamaged(
                f"What QuPath saved is not what it was given ({error}); the file was put back as it was.",
                where=str(self.files.data_path),
                next_step="Run with --backend files, and please report this with the version of QuPath.",
            ) from error

    def _saved(self) -> Graph:
        """What lies in the file now, read by us: what QuPath wrote is not judged by QuPath."""
        return Graph(self.files.data_path.read_bytes(), str(self.files.data_path))

    def _change(self, hierarchy: Any, update: ImageUpdate) -> None:
        maker = Maker(self._project.qupath, self._project.path_classes)
        if update.remove_ids:
            marked = maker.marked(hierarchy.getAnnotationObjects())
            gone = [maker.by_id(update.remove_ids, some) for some in (hierarchy.getDetectionObjects(), marked)]
            gone[0].addAll(gone[1])
            hierarchy.removeObjects(gone[0], True)
        annotations = {str(one.getID()): one for one in hierarchy.getAnnotationObjects()}
        for group in update.tiles:
            for parent, tiles in maker.tiles(group).items():
                below = hierarchy.getRootObject() if parent is None else annotations[parent]
                below.addChildObjects(tiles)
        for one, annotation in annotations.items():
            maker.measure(annotation, update.region_measurements.get(one, {}), sorted(update.measurement_names))
        hierarchy.getRootObject().addChildObjects([maker.annotation(one) for one in update.annotations])

    @contextlib.contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """Put data file and summary back as they were, whatever goes wrong once QuPath has begun to write."""
        summary = self.files.summary_path.read_bytes() if self.files.summary_path.exists() else None
        try:
            yield
        except BaseException:
            if self._is_written:
                for path, data in ((self.files.data_path, self.files.data), (self.files.summary_path, summary)):
                    if data is None:
                        path.unlink(missing_ok=True)
                    else:
                        write_atomically(path, data)
            raise


def _image_data(image: Any) -> Any:
    """QuPath's ImageData; before 0.6 it wants to open the slide.

    Raises:
        SlideUnreadable: it cannot; nothing can be saved then, and nothing was.
    """
    reason: BaseException | None = None
    try:
        with quiet():
            image_data = image.java_object.readImageData()
        if image_data is not None:
            return image_data
    except jpype.JException as error:
        reason = error
    raise SlideUnreadable(
        "QuPath cannot open the slide of this image, and saves only images that it can open"
        f" ({_first_line(reason) if reason else 'no reader takes it'}).",
        where=image.image_name,
        next_step="Run with --backend files, which saves without opening slides.",
    ) from reason


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Java's errors on writing."""
    try:
        with quiet():
            yield
    except (jpype.JException, OSError) as error:
        _refuse_out_of_memory(error, str(path))
        raise WriteFailed(
            f"QuPath could not write ({_first_line(error)}).",
            where=str(path),
            next_step="Check that the folder may be written to and that the disk is not full, then run again.",
        ) from error


def _refuse_out_of_memory(error: BaseException, where: str) -> None:
    """Java's heap is too small for this image; the image is sound."""
    if "OutOfMemoryError" in type(error).__name__:
        raise OutOfMemory(
            "Java has not enough memory for this image; it was left as it was.",
            where=where,
            next_step="Give Java more (PAQUO_JAVA_OPTS='[\"-Xmx12g\"]'), or run with --backend files.",
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__

"""The seam over a project's own files: no QuPath, no JVM."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from her2bridge.errors import WriteFailed
from her2bridge.qupath.entry_files import EntryFiles
from her2bridge.qupath.file_project import FileProject, Loaded
from her2bridge.qupath.seam import ImageUpdate
from her2bridge.qupath.via_files.data_file import DataFile, new_data_file
from her2bridge.qupath.via_files.data_update import updated
from her2bridge.qupath.via_files.summary import server_summary, summary_of
from her2bridge.storage import write_atomically

_NEW_LIKE = "0.6.0"  # whose data files ours are like, where the project does not say who wrote it


class FilesProject(FileProject):
    """A project, read and written as files. See ``seam.Project``."""

    def __init__(self, path: Path, why: str = "") -> None:
        """Open the ``project.qpproj`` at a path.

        Args:
            path: the file.
            why: why this backend was taken, for those who read ``backend``.

        Raises:
            ProjectNotFound: no such file.
            ProjectDamaged: not what QuPath writes.
        """
        super().__init__(path)
        notes = [*([why] if why else []), f"the project is of QuPath {self.json.version or 'an unknown version'}"]
        self.backend = f"files ({'; '.join(notes)})"

    def load(self, entry_id: str) -> Loaded:
        """See ``FileProject``."""
        return _LoadedFile(self, entry_id)


class _LoadedFile(Loaded):
    """An image's data file; one without objects where there is none."""

    def __init__(self, project: FilesProject, entry_id: str) -> None:
        super().__init__(EntryFiles(project.folder, entry_id))
        self._project = project
        self._entry_id = entry_id
        self._is_written = False
        self._server: Mapping[str, Any] = project.json.image(entry_id)["serverBuilder"]
        where = str(self.files.data_path)
        if self.files.data is not None:
            self._file = DataFile(self.files.data, where)
        else:
            key = f"{project.path}::{entry_id}"
            version = project.json.version or _NEW_LIKE
            self._file = new_data_file(self._server, [], qupath_version=version, entry_key=key, where=where)

    @property
    def objects(self) -> DataFile:
        """See ``Loaded``."""
        return self._file

    def apply(self, update: ImageUpdate) -> None:
        """Write data file, summary and project file, in this order; all or none."""
        new = updated(self._file, update)
        try:
            self._write(new)
            self._project.json.set_metadata(self._entry_id, update.metadata)
        except BaseException:
            self._put_back()
            raise

    def _write(self, new: DataFile) -> None:
        path, backup = self.files.data_path, self.files.backup_path
        self._is_written = write_atomically(path, new.data, backup=backup, only_if=self.files.is_unchanged)
        if not self._is_written:
            raise self.files.changed()
        self._write_summary(new)

    def _put_back(self) -> None:
        """Undo ``_write``, without need of room on the disk."""
        if not self._is_written:
            return
        if self.files.data is None:
            self.files.data_path.unlink(missing_ok=True)
            self.files.summary_path.unlink(missing_ok=True)
            return
        with contextlib.suppress(FileNotFoundError):  # a read that failed is no reason to lose more
            self.files.backup_path.replace(self.files.data_path)
        with contextlib.suppress(WriteFailed):  # counts for show only
            self._write_summary(self._file)

    def _write_summary(self, file: DataFile) -> None:
        milliseconds = int(self.files.data_path.stat().st_mtime * 1000)
        write_atomically(self.files.summary_path, summary_of(file, self._server_summary(), milliseconds))

    def _server_summary(self) -> Mapping[str, Any]:
        try:
            stated = json.loads(self.files.summary_path.read_bytes())["server"]
        except (OSError, ValueError, LookupError, TypeError):
            stated = None
        return stated if isinstance(stated, dict) else server_summary(self._server)

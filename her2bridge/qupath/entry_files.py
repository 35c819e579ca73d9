"""The files of one image in a project's ``data`` folder, as far as both backends handle them alike."""

from __future__ import annotations

import re
from pathlib import Path

from her2bridge.errors import ChangedOnDisk, DataFileDamaged, DataFileVersion
from her2bridge.storage import read_if_there, sha256_of

KNOWN_VERSION = 3
"""The data file version that QuPath 0.4 to 0.7 write, and that we write."""

_FIRST_LINE = re.compile(rb"Data file version (\d+)")


class EntryFiles:
    """An image's data file as it was when it was read.

    Attributes:
        data_path: ``data.qpdata``.
        backup_path: where the data file before it is kept.
        summary_path: ``summary.json``.
        data: the data file's bytes; None where there is none.
    """

    def __init__(self, project_folder: Path, entry_id: str) -> None:
        """Read it.

        Raises:
            DataFileDamaged: it cannot be read, or QuPath was stopped as it saved.
        """
        folder = project_folder / "data" / entry_id
        self.data_path = folder / "data.qpdata"
        self.backup_path = folder / "data.qpdata.bkp"
        self.summary_path = folder / "summary.json"
        try:
            self.data = read_if_there(self.data_path)
        except OSError as error:
            raise damaged(str(self.data_path), error.strerror or type(error).__name__) from error
        self._hash = None if self.data is None else sha256_of(self.data)
        if self.data is None and self.backup_path.exists():  # QuPath puts it there while it writes
            raise DataFileDamaged(
                "The image's data file is missing, and QuPath's backup of it is there: QuPath was stopped as it saved.",
                where=str(self.backup_path),
                next_step="Open the image in QuPath, which reads the backup, and save it; then run again.",
            )

    @property
    def read_only_reason(self) -> str | None:
        """Why it must not be written: its version is another than ours. None where it may be."""
        match = _FIRST_LINE.search(self.data or b"", 0, 64)
        if match is None or int(match[1]) == KNOWN_VERSION:
            return None
        return f"its data file is of version {int(match[1])}, and her2bridge writes version {KNOWN_VERSION}"

    def check_writable(self) -> None:
        """See that the file may be written, and is the one that was read.

        Raises:
            DataFileVersion: ``read_only_reason``.
            ChangedOnDisk: QuPath saved the image meanwhile.
        """
        if self.read_only_reason is not None:
            raise DataFileVersion(
                f"The image is read-only here: {self.read_only_reason}.",
                where=str(self.data_path),
                next_step="Update her2bridge, or save the image with a QuPath of 0.5 to 0.7.",
            )
        if not self.is_unchanged():
            raise self.changed()

    def is_unchanged(self) -> bool:
        """Whether the file on the disk is the one that was read."""
        try:
            now = read_if_there(self.data_path)
        except OSError as error:
            raise damaged(str(self.data_path), error.strerror or type(error).__name__) from error
        return self._hash == (None if now is None else sha256_of(now))

    def changed(self) -> ChangedOnDisk:
        """The error of a file that is no longer the one that was read."""
        return ChangedOnDisk(
            "QuPath saved this image while it was being scored; the image was left as QuPath saved it.",
            where=str(self.data_path),
            next_step="Close the project in QuPath, then bring the results in: her2bridge restore PROJECT.",
        )


def damaged(where: str, reason: str) -> DataFileDamaged:
    """The error of a data file that cannot be read."""
    backup = Path(where).with_name("data.qpdata.bkp")
    copies = f"{backup.name}, which lies beside it, or " if backup.exists() else ""
    return DataFileDamaged(
        f"The image's data file cannot be read: {reason}.",
        where=where,
        next_step=f"Put back {copies}a copy of your own, and run again. Don't try it in QuPath 0.5, which can hang on a"
        " file that is cut short.",
    )

"""The error tree. Every error says three things: what happened, where, and what to do next.

    Her2BridgeError
    ├── UsageError              a setting that cannot be, or cannot be together with another
    ├── ProjectError            the QuPath project as a whole
    │   ├── ProjectNotFound
    │   ├── ProjectDamaged      JSON that is not what QuPath writes
    │   ├── ProjectReadOnly     newer than we know, or not ours to write; results go to the side files
    │   ├── ProjectLocked       another her2bridge is writing
    │   └── BackendUnavailable  paquo asked for, no QuPath there
    ├── DataFileError           one image's data.qpdata
    │   ├── DataFileDamaged     truncated or not a data file
    │   ├── DataFileVersion     a version we may read but not write
    │   └── ChangedOnDisk       QuPath saved while we were working
    ├── SlideError              one image's pixels
    │   ├── SlideNotFound
    │   ├── SlideUnreadable
    │   ├── UnsupportedServer   an image server or builder that we do not know
    │   ├── NoCalibration       no µm/px anywhere, or one we cannot work with
    │   └── SizeMismatch        the file is not the image that QuPath knew
    ├── RegionError
    │   ├── NoRegions
    │   └── BadRegion           outside the image, or no area
    ├── ModelError
    │   ├── BundleNotFound
    │   ├── BundleDamaged       a hash that is wrong, keys that are missing
    │   └── DeviceUnavailable
    ├── DatasetError            labelled tiles
    │   ├── DatasetNotFound
    │   ├── DatasetDamaged
    │   └── NotEnoughLabels     a class, a patient or a split that is wanted and is not there
    ├── NoEarlierScore          nothing to recalculate, or not with this model
    ├── OutOfMemory             Java's heap is too small for an image
    ├── WriteFailed             a full disk, a folder that cannot be written
    └── Interrupted             Ctrl-C, after what was finished has been kept

Foreign errors are translated where they enter the house and chained with ``from``. This module is a leaf.
"""

from __future__ import annotations


class Her2BridgeError(Exception):
    """Base of all our errors.

    Attributes:
        what: what happened, one sentence.
        where: the file, image, region or option it happened to.
        next_step: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str, next_step: str) -> None:
        super().__init__(what, where, next_step)
        self.what = what
        self.where = where
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.what}\n  where: {self.where}\n  next:  {self.next_step}"


class UsageError(Her2BridgeError):
    """A setting that cannot be. Exit code 2."""

    exit_code = 2


class ProjectError(Her2BridgeError):
    """The QuPath project as a whole."""


class ProjectNotFound(ProjectError):
    """No ``project.qpproj`` where one was named."""

    exit_code = 2


class ProjectDamaged(ProjectError):
    """A project file whose JSON is not what QuPath writes."""


class ProjectReadOnly(ProjectError):
    """A project that we may read and must not write."""


class ProjectLocked(ProjectError):
    """Another her2bridge is writing to this project."""


class BackendUnavailable(ProjectError):
    """The backend that was asked for cannot run here."""

    exit_code = 2


class DataFileError(Her2BridgeError):
    """One image's ``data.qpdata``."""


class DataFileDamaged(DataFileError):
    """Truncated, or not a QuPath data file."""


class DataFileVersion(DataFileError):
    """A data file version that we do not write."""


class ChangedOnDisk(DataFileError):
    """The file is no longer the one that was read."""


class SlideError(Her2BridgeError):
    """One image's pixels."""


class SlideNotFound(SlideError):
    """The slide file is missing or has moved."""


class SlideUnreadable(SlideError):
    """The slide file is there, and no reader opens it."""


class UnsupportedServer(SlideError):
    """An image server or builder of QuPath's that we do not know."""


class NoCalibration(SlideError):
    """No usable µm/px."""


class SizeMismatch(SlideError):
    """The file's width × height are not those that QuPath recorded."""


class RegionError(Her2BridgeError):
    """The regions of one image."""


class NoRegions(RegionError):
    """No annotation of a class that is scored."""


class BadRegion(RegionError):
    """A region that cannot be tiled."""


class ModelError(Her2BridgeError):
    """The model bundle or the device it should run on."""


class BundleNotFound(ModelError):
    """No bundle of that name or at that path."""

    exit_code = 2


class BundleDamaged(ModelError):
    """A bundle that is not what its card says."""


class DeviceUnavailable(ModelError):
    """The device that was asked for is not here."""

    exit_code = 2


class DatasetError(Her2BridgeError):
    """Labelled tiles."""


class DatasetNotFound(DatasetError):
    """No dataset where one was named."""

    exit_code = 2


class DatasetDamaged(DatasetError):
    """A dataset that is not what its card says."""


class NotEnoughLabels(DatasetError):
    """A class, a patient or a split that is wanted and is not there."""


class NoEarlierScore(Her2BridgeError):
    """Tiles of earlier runs are wanted, and there are none, or they are of another model."""


class OutOfMemory(Her2BridgeError):
    """There is not enough memory for an image, which itself is sound."""


class WriteFailed(Her2BridgeError):
    """A file could not be written; what was there before is there still."""


class Interrupted(Her2BridgeError):
    """Ctrl-C. Exit code 130."""

    exit_code = 130

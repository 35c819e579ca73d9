"""Where labels come from: the images of QuPath projects, and slides with a GeoJSON file each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from her2bridge.errors import NotEnoughLabels, UsageError
from her2bridge.qupath.geojson import read_regions
from her2bridge.qupath.open import open_project, project_file
from her2bridge.qupath.results import no_tiles
from her2bridge.qupath.seam import PathObject, StoredTiles
from her2bridge.qupath.server_builder import slide_source
from her2bridge.records import SlideSource


@dataclass(frozen=True, eq=False)
class LabelImage:
    """An image that may hold labels; nothing of it has been read.

    Attributes:
        name: as the project shows it, or the slide file's.
        annotator: who drew its labels.
        metadata: of the image in the project.
        annotations: reads them.
        stored: reads the tiles of earlier runs.
        source: finds its pixels.
        project: the QuPath project's file; None where there is none.
        entry: the image's entryID there.
    """

    name: str
    annotator: str
    metadata: Mapping[str, str]
    annotations: Callable[[], Sequence[PathObject]]
    stored: Callable[[], StoredTiles]
    source: Callable[[], SlideSource]
    project: Path | None = None
    entry: str | None = None


@dataclass(frozen=True)
class ProjectLabels:
    """A QuPath project whose regions are labels.

    Attributes:
        path: the ``.qpproj`` or its folder.
        annotator: who drew them; None for the name of the project's folder.
        backend: ``auto``, ``paquo`` or ``files``.
        relocations: (old, new) beginnings of slide paths or URIs.
    """

    path: Path
    annotator: str | None = None
    backend: str = "auto"
    relocations: tuple[tuple[str, str], ...] = ()

    def images(self) -> Iterator[LabelImage]:
        """The project's images, in its order.

        Raises:
            ProjectError: it cannot be opened.
        """
        project = open_project(self.path, self.backend, relocations=self.relocations)
        annotator = self.annotator or project.folder.name
        for entry in project.entries:

            def source(server: Mapping[str, object] = entry.server_json) -> SlideSource:
                return slide_source(
                    server, folder=project.folder, saved_uri=project.saved_uri, relocations=self.relocations
                )

            yield LabelImage(
                name=entry.name,
                annotator=annotator,
                metadata=entry.metadata,
                annotations=entry.annotations,
                stored=entry.stored_tiles,
                source=source,
                project=project.path,
                entry=entry.id,
            )

    def __str__(self) -> str:
        return str(project_file(self.path))


@dataclass(frozen=True)
class PairLabels:
    """A slide and the annotations that QuPath exported of it as GeoJSON.

    Attributes:
        slide: its file.
        regions: the GeoJSON's.
        annotator: who drew them; None for the name of the GeoJSON's folder.
    """

    slide: Path
    regions: Path
    annotator: str | None = None

    def images(self) -> Iterator[LabelImage]:
        """The one image."""
        yield LabelImage(
            name=self.slide.name,
            annotator=self.annotator or self.regions.absolute().parent.name,
            metadata={},
            annotations=lambda: read_regions(self.regions),
            stored=no_tiles,
            source=lambda: SlideSource(self.slide.absolute(), use_bounds=True),
        )

    def __str__(self) -> str:
        return str(self.regions)


LabelSource = ProjectLabels | PairLabels


def metadata_value(metadata: Mapping[str, str], key: str) -> str:
    """What stands under a key, in whatever case it is written; empty where nothing does."""
    wanted = key.strip().casefold()
    found = [value for name, value in metadata.items() if name.strip().casefold() == wanted]
    return (found[0] or "").strip() if found else ""


@dataclass(frozen=True)
class PatientRule:
    """Whose a slide is.

    Attributes:
        key: the image's metadata key that says so, in any case.
        pattern: regular expression whose first group in the image's name says so.

    Raises:
        UsageError: both are given, or the pattern is none.
    """

    key: str | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        if self.key is not None and self.pattern is not None:
            where = "--patient-key, --patient-pattern"
            raise UsageError("The patient is named in two ways.", where=where, next_step="Give one of them.")
        if self.pattern is None:
            return
        example = r"Put the part that names the patient in brackets, for instance '^(P\d+)_'."
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            what = f"--patient-pattern is no regular expression ({error})."
            raise UsageError(what, where=self.pattern, next_step=example) from error
        if not groups:
            raise UsageError("--patient-pattern has no group.", where=self.pattern, next_step=example)

    @property
    def is_stated(self) -> bool:
        """Whether anything says whose a slide is."""
        return self.key is not None or self.pattern is not None

    def patient_of(self, image: LabelImage) -> str | None:
        """The patient's name; None where nothing says it.

        Raises:
            NotEnoughLabels: the image has no such key, or another name. Taken as a patient of its own, it could stand
                in two splits.
        """
        found: str | None = None
        if self.key is not None:
            found = metadata_value(image.metadata, self.key)
        elif self.pattern is not None:
            match = re.search(self.pattern, image.name)
            found = (match[1] or "").strip() if match else ""
        if found == "":
            told = f"no metadata key {self.key}" if self.key is not None else f"a name that {self.pattern} does not fit"
            next_step = "Set it in QuPath (Project tab, Edit metadata), or give another rule."
            if self.key is not None and image.project is None:
                next_step = "A slide without a project has no metadata: give --patient-pattern, which reads its name."
            elif self.key is None:
                next_step = "Give a --patient-pattern that fits it, or name patients in QuPath and give --patient-key."
            raise NotEnoughLabels(
                f"The image's patient is not known: it has {told}.", where=image.name, next_step=next_step
            )
        return found

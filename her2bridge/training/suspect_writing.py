"""Suspect labels to where they can be looked at: the QuPath projects that the labels came from, else GeoJSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from her2bridge.errors import BackendUnavailable, Her2BridgeError, ProjectDamaged, UsageError
from her2bridge.events import Emit, Warned
from her2bridge.qupath.annotation_file import write_annotations
from her2bridge.qupath.open import open_project
from her2bridge.qupath.seam import Entry, ImageUpdate, PathObject, Project
from her2bridge.qupath.suspect_labels import SUSPECT_CLASS, is_suspect, suspect_annotation
from her2bridge.records import Float32Array, IntArray, TileClass
from her2bridge.training.dataset import Dataset, LabelledSlide
from her2bridge.training.progress import ticker


@dataclass(frozen=True)
class SuspectsWritten:
    """Where suspect labels are now.

    Attributes:
        in_projects: how many annotations stand in projects.
        in_files: how many stand in GeoJSON files.
        files: those files, one a slide.
    """

    in_projects: int
    in_files: int
    files: tuple[Path, ...]


def write_suspects(
    dataset: Dataset,
    rows: IntArray,
    found: IntArray,
    probabilities: Float32Array,
    emit: Emit,
    *,
    backend: str = "auto",
    relocations: Sequence[tuple[str, str]] = (),
    folder: Path,
) -> SuspectsWritten:
    """Put an annotation over each suspect tile, in place of all that stand on the dataset's slides from before.

    An image that cannot be written is told as ``Warned``, and gets a file instead; it stops no other.

    Args:
        dataset: what was evaluated.
        rows: the m suspect tiles.
        found: what the model says of each, ``TileClass`` values, int64 [m].
        probabilities: how sure it is of that, float32 [m].
        emit: hears how far it is, and what went wrong.
        backend: see ``open_project``.
        relocations: likewise.
        folder: takes ``<slide key>.geojson`` of slides without a project, or with one that cannot be written.

    Raises:
        UsageError: there is no such backend.
        BackendUnavailable: it cannot run here.
        WriteFailed: the folder cannot be written.
    """
    wanted = _annotations(dataset, rows, found, probabilities)
    tell, done = ticker("writing suspect labels", len(dataset.slides), emit), set[int]()
    by_project: dict[Path, list[int]] = {}
    for number, slide in enumerate(dataset.slides):
        if slide.project is not None:
            by_project.setdefault(slide.project, []).append(number)

    def keep(number: int) -> None:
        done.add(number)
        tell(len(done))

    for path, numbers in by_project.items():
        slides = {number: (dataset.slides[number], wanted[number]) for number in numbers}
        try:
            _into_project(open_project(path, backend, relocations=relocations), slides, keep, emit)
        except (UsageError, BackendUnavailable):
            raise
        except Her2BridgeError as error:
            emit(Warned(None, f"{error.what} Suspect labels go to files instead, beside the other figures."))
    files = _into_files(folder, dataset, {n: wanted[n] for n in range(len(wanted)) if n not in done})
    tell(len(dataset.slides))
    counts = [len(some) for some in wanted]
    in_projects = sum(counts[number] for number in done)
    return SuspectsWritten(in_projects, sum(counts) - in_projects, files)


def _annotations(
    dataset: Dataset, rows: IntArray, found: IntArray, probabilities: Float32Array
) -> list[list[PathObject]]:
    """Those of each slide."""
    tiles = dataset.tiles
    wanted: list[list[PathObject]] = [[] for _ in dataset.slides]
    for row, said, probability in zip(rows.tolist(), found.tolist(), probabilities.tolist(), strict=True):
        labelled = TileClass(int(tiles.labels[row]))
        one = suspect_annotation(tiles.origins[row], float(tiles.sides[row]), labelled, TileClass(said), probability)
        wanted[int(tiles.slide[row])].append(one)
    return wanted


def _into_project(
    project: Project,
    slides: dict[int, tuple[LabelledSlide, list[PathObject]]],
    keep: Callable[[int], None],
    emit: Emit,
) -> None:
    """Write the images of one project; ``keep`` is told which are done.

    Raises:
        ProjectError: it cannot be written as a whole.
    """
    entries = {entry.id: entry for entry in project.entries}
    with project.writing():
        for number, (slide, some) in slides.items():
            try:
                _into_entry(project, _entry_of(slide, entries, project), some)
            except Her2BridgeError as error:
                emit(Warned(slide.name, f"{error.what} Its suspect labels go to a file instead."))
            else:
                keep(number)


def _entry_of(slide: LabelledSlide, entries: dict[str, Entry], project: Project) -> Entry:
    """The image that the slide's labels came from.

    Raises:
        ProjectDamaged: it is gone, or another one has its place.
    """
    entry = entries.get(slide.entry or "")
    if entry is None or entry.name != slide.name:
        raise ProjectDamaged(
            "The project no longer has the image that the labels came from.",
            where=str(project.path),
            next_step="Make the dataset again with her2bridge labels.",
        )
    return entry


def _into_entry(project: Project, entry: Entry, wanted: list[PathObject]) -> None:
    """Exchange an image's suspect labels; where it has none and gets none, nothing is written."""
    earlier = [one.id for one in entry.annotations() if is_suspect(one)]
    if wanted:
        project.merge_path_classes([SUSPECT_CLASS])
    if earlier or wanted:
        entry.apply(ImageUpdate(earlier, [], {}, frozenset(), {}, wanted))


def _into_files(folder: Path, dataset: Dataset, wanted: dict[int, list[PathObject]]) -> tuple[Path, ...]:
    """A file for each slide that has suspect labels; one from before goes where there are none now."""
    files = []
    for number, some in wanted.items():
        path = folder / f"{dataset.slides[number].key}.geojson"
        if some:
            write_annotations(path, some)
            files.append(path)
        else:
            path.unlink(missing_ok=True)
    return tuple(files)

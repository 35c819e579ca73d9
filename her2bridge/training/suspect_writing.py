"""Suspect labels to where they can be looked at: the QuPath projects that the labels came from, else GeoJSON."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from her2bridge.errors import BackendUnavailable, DatasetDamaged, Her2BridgeError, ProjectDamaged, UsageError
from her2bridge.events import Emit, Warned
from her2bridge.qupath.annotation_file import write_annotations
from her2bridge.qupath.geojson import read_regions
from her2bridge.qupath.open import open_project
from her2bridge.qupath.seam import Entry, ImageUpdate, PathObject, Project
from her2bridge.qupath.suspect_labels import SUSPECT_CLASS, is_suspect, suspect_annotation
from her2bridge.records import Float32Array, IntArray, TileClass
from her2bridge.training.dataset import Dataset
from her2bridge.training.export import file_names
from her2bridge.training.progress import ticker


@dataclass(frozen=True)
class SuspectsWritten:
    """Where suspect labels are now.

    Attributes:
        in_projects: how many stand in projects; in those of several people each counts once.
        in_files: how many stand in GeoJSON files, those of slides that one of several projects does not have.
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

    A slide whose labels came from several projects has them in each, for whose label it is that is wrong nobody knows.
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
        DatasetDamaged: the card's ``also_in`` is not what ``her2bridge labels`` writes.
        UsageError: there is no such backend.
        BackendUnavailable: it cannot run here.
        WriteFailed: the folder cannot be written.
    """
    wanted = _annotations(dataset, rows, found, probabilities)
    places = _places(dataset)
    tell = ticker("writing suspect labels", len(dataset.slides), emit)
    done = set[_Place]()

    def keep(place: _Place) -> None:
        done.add(place)
        tell(len({one.slide for one in done}))

    for path in dict.fromkeys(place.project for place in places):
        some = [(place, wanted[place.slide]) for place in places if place.project == path]
        try:
            _into_project(open_project(path, backend, relocations=relocations), some, keep, emit)
        except (UsageError, BackendUnavailable):
            raise
        except Her2BridgeError as error:
            emit(Warned(None, f"{error.what} Suspect labels go to files instead, beside the other figures."))
    written = {place.slide for place in done}
    lacking = {place.slide for place in places if place not in done} | (set(range(len(wanted))) - written)
    files = _into_files(folder, dataset, {number: wanted[number] for number in sorted(lacking) if wanted[number]})
    tell(len(dataset.slides))
    in_projects, in_files = (sum(len(wanted[number]) for number in some) for some in (written, lacking))
    return SuspectsWritten(in_projects, in_files, files)


def remove_suspect_files(folder: Path, keep: Collection[Path] = ()) -> None:
    """Remove what earlier calls wrote: GeoJSON files that hold nothing but suspect labels, as they were written."""
    for path in folder.glob("*.geojson"):
        if path in keep:
            continue
        try:
            found = read_regions(path)
        except Her2BridgeError:
            continue  # none of ours
        if found and all(map(is_suspect, found)):
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Place:
    """An image of a project that labels of a slide, by its number, came from."""

    slide: int
    project: Path
    entry: str | None
    name: str


def _places(dataset: Dataset) -> list[_Place]:
    """All of them; ``also_in`` of the dataset's card names those beyond the first of a slide."""
    numbers = {slide.key: number for number, slide in enumerate(dataset.slides)}
    first = [
        _Place(number, slide.project, slide.entry, slide.name)
        for number, slide in enumerate(dataset.slides)
        if slide.project is not None
    ]
    try:
        return first + [_place_of(one, numbers) for one in dataset.card.get("also_in", ())]
    except (KeyError, TypeError) as error:
        raise DatasetDamaged(
            "The dataset does not say well from which other projects its labels came (also_in).",
            where=str(dataset.folder),
            next_step="Make it again with her2bridge labels.",
        ) from error


def _place_of(plain: Mapping[str, str], numbers: Mapping[str, int]) -> _Place:
    return _Place(numbers[plain["key"]], Path(plain["project"]), plain["entry"], plain["name"])


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
    wanted: Sequence[tuple[_Place, list[PathObject]]],
    keep: Callable[[_Place], None],
    emit: Emit,
) -> None:
    """Write the images of one project; ``keep`` is told which are done.

    Raises:
        ProjectError: it cannot be written as a whole.
    """
    entries = {entry.id: entry for entry in project.entries}
    with project.writing():
        for place, some in wanted:
            try:
                _into_entry(project, _entry_of(place, entries, project), some)
            except Her2BridgeError as error:
                emit(Warned(place.name, f"{error.what} Its suspect labels go to a file instead."))
            else:
                keep(place)


def _entry_of(place: _Place, entries: dict[str, Entry], project: Project) -> Entry:
    """The image that the labels came from.

    Raises:
        ProjectDamaged: it is gone, or another one has its place.
    """
    entry = entries.get(place.entry or "")
    if entry is None or entry.name != place.name:
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
    """A file for each of these slides; those from before go."""
    names = file_names([slide.key for slide in dataset.slides])
    files = {folder / f"{names[number]}.geojson": some for number, some in wanted.items()}
    for path, some in files.items():
        write_annotations(path, some)
    remove_suspect_files(folder, files)
    return tuple(files)

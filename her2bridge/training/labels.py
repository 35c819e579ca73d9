"""Labels to tiles: of all images of projects and of GeoJSON files, with an account of what was left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from her2bridge.errors import Her2BridgeError, NotEnoughLabels, SlideNotFound, UsageError
from her2bridge.events import Emit, ImageFailed, LabelsRead, Warned, counts_by_label
from her2bridge.qupath.label_classes import ClassUse
from her2bridge.qupath.suspect_labels import is_suspect
from her2bridge.records import BoolArray, SlideSource, TileClass, TileCounts
from her2bridge.training.dataset import LabelledSlide, TileTable, fingerprint_of
from her2bridge.training.label_areas import Conflict
from her2bridge.training.label_image import ImageLabels, LabelSettings, has_labels, label_image
from her2bridge.training.label_sources import LabelImage, LabelSource, PairLabels, PatientRule, ProjectLabels
from her2bridge.training.progress import ticker

__all__ = ["Collected", "LabelSettings", "LabelSource", "PairLabels", "PatientRule", "ProjectLabels", "collect"]

DISPUTED = "tiles that two people label differently"
TWICE = "tiles labelled twice alike"


@dataclass(frozen=True, eq=False)
class Collected:
    """What was found.

    Attributes:
        slides: those that labelled tiles lie on.
        tiles: their splits are empty.
        classes: every class of the annotations, how many have it, and what became of them.
        corrected: how many of the tiles a person corrected after a run.
        left_out: regions and tiles by reason.
        conflicts: the image, and two of its areas of different labels that overlap in part.
        failed: names of images that could not be read.
        also_in: further images of projects that labels of a slide came from: key, project, entry and name.
    """

    slides: tuple[LabelledSlide, ...]
    tiles: TileTable
    classes: tuple[tuple[ClassUse, int], ...]
    corrected: int
    left_out: Mapping[str, int]
    conflicts: tuple[tuple[str, Conflict], ...]
    failed: tuple[str, ...]
    also_in: tuple[Mapping[str, str | None], ...] = ()

    def plain(self) -> dict[str, Any]:
        """The account for ``dataset.json``."""
        return {
            "classes": [{"class": use.name, "regions": n, "becomes": use.becomes} for use, n in self.classes],
            "corrected_tiles": self.corrected,
            "left_out": dict(self.left_out),
            "conflicts": [
                {"image": image, "first": one.first, "second": one.second, "area_px2": round(one.area, 1)}
                for image, one in self.conflicts
            ],
            "failed_images": list(self.failed),
            "also_in": [dict(one) for one in self.also_in],
        }


@dataclass(frozen=True, eq=False)
class _Labelled:
    """An image and its labels; ``patient`` is None where nothing says whose it is."""

    image: LabelImage
    source: SlideSource
    fingerprint: str
    patient: str | None
    labels: ImageLabels

    @property
    def identity(self) -> tuple[Any, ...]:
        """Images that share it show the same pixels at the same places."""
        source = self.source
        return self.fingerprint, source.series, source.use_bounds, source.view, round(self.labels.mpp, 6)


@dataclass
class _Tally:
    """What is counted on the way."""

    uses: dict[str, ClassUse] = field(default_factory=dict)
    regions: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    conflicts: list[tuple[str, Conflict]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def collect(
    sources: Sequence[LabelSource],
    settings: LabelSettings,
    emit: Emit,
    *,
    patients: PatientRule | None = None,
    images: Sequence[str] = (),
) -> Collected:
    """Lay the labelled tiles of all images.

    An image that fails is told as ``ImageFailed`` and stops no other. Where a slide occurs twice, tiles of one place
    and label become one; of different labels none is kept, but a corrected tile counts above regions.

    Args:
        patients: whose the slides are; by default each is its own patient's.
        images: names of those wanted; empty for all.

    Raises:
        UsageError: an image that is named is nowhere; a file of regions is none.
        ProjectError: a project cannot be opened.
        NotEnoughLabels: there is no labelled tile.
    """
    rule = patients or PatientRule()
    wanted = _wanted([one for source in sources for one in source.images()], images)
    tally = _Tally()
    tell = ticker("reading labels", len(wanted), emit)
    labelled = []
    for done, image in enumerate(wanted, start=1):
        try:
            found = _labelled(image, settings, rule, tally, emit)
        except UsageError:
            raise
        except Her2BridgeError as error:
            tally.failed.append(image.name)
            emit(ImageFailed(image.name, type(error).__name__, error.what, error.where, error.next_step))
        else:
            labelled += [] if found is None else [found]
        tell(done)
    _warn_of_classes(tally, settings, emit)
    if not any(len(one.labels) for one in labelled):
        raise _no_labels(sources, tally)
    if not rule.is_stated:
        emit(Warned(None, "each slide is taken as a patient's of its own: --patient-key or --patient-pattern say more"))
    slides, tiles, corrected, also_in = _merged(labelled, tally, emit)
    return Collected(
        slides=slides,
        tiles=tiles,
        corrected=corrected,
        classes=tuple((tally.uses[name], count) for name, count in tally.regions.most_common()),
        left_out=dict(tally.left_out),
        conflicts=tuple(tally.conflicts),
        failed=tuple(tally.failed),
        also_in=also_in,
    )


def _wanted(found: Sequence[LabelImage], names: Sequence[str]) -> list[LabelImage]:
    known = {image.name for image in found}
    for name in names:
        if name not in known:
            some = ", ".join(sorted(known)[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
            raise UsageError(
                f"No image is called {name!r}.", where="--image", next_step=f"There are: {some or 'none'}."
            )
    return [image for image in found if not names or image.name in names]


def _labelled(
    image: LabelImage, settings: LabelSettings, rule: PatientRule, tally: _Tally, emit: Emit
) -> _Labelled | None:
    """The labels of one image; None where it has none."""
    annotations, stored = image.annotations(), image.stored()
    for annotation in annotations:
        if not is_suspect(annotation):
            use = settings.classes.use_of(annotation.path_class)
            tally.uses.setdefault(use.name, use)
            tally.regions[use.name] += 1
    if not has_labels(annotations, stored, settings):
        emit(LabelsRead(image.name, {}, {}))
        return None
    patient, source = rule.patient_of(image), image.source()
    labels = label_image(annotations, stored, source, settings)
    for note in labels.notes:
        emit(Warned(image.name, note))
    for one in labels.conflicts:
        told = f"conflict: {one.first} and {one.second} overlap by {one.area:,.0f} px²; the overlap is left out"
        emit(Warned(image.name, told))
    tally.left_out.update(labels.left_out)
    tally.conflicts += [(image.name, one) for one in labels.conflicts]
    counts = TileCounts.of(labels.labels)
    emit(LabelsRead(image.name, counts_by_label(counts), labels.left_out))
    return _Labelled(image, source, _fingerprint(source), patient, labels)


def _fingerprint(source: SlideSource) -> str:
    try:
        return fingerprint_of(source.path)
    except OSError as error:
        what = f"The slide cannot be read any more ({error.strerror})."
        raise SlideNotFound(what, where=str(source.path), next_step="Connect the drive it lies on.") from error


def _warn_of_classes(tally: _Tally, settings: LabelSettings, emit: Emit) -> None:
    """Classes whose regions a person may have meant as labels, and those that are mapped and nowhere."""
    for name, use in tally.uses.items():
        if use.is_open:
            emit(Warned(None, f"regions classed {name} are not used, {tally.regions[name]}: {use.reason}"))
    unheard = settings.classes.unheard(tally.uses)
    if unheard:
        emit(Warned(None, f"the mapping file names classes that no region has: {', '.join(unheard)}"))


def _no_labels(sources: Sequence[LabelSource], tally: _Tally) -> NotEnoughLabels:
    classes = "; ".join(f"{name}, {n}: {tally.uses[name].becomes}" for name, n in tally.regions.most_common())
    left_out = "; ".join(f"{reason}: {count}" for reason, count in tally.left_out.items())
    return NotEnoughLabels(
        f"There is no labelled tile{f' ({left_out})' if left_out else ''}.",
        where=", ".join(map(str, sources)),
        next_step=f"The annotations' classes are: {classes or 'none, for there are no annotations'}. Class regions 0, "
        "1+, 2+, 3+, Normal or Noise in QuPath, or say with --mapping FILE what your classes mean.",
    )


def _merged(
    labelled: Sequence[_Labelled], tally: _Tally, emit: Emit
) -> tuple[tuple[LabelledSlide, ...], TileTable, int, tuple[Mapping[str, str | None], ...]]:
    """Each slide once, its tiles, how many of all a person corrected, and where else labels of a slide came from."""
    groups: dict[tuple[Any, ...], list[_Labelled]] = defaultdict(list)
    for one in labelled:
        if len(one.labels):
            groups[one.identity].append(one)
    patients = _patients([one for members in groups.values() for one in members], emit)
    keys = _unique([members[0].image.name for members in groups.values()])
    slides, kept, also_in = [], [], []
    for members, key in zip(groups.values(), keys, strict=True):
        first = members[0]
        images = {(one.image.project, one.image.entry): one.image for one in members}
        also_in += [
            {"key": key, "project": str(image.project), "entry": image.entry, "name": image.name}
            for image in images.values()
            if image.project is not None and image is not first.image
        ]
        slides.append(
            LabelledSlide(
                key=key,
                name=first.image.name,
                patient=patients[first.fingerprint],
                source=first.source,
                mpp=first.labels.mpp,
                fingerprint=first.fingerprint,
                project=first.image.project,
                entry=first.image.entry,
            )
        )
        kept.append(
            _without_twins(members, tally, emit) if len(members) > 1 else np.ones(len(first.labels), dtype=bool)
        )
    every = [one.labels.corrected for members in groups.values() for one in members]
    corrected = int((np.concatenate(every) & np.concatenate(kept)).sum())
    return tuple(slides), _table(list(groups.values()), kept), corrected, tuple(also_in)


def _patients(labelled: Sequence[_Labelled], emit: Emit) -> dict[str, str]:
    """The patient of each file: one, whatever is stated, or a split could part what shows the same tissue.

    Where none is stated, a file is a patient's of its own. Where several are, they are one from there on, with all that
    is theirs, under the name of the first.
    """
    names = {one.fingerprint: one.image.name for one in reversed(labelled)}
    files = list(dict.fromkeys(one.fingerprint for one in labelled))
    own = dict(zip(files, _unique([names[file] for file in files]), strict=True))
    stated: dict[str, list[str]] = {file: [] for file in files}
    for one in labelled:
        stated[one.fingerprint].append(own[one.fingerprint] if one.patient is None else one.patient)
    called = {patient: patient for some in stated.values() for patient in some}
    for file, some in stated.items():
        if len(set(some)) > 1:
            emit(Warned(names[file], "different patients are named for its file; they are taken as one, the first"))
        old, new = {called[patient] for patient in some}, called[some[0]]
        called = {patient: new if name in old else name for patient, name in called.items()}
    return {file: called[some[0]] for file, some in stated.items()}


def _unique(names: Iterable[str]) -> list[str]:
    """The names, with a number behind those that were there before, in whatever case: they name files too."""
    found: dict[str, str] = {}
    for name in names:
        number, one = 1, name
        while one.casefold() in found:
            number += 1
            one = f"{name} ({number})"
        found[one.casefold()] = one
    return list(found.values())


def _without_twins(members: Sequence[_Labelled], tally: _Tally, emit: Emit) -> BoolArray:
    """Which of the n tiles of a slide stay, bool [n]; of several images a place has one, or none if they differ."""
    if len(members) == 1:
        return np.ones(len(members[0].labels), dtype=bool)
    places: dict[tuple[float, float], list[int]] = defaultdict(list)
    origins = np.concatenate([one.labels.origins for one in members])
    labels = np.concatenate([one.labels.labels for one in members])
    corrected = np.concatenate([one.labels.corrected for one in members])
    for row, (x, y) in enumerate(origins.round(1).tolist()):
        places[x, y].append(row)
    kept = np.zeros(len(labels), dtype=bool)
    disputes: Counter[str] = Counter()
    for rows in places.values():
        best = [row for row in rows if corrected[row]] or rows
        said = np.unique(labels[best])
        if len(said) > 1:
            disputes[" or ".join(TileClass(one).label for one in said)] += 1
            continue
        kept[best[0]] = True
        tally.left_out[TWICE] += len(best) - 1
    if disputes:
        tally.left_out[DISPUTED] += disputes.total()
        told = ", ".join(f"{pair}: {count}" for pair, count in disputes.most_common())
        people = " and ".join(dict.fromkeys(one.image.annotator for one in members))
        emit(Warned(members[0].image.name, f"places that {people} label differently are left out: {told}"))
    tally.left_out += Counter()  # without zeros
    return kept


def _table(groups: Sequence[Sequence[_Labelled]], kept: Sequence[BoolArray]) -> TileTable:
    """The tiles that stay, slide by slide."""
    rows = [(number, one) for number, members in enumerate(groups) for one in members]
    mask = np.concatenate(kept)
    regions = [id_ for _, one in rows for id_ in one.labels.regions]
    annotators = [one.image.annotator for _, one in rows for _ in range(len(one.labels))]
    count = int(mask.sum())
    return TileTable(
        slide=np.concatenate([np.full(len(one.labels), number, dtype=np.int64) for number, one in rows])[mask],
        origins=np.concatenate([one.labels.origins for _, one in rows])[mask],
        sides=np.concatenate([np.full(len(one.labels), one.labels.side) for _, one in rows])[mask],
        labels=np.concatenate([one.labels.labels for _, one in rows])[mask],
        regions=tuple(id_ for id_, stays in zip(regions, mask, strict=True) if stays),
        annotators=tuple(who for who, stays in zip(annotators, mask, strict=True) if stays),
        splits=("",) * count,
        files=(None,) * count,
    )

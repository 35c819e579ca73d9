"""Scored slides with a case score that a person gave: what the WHSPN can learn from.

A slide counts with the classes that the tile network itself gave its tiles, whatever a person made of them later: the
WHSPN is to learn how that network errs. For a slide of a patient whom the network learned from, those would be too
good; another network, of a fold that did not see the patient, looks at the places of its tiles anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from her2bridge.errors import DataFileError, SlideError, UsageError
from her2bridge.events import Emit, Warned
from her2bridge.inference.reader import usual_workers
from her2bridge.inference.runtime.base import Runtime, classified, usual_batch_size
from her2bridge.inference.runtime.choose import choose_runtime
from her2bridge.model.bundle import Bundle, load_bundle
from her2bridge.qupath import results
from her2bridge.qupath.earlier_tiles import written_probabilities
from her2bridge.qupath.open import open_project
from her2bridge.qupath.seam import Entry, Project, StoredTiles
from her2bridge.qupath.server_builder import slide_source
from her2bridge.records import ByteArray, FloatArray, IntArray, SlideSource, Specimen, TileClass, TileCounts
from her2bridge.scoring import ScoreSettings
from her2bridge.slides import open_slide
from her2bridge.training.case_scores import case_score
from her2bridge.training.dataset import fingerprint_of
from her2bridge.training.label_sources import metadata_value
from her2bridge.training.progress import ticker
from her2bridge.training.unseen import HeldOut, check_folds, learned_slides


@dataclass(frozen=True)
class CaseSettings:
    """Which slides, and whose.

    Attributes:
        case_key: image metadata key of the case score, in any case.
        patient_key: that of the patient; a slide without it is a patient of its own.
        backend: see ``open_project``.
        relocations: (old, new) beginnings of slide paths or URIs.
        device: where a fold's network runs.
    """

    case_key: str
    patient_key: str
    backend: str = "auto"
    relocations: tuple[tuple[str, str], ...] = ()
    device: str = "auto"


@dataclass(frozen=True)
class Case:
    """A slide to learn from.

    Attributes:
        image: its name in the project.
        patient: whose it is.
        score: what the person gave, 0–3.
        tiles: by predicted class.
        is_out_of_fold: whether a fold's network predicted them.
    """

    image: str
    patient: str
    score: TileClass
    tiles: TileCounts
    is_out_of_fold: bool = False


@dataclass(frozen=True)
class Cases:
    """All slides to learn from, and how many were left out for which reason."""

    cases: tuple[Case, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def tiles(self) -> IntArray:
        """Tiles by predicted class, int64 [n, 6]."""
        return np.array([case.tiles.by_class for case in self.cases], dtype=np.int64).reshape(-1, len(TileClass))

    @property
    def scores(self) -> IntArray:
        """int64 [n]."""
        return np.array([case.score for case in self.cases], dtype=np.int64)

    @property
    def patients(self) -> tuple[str, ...]:
        """n names."""
        return tuple(case.patient for case in self.cases)


class _LeftOut(Exception):
    """A slide that cannot be learned from: the reason, and what a person can do about it."""

    def __init__(self, reason: str, told: str) -> None:
        super().__init__(reason, told)
        self.reason, self.told = reason, told


def collect_cases(
    projects: Sequence[Path], bundle: Bundle, settings: CaseSettings, emit: Emit, folds: HeldOut | None = None
) -> Cases:
    """Look through all images of these projects.

    Every image with a case score that cannot be learned from is told as ``Warned``, with what to do.

    Args:
        folds: of the bundle's training; without them slides of patients whom it learned from are left out.

    Raises:
        ProjectError: a project cannot be opened.
        UsageError: a project named twice, or folds that are not of the bundle's training.
    """
    opened = [open_project(path, settings.backend, relocations=settings.relocations) for path in projects]
    if len({project.path for project in opened}) < len(opened):
        raise UsageError("A project is named twice.", where="PROJECT", next_step="Name each project once.")
    reader = _Reader(bundle, settings, emit, folds)
    tell = ticker("reading scored slides", sum(len(project.entries) for project in opened), emit)
    reader.look(opened)
    cases: list[Case] = []
    left_out: Counter[str] = Counter()
    done = 0
    for project in opened:
        for entry in project.entries:
            try:
                cases.append(reader.case_of(project, entry))
            except _LeftOut as out:
                left_out[out.reason] += 1
                if out.told:
                    emit(Warned(entry.name, f"left out: {out.told}"))
            done += 1
            tell(done)
    return Cases(tuple(cases), dict(left_out))


class _Reader:
    """Makes cases of images."""

    def __init__(self, bundle: Bundle, settings: CaseSettings, emit: Emit, folds: HeldOut | None) -> None:
        self._bundle, self._settings, self._emit, self._folds = bundle, settings, emit, folds
        self._title = results.model_title(bundle.name, bundle.sha256)
        self._seen = learned_slides(bundle.card) or frozenset()
        self._seen_of: dict[str, set[str]] = {}  # by patient, the slides that it learned from
        if folds is not None:
            check_folds(bundle, folds)
        self._runtimes: dict[Path, Runtime] = {}

    def look(self, projects: Sequence[Project]) -> None:
        """Find out whose slides the network has learned from, those without a score among them."""
        if not self._seen:
            return
        for project in projects:
            for entry in project.entries:
                try:
                    _, fingerprint = self._slide_of(project, entry)
                except (SlideError, OSError):
                    continue  # told where the slide is one to learn from
                if fingerprint in self._seen:
                    self._seen_of.setdefault(self._patient_of(project, entry), set()).add(fingerprint)

    def case_of(self, project: Project, entry: Entry) -> Case:
        """The case that an image is.

        Raises:
            _LeftOut: it is none.
        """
        score = self._score_of(entry)
        if results.stated_specimen(entry.metadata) is Specimen.BIOPSY:
            raise _LeftOut("a biopsy", "a biopsy; the WHSPN reads resections.")
        model = entry.metadata.get(results.MODEL)
        try:
            stored = entry.stored_tiles()
        except DataFileError as error:
            raise _LeftOut("its data file cannot be read", f"{error.what} {error.next_step}") from error
        if model is None or not len(stored):
            raise _LeftOut("not scored", f"not scored; run her2bridge run {project.folder} --model {self._bundle.path}")
        if model != self._title:
            told = f"scored by {model}; run her2bridge run {project.folder} --model {self._bundle.path}"
            raise _LeftOut("scored by another model", told)
        held_out = self._held_out(project, entry)
        classes = self._written(stored) if held_out is None else self._anew(*held_out, stored, entry.name)
        tiles = TileCounts.of(classes)
        least = ScoreSettings().min_tumour_tiles
        if tiles.tumour < least:
            told = f"not assessable: {tiles.tumour} tumour tiles, fewer than {least}."
            raise _LeftOut("not assessable", told)
        return Case(entry.name, self._patient_of(project, entry), score, tiles, held_out is not None)

    def _patient_of(self, project: Project, entry: Entry) -> str:
        return metadata_value(entry.metadata, self._settings.patient_key) or f"{project.path}, image {entry.id}"

    def _slide_of(self, project: Project, entry: Entry) -> tuple[SlideSource, str]:
        """The slide and its fingerprint.

        Raises:
            SlideError, OSError: it is not there.
        """
        source = slide_source(
            entry.server_json,
            folder=project.folder,
            saved_uri=project.saved_uri,
            relocations=self._settings.relocations,
        )
        return source, fingerprint_of(source.path)

    def _score_of(self, entry: Entry) -> TileClass:
        text = metadata_value(entry.metadata, self._settings.case_key)
        if not text:
            raise _LeftOut("no case score", "")
        score = case_score(text)
        if score is None:
            told = f"no score can be read from {self._settings.case_key} = {text!r}; write 0, 1+, 2+ or 3+."
            raise _LeftOut("no score can be read", told)
        return score

    def _written(self, stored: StoredTiles) -> IntArray:
        """The network's own classes of stored tiles; those that came without probabilities are no word of it."""
        written = written_probabilities(stored)
        known = np.isfinite(written).all(axis=1)
        return np.asarray(written[known].argmax(axis=1), dtype=np.int64)

    def _held_out(self, project: Project, entry: Entry) -> tuple[Path, SlideSource] | None:
        """The fold's bundle that must predict the slide, and the slide; None where the bundle itself may.

        Raises:
            _LeftOut: the bundle learned from the patient, or nobody can tell, and there is no such fold.
        """
        if not self._seen:
            return None
        try:
            source, _ = self._slide_of(project, entry)
        except (SlideError, OSError) as error:
            told = f"its slide is not found, so nobody can tell whether {self._bundle.name} learned from it"
            raise _LeftOut("its slide is not found", f"{told}; say where it is with --relocate OLD=NEW.") from error
        seen = self._seen_of.get(self._patient_of(project, entry))
        if seen is None:
            return None
        if self._folds is None:
            told = f"{self._bundle.name} learned from this patient; give --folds, the folder of its cross-validation."
            raise _LeftOut("seen in training", told)
        bundles = {self._folds.bundle_for(fingerprint) for fingerprint in seen}
        bundle = bundles.pop()
        if bundle is None or bundles:  # where several held out one slide each, each saw the others
            raise _LeftOut("seen by every fold", "no fold's network was trained without this patient.")
        return bundle, source

    def _anew(self, bundle: Path, source: SlideSource, stored: StoredTiles, image: str) -> IntArray:
        """The classes that a fold's network gives the places of stored tiles, int64 [m]."""
        runtime, size = self._runtime(bundle), self._bundle.spec.size_px
        tell = ticker("classifying anew", len(stored), self._emit)
        order, batch = np.lexsort((stored.bounds[:, 0], stored.bounds[:, 1])), usual_batch_size(runtime.device)
        classes = np.empty(len(stored), dtype=np.int64)
        try:
            with open_slide(source) as slide, ThreadPoolExecutor(usual_workers()) as pool:

                def read(bounds: FloatArray) -> ByteArray:
                    x0, y0, x1, y1 = bounds.tolist()
                    return slide.read(x0, y0, x1 - x0, y1 - y0, size, size)

                parts = (order[start : start + batch] for start in range(0, len(order), batch))
                batches = ((rows, np.stack(list(pool.map(read, stored.bounds[rows])))) for rows in parts)
                done = 0
                for rows, probabilities in classified(batches, runtime):
                    classes[rows] = probabilities.argmax(axis=1)
                    done += len(rows)
                    tell(done)
        except SlideError as error:
            raise _LeftOut("its slide cannot be read", f"{error.what} {error.next_step}") from error
        return classes

    def _runtime(self, path: Path) -> Runtime:
        if path not in self._runtimes:
            bundle = load_bundle(path)
            if bundle.spec != self._bundle.spec:
                raise UsageError(
                    "The folds' networks want another field than the bundle's.",
                    where=str(path),
                    next_step=f"Give the folds that were trained together with {self._bundle.name}.",
                )
            self._runtimes[path] = choose_runtime(bundle, self._settings.device)
        return self._runtimes[path]

"""From a dataset to a bundle: the sentence of ``her2bridge train``.

While it goes on, ``<OUT>.work`` holds checkpoints and pixels; given again, the same call goes on there. It is removed
when all is done. OUT then has the bundle, ``metrics.jsonl`` and ``curves.png``; ``<OUT>-folds`` the cross-validation.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from her2bridge.errors import NotEnoughLabels, UsageError, WriteFailed
from her2bridge.events import BundleWritten, Emit, Warned
from her2bridge.model.attention import Attention
from her2bridge.model.bundle import CARD_FILE, Bundle, load_bundle, save_bundle
from her2bridge.model.repvgg import NetworkSpec, RepVGG, build
from her2bridge.records import IntArray, TileClass
from her2bridge.storage import write_atomically
from her2bridge.training import distributed
from her2bridge.training.curves import CURVES_FILE, draw_curves
from her2bridge.training.dataset import Dataset
from her2bridge.training.extras import need
from her2bridge.training.fit import MEAN, METRICS_FILE, STD, FitSettings, Fitted, fit, logits_of
from her2bridge.training.folds import FOLDS_FILE, Fold, make_folds, save_folds
from her2bridge.training.optimiser import own_device
from her2bridge.training.recipes import MODERN, Recipe
from her2bridge.training.samples import Samples, samples_of
from her2bridge.training.temperature import doubt_of, fit_temperature
from her2bridge.training.trained_card import NOT_STATED, card_of, told_limits, told_metrics, told_training
from her2bridge.training.unseen import seen_slides


@dataclass(frozen=True)
class TrainSettings:
    """What is trained, and how.

    Attributes:
        start: the bundle to begin with; None begins with random weights.
        attention: of the blocks; None takes that of ``start``, or GCT.
        recipe: how.
        seed: of every random choice.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32 or bf16.
        labels_by: who labelled, for the card.
        folds: how many networks of a cross-validation are trained as well; 0 for none.
        name: the bundle's; None takes its folder's.
        version: the bundle's.
        restart: forget what an earlier call had begun.
        force: replace a bundle that is there.

    Raises:
        UsageError: a setting that cannot be.
    """

    start: Bundle | None = None
    attention: str | None = None
    recipe: Recipe = MODERN
    seed: int = 2022
    device: str = "auto"
    precision: str = "auto"
    labels_by: str = NOT_STATED
    folds: int = 0
    name: str | None = None
    version: str = "1.0.0"
    restart: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        known = get_args(Attention)
        if self.attention not in (None, *known):
            what = f"--attention cannot be {self.attention!r}."
            raise UsageError(what, where="--attention", next_step=f"Give {', '.join(known)}.")
        if self.start is not None and self.attention not in (None, self.start.card["architecture"]["attention"]):
            raise UsageError(
                f"{self.start.name} has the attention {self.start.card['architecture']['attention']}, not"
                f" {self.attention}: its weights do not fit.",
                where="--attention and --from",
                next_step="Leave one of them out.",
            )
        if self.folds < 0 or self.folds == 1:
            what = f"There cannot be {self.folds} folds."
            raise UsageError(what, where="--folds", next_step="Give 2 or more, or leave it out.")
        for text, option in ((self.name, "--name"), (self.version, "--model-version"), (self.labels_by, "--labels-by")):
            if text is not None and not text.strip():
                raise UsageError("The text is empty.", where=option, next_step="Give a text, or leave it out.")

    @property
    def transform(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and standard deviation of RGB of 0–1: what the network is fed with."""
        if self.start is None:
            return MEAN, STD
        mean, std = (tuple(map(float, self.start.card["transform"][key])) for key in ("mean", "std"))
        return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])

    def network(self) -> RepVGG:
        """What training begins with; the same at each call."""
        if self.start is not None:
            return self.start.network()
        attention: Any = self.attention or "gct"
        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed)
            return build(NetworkSpec(attention=attention))


@dataclass(frozen=True, eq=False)
class _Part:
    """One network to be trained.

    Attributes:
        title: names it in events; empty for the network of all patients.
        name: of its bundle.
        out: its bundle's folder.
        work: its checkpoint's.
        train: rows of the dataset to train on.
        validation: rows to measure and to fit the temperature on.
        calibrated_by: the bundle whose temperature it takes over; None where it has its own.
    """

    title: str
    name: str
    out: Path
    work: Path
    train: IntArray
    validation: IntArray
    calibrated_by: Path | None = None


def work_of(out: Path) -> Path:
    """Where a training that is to end as the bundle ``out`` keeps what it needs to go on."""
    out = out.expanduser().absolute()
    return out.with_name(f"{out.name}.work")


def folds_of(out: Path) -> Path:
    """Where the cross-validation of the bundle ``out`` lies."""
    out = out.expanduser().absolute()
    return out.with_name(f"{out.name}-folds")


def train_bundle(dataset: Dataset, out: Path, settings: TrainSettings, emit: Emit) -> Bundle:
    """Train on a dataset's ``train`` tiles, fit the temperature on ``val``, save the bundle; ``test`` is not touched.

    Under torchrun every process calls it; the first one writes and tells.

    Args:
        out: the bundle's folder.
        emit: hears warnings, how far it is, and last ``BundleWritten``.

    Raises:
        NotEnoughLabels: no training tiles, tiles of one class only, or too few patients for the folds.
        UsageError: ``out`` holds a bundle already, ``start`` cannot be held out of folds, a device that cannot be,
            something begun with other settings, or a rate so high that the loss is no number.
        SlideError: a slide is missing or does not decode.
        WriteFailed: ``out`` cannot be written.
        KeyboardInterrupt: what was reached is kept; the same call goes on.
    """
    out, tell = out.expanduser().absolute(), emit if distributed.is_first() else _silent
    need("matplotlib")  # now rather than after hours
    _check_place(out, settings)
    _check_start(dataset, settings, tell)
    folds = make_folds(dataset, settings.folds, settings.seed) if settings.folds else ()
    parts = list(_parts(dataset, out, folds, settings))
    for part in parts:
        _check_labels(dataset, part, tell)
    distributed.wait()  # until all have looked, nobody writes
    if distributed.is_first():
        _make_ready(out, settings, bool(folds))
    for part in parts:
        _train_part(dataset, part, settings, tell)
    if distributed.is_first():
        if folds:
            save_folds(folds_of(out), dataset.sha256, folds)
        shutil.rmtree(work_of(out), ignore_errors=True)
    distributed.wait()
    bundle = load_bundle(out)
    tell(BundleWritten(str(out), f"{bundle.name} {bundle.version}", bundle.sha256))
    return bundle


def _silent(event: object) -> None:
    """What all processes but the first tell."""


def _check_place(out: Path, settings: TrainSettings) -> None:
    """A bundle is replaced only where that was asked for, or by the training that wrote it and has folds to go."""
    if settings.start is not None and settings.start.path.absolute() == out:
        what = "The bundle to begin with would be overwritten."
        raise UsageError(what, where=str(out), next_step="Name another folder with --out.")
    if out.exists() and not out.is_dir():
        raise UsageError("A file is in the bundle's place.", where=str(out), next_step="Name a folder with --out.")
    if settings.force or (work_of(out).is_dir() and not settings.restart):
        return
    made = [out / CARD_FILE, *([folds_of(out) / FOLDS_FILE] if settings.folds else [])]
    for path in made:
        if path.is_file():
            what = "There is a trained model already."
            next_step = "Name another folder with --out, or replace it with --force."
            raise UsageError(what, where=str(path.parent), next_step=next_step)


def _check_start(dataset: Dataset, settings: TrainSettings, tell: Emit) -> None:
    """What a beginning with another bundle means for the figures."""
    start = settings.start
    if start is None:
        return
    if start.spec != dataset.spec:
        was, now = (f"{one.size_px} px at {one.mpp:g} µm/px" for one in (start.spec, dataset.spec))
        tell(Warned(None, f"{start.name} learned from tiles of {was}; these are of {now}, and so is the new model"))
    rows = dataset.tiles.rows_of("train", "val") if settings.folds else dataset.tiles.rows_of("val", "test")
    seen = int(seen_slides(start, dataset)[np.unique(dataset.tiles.slide[rows])].sum())
    if seen and settings.folds:
        raise UsageError(
            f"{start.name} has learned from {seen} of the slides: no fold could be without them.",
            where="--from and --folds",
            next_step="Leave one of them out.",
        )
    if seen:
        tell(Warned(None, f"{start.name} has learned from {seen} slides of val or test: figures on them are too good"))


def _parts(dataset: Dataset, out: Path, folds: tuple[Fold, ...], settings: TrainSettings) -> Iterator[_Part]:
    """The network of all training tiles, then those of the folds.

    A fold's network is trained on the validation tiles too: those of one or two patients, whom one fold may hold out
    all. It takes over the temperature.
    """
    name, tiles = settings.name or out.name, dataset.tiles
    yield _Part("", name, out, work_of(out), tiles.rows_of("train"), tiles.rows_of("val"))
    learned = tiles.rows_of("train", "val")
    for number, fold in enumerate(folds, start=1):
        # One file may be two slides, of two projects that name its patient differently.
        is_held_out = [slide.fingerprint in fold.slides for slide in dataset.slides]
        kept = ~np.array(is_held_out, dtype=np.bool_)[tiles.slide]
        yield _Part(
            f"fold {number} of {len(folds)}",
            f"{name}-{fold.bundle}",
            folds_of(out) / fold.bundle,
            work_of(out) / fold.bundle,
            learned[kept[learned]],
            learned[:0],
            calibrated_by=out,
        )


def _check_labels(dataset: Dataset, part: _Part, tell: Emit) -> None:
    """Whether there is anything to learn, and what there is not."""
    missing, which = _missing(dataset, part), f"{part.title}: " if part.title else ""
    if len(missing) > len(TileClass) - 2:
        what = "no tiles" if len(missing) == len(TileClass) else "tiles of one class only"
        raise NotEnoughLabels(
            f"There are {what} to train on.",
            where=f"{which}split train of {dataset.folder}",
            next_step="Draw more labelled regions; or make the dataset with other --shares, or fewer --folds.",
        )
    if missing:
        tell(
            Warned(None, f"{which}train has no tiles of {', '.join(missing)}: the model cannot find what it never saw")
        )
    if not len(part.validation) and part.calibrated_by is None:
        tell(Warned(None, f"{which}val has no tiles: nothing is measured, and the temperature stays 1"))


def _missing(dataset: Dataset, part: _Part) -> list[str]:
    """Labels of the classes without training tiles."""
    found = set(dataset.tiles.labels[part.train].tolist())
    return [one.label for one in TileClass if one not in found]


def _make_ready(out: Path, settings: TrainSettings, has_folds: bool) -> None:
    """The working folder; an earlier list of folds goes, since its networks are about to."""
    try:
        work_of(out).mkdir(parents=True, exist_ok=True)
        if has_folds:
            (folds_of(out) / FOLDS_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise WriteFailed(
            f"The folder cannot be written ({error.strerror}).",
            where=str(out.parent),
            next_step="Name a folder that you may write to with --out.",
        ) from error


def _train_part(dataset: Dataset, part: _Part, settings: TrainSettings, tell: Emit) -> None:
    """Train one network; the first process saves it."""
    caches = [part.work / f"{name}-{distributed.rank()}.pixels" for name in ("train", "val")]
    train, validation = (
        samples_of(dataset, rows, cache, tell)
        for rows, cache in zip((part.train, part.validation), caches, strict=True)
    )
    how = FitSettings(
        settings.device, settings.precision, settings.seed, part.work, settings.transform, settings.restart
    )
    fitted = fit(settings.network(), train, validation, settings.recipe, settings=how, emit=tell, title=part.title)
    if distributed.is_first():
        _save(dataset, part, settings, fitted, validation, tell)
    del train, validation
    for cache in caches:
        cache.unlink(missing_ok=True)  # a fold more would be the dataset once more on the disk


def _save(
    dataset: Dataset, part: _Part, settings: TrainSettings, fitted: Fitted, validation: Samples, tell: Emit
) -> None:
    """Calibrate and measure what a bundle holds, weights in half precision, and save it with its history."""
    start = settings.start
    training = told_training(
        dataset, part.train, part.validation, settings.recipe, settings.seed, settings.labels_by, start
    )
    limits = told_limits(dataset, training, _missing(dataset, part), bool(len(validation)), start)
    card = card_of(dataset, part.name, settings.version, settings.transform, training, limits, start)
    network: Any = fitted.network
    kept = save_bundle(part.work / "draft", network, card).network()
    if not all(bool(value.isfinite().all()) for value in kept.state_dict().values()):
        raise UsageError(
            "The training has come apart: weights are no numbers any more.",
            where=part.title or str(part.out),
            next_step="Give a lower learning rate (--lr), and --restart.",
        )
    logits = logits_of(kept, validation, device=own_device(settings.device), transform=settings.transform)
    temperature = (
        fit_temperature(logits, validation.labels)
        if part.calibrated_by is None
        else load_bundle(part.calibrated_by).temperature
    )
    if part.calibrated_by is None and (doubt := doubt_of(temperature)):
        tell(Warned(None, doubt))
        limits = [*limits, f"{doubt[0].upper()}{doubt[1:]}."]
    patients = len({dataset.patients[row] for row in part.validation.tolist()})
    metrics = told_metrics(logits, validation.labels, temperature, patients)
    save_bundle(part.out, kept, {**card, "limits": limits, "temperature": temperature, "metrics": metrics})
    write_atomically(part.out / METRICS_FILE, (part.work / METRICS_FILE).read_bytes())
    draw_curves(fitted.history, part.out / CURVES_FILE)

"""Monte-Carlo cross-validation (Han et al. 2022, section 4.4): each repeat divides the tiles anew, trains and measures.

What a repeat found is kept in ``parts``, one JSON file a network and repeat: a run that was stopped goes on after the
last of them, and the tables of one folder share them.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from her2bridge.errors import ModelError, NotEnoughLabels, UsageError
from her2bridge.events import Emit
from her2bridge.experiments.divide import divide, kind_of_split, rows_for
from her2bridge.experiments.machine import device_name, machine_told
from her2bridge.experiments.plan import Candidate, ExperimentSettings, recipe_of
from her2bridge.experiments.published import Spread
from her2bridge.experiments.streams import Stream, rng_of
from her2bridge.inference.runtime.torch_runtime import TorchHardware, resolve_device
from her2bridge.model.repvgg import RepVGG, fuse
from her2bridge.records import ByteArray, Float32Array, IntArray, TileClass
from her2bridge.storage import read_if_there, write_atomically
from her2bridge.training.dataset import Dataset, read_pixels
from her2bridge.training.fit import FitSettings, fit, logits_of
from her2bridge.training.metrics import Reading, TileFigures, measure_tiles
from her2bridge.training.optimiser import precision_of
from her2bridge.training.progress import ticker
from her2bridge.training.samples import Samples, samples_of

NOT_STATED = "What the tiles show and who labelled them is not stated."
PARTS = "parts"
CACHE = "pixels.cache"
"""Where the tiles' pixels lie while networks are trained, if memory does not hold them."""
FORMAT = 2

ROUNDING = 1e-2
"""How far fusing may move a logit, as a share of the largest one: far more than rounding (TF32 included), far less than
a mistake."""

_CHUNK = 256
_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16"}


@dataclass(frozen=True, eq=False)
class Fused:
    """The same network fused: classes it gives, int64 [m], and by how much a logit differs at most."""

    predicted: IntArray
    largest_difference: float


@dataclass(frozen=True, eq=False)
class Part:
    """One network in one repeat.

    Attributes:
        held_out: rows of the dataset's table that it did not learn from, int64 [m].
        truth: their labels, int64 [m].
        predicted: the classes it gives them, int64 [m].
        fused: None where there is nothing to fuse.
        seconds: of the training.
        is_finite: whether all its outputs are numbers; else it learned nothing, and no class of it means anything.
        made_on: machine and versions, in words.
    """

    held_out: IntArray
    truth: IntArray
    predicted: IntArray
    fused: Fused | None
    seconds: float
    is_finite: bool = True
    made_on: str = ""

    @property
    def deployed(self) -> IntArray:
        """The classes of the network as it would be used: fused, if it can be."""
        return self.predicted if self.fused is None else self.fused.predicted


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation of the values that are numbers; NaN where none is."""
    numbers = np.array([value for value in values if np.isfinite(value)])
    if not len(numbers):
        return Spread(float("nan"))
    return Spread(float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else None)


def figures_of(part: Part, *, fused: bool = True, reading: Reading = Reading.SIX) -> TileFigures:
    """The figures of one repeat's held-out tiles; of the training form where ``fused`` is False."""
    return measure_tiles(part.truth, part.deployed if fused else part.predicted, reading)


class MonteCarlo:
    """The repeats of an experiment over one dataset.

    Attributes:
        recipe: how networks are trained.
        split: ``patient`` or ``paper``.
        rows: of the dataset's table, int64 [n].
        divisions: one a repeat; places within ``rows``.
    """

    def __init__(self, dataset: Dataset, settings: ExperimentSettings, emit: Emit) -> None:
        """
        Raises:
            NotEnoughLabels: too few tiles, or no division leaves every class to be learned.
            UsageError: settings that cannot be.
        """
        self.dataset, self.settings = dataset, settings
        self._emit = emit
        self.recipe = recipe_of(settings)
        self.rows = rows_for(dataset, settings.max_tiles, settings.seed)
        where = str(dataset.folder)
        if len(self.rows) < 2 * len(TileClass):
            raise NotEnoughLabels(
                f"{len(self.rows)} tiles to train and validate on are too few for an experiment.",
                where=where,
                next_step="Label more regions; tiles of the split test are not used here.",
            )
        names = [dataset.patients[row] for row in self.rows.tolist()]
        self.patients = len(set(names))
        self.split = kind_of_split(settings.split, self.patients)
        groups = np.unique(names, return_inverse=True)[1] if self.split == "patient" else np.arange(len(self.rows))
        self.labels = dataset.tiles.labels[self.rows]
        self.divisions = tuple(
            divide(self.labels, groups, rng_of(Stream.DIVISION, settings.seed, repeat), where=where)
            for repeat in range(settings.repeats)
        )
        hardware = TorchHardware()
        self.device = resolve_device(settings.device, False, hardware)
        self.precision = _PRECISIONS[precision_of(self.recipe, settings.precision, self.device, hardware)]
        self._samples: Samples | None = None

    @property
    def tile_px(self) -> int:
        """Side of the tiles that networks see."""
        return self.settings.tile_px or self.dataset.spec.size_px

    def parts(self, candidates: Sequence[Candidate], task: str) -> dict[str, tuple[Part, ...]]:
        """Every candidate in every repeat, by name; those that are kept already are not trained again.

        Raises:
            UsageError: the folder holds parts of other settings, or tiles are too small for a network.
        """
        for one in candidates:
            if self.tile_px < one.smallest_px:
                raise UsageError(
                    f"{one.name} takes no tiles of {self.tile_px} px.",
                    where="--tile-px",
                    next_step=f"Give {one.smallest_px} or more, or leave this network out (--networks).",
                )
        found: dict[str, list[Part]] = {one.name: [] for one in candidates}
        missing = []
        for repeat in range(len(self.divisions)):
            for one in candidates:
                if self._kept(one, repeat) is None:
                    missing.append((repeat, one))
        tick = ticker(task, len(candidates) * len(self.divisions), self._emit)
        done = len(candidates) * len(self.divisions) - len(missing)
        for number, (repeat, one) in enumerate(missing, start=1):
            self._train(one, repeat)
            tick(done + number)
        self._forget_pixels()
        for one in candidates:
            for repeat in range(len(self.divisions)):
                part = self._kept(one, repeat)
                assert part is not None
                found[one.name].append(part)
        return {name: tuple(parts) for name, parts in found.items()}

    def told(self) -> dict[str, Any]:
        """What a table says of how it came about; plain values."""
        settings = self.settings
        return {
            "dataset": self.dataset.sha256,
            "tiles": len(self.rows),
            "tiles_by_class": {one.label: int((self.labels == one).sum()) for one in TileClass},
            "patients": self.patients,
            "split": self.split,
            "held_out_tiles": [len(division.held_out) for division in self.divisions],
            "different_divisions": len({division.held_out.tobytes() for division in self.divisions}),
            "repeats": len(self.divisions),
            "recipe": dataclasses.asdict(self.recipe),
            "tile_px": self.tile_px,
            "tile_px_of_dataset": self.dataset.spec.size_px,
            "max_tiles": settings.max_tiles,
            "device": device_name(self.device),
            "precision": self.precision,
            "seed": settings.seed,
            "about": self.about,
        }

    @property
    def about(self) -> str:
        """What the tiles are, as the user says; one sentence."""
        said = " ".join((self.settings.about or "").split())
        return f"{said[:1].upper()}{said[1:].rstrip('.')}." if said else NOT_STATED

    def notes(self, parts: Mapping[str, Sequence[Part]]) -> list[str]:
        """The same in sentences, for people, and what its ``parts`` were made on."""
        told = self.told()
        counts = ", ".join(f"{label}: {count:,}" for label, count in told["tiles_by_class"].items())
        by = (
            "patients are held out whole"
            if self.split == "patient"
            else "tiles are mixed as in the paper; tiles of one slide lie on both sides and flatter the figures"
        )
        made_on = "; ".join(sorted({part.made_on for several in parts.values() for part in several}))
        lines = [
            self.about,
            f"{len(self.rows):,} tiles of {self.patients} patients ({counts}); the dataset's test tiles are not used.",
            f"Mean ± standard deviation of {len(self.divisions)} repeats, each with a fifth held out at random: {by}.",
            f"Recipe {self.recipe.name}: {self.recipe.epochs} epoch(s), batch {self.recipe.batch_size}, weights at "
            f"random at the start, seed {self.settings.seed}, {self.precision}.",
            f"Trained on: {made_on}.",
        ]
        if told["different_divisions"] < len(self.divisions):
            lines.append(f"So few patients give only {told['different_divisions']} different divisions.")
        if self.tile_px != self.dataset.spec.size_px:
            lines.append(
                f"Tiles were reduced from {self.dataset.spec.size_px} to {self.tile_px} px to be quick: figures of "
                "networks that see whole tiles are others."
            )
        for name, several in parts.items():
            failed = sum(not part.is_finite for part in several)
            if failed:
                lines.append(
                    f"{name} did not learn (its output is not finite) in {failed} of {len(several)} repeats; these are "
                    "in no figure."
                )
        return lines

    def _key(self, one: Candidate, repeat: int) -> dict[str, Any]:
        """What a part must have been made with to be used again."""
        settings = self.settings
        key = {
            "format": FORMAT,
            "dataset": self.dataset.sha256,
            "network": one.kept_as,
            "repeat": repeat,
            "split": self.split,
            "seed": settings.seed,
            "tile_px": self.tile_px,
            "max_tiles": settings.max_tiles,
            "recipe": dataclasses.asdict(self.recipe),
            "device": device_name(self.device),
            "precision": self.precision,
        }
        made: dict[str, Any] = json.loads(json.dumps(key))
        return made

    def _path(self, one: Candidate, repeat: int) -> Path:
        slug = re.sub(r"[^a-z0-9.]+", "-", one.kept_as.lower()).strip("-")
        return self.settings.out / PARTS / f"{slug}-{repeat}.json"

    def _kept(self, one: Candidate, repeat: int) -> Part | None:
        path = self._path(one, repeat)
        data = read_if_there(path)
        if data is None:
            return None
        try:
            plain = json.loads(data)
            differences = _differences(plain["key"], self._key(one, repeat))
            if not differences and plain["held_out_rows"] != self.rows[self.divisions[repeat].held_out].tolist():
                differences = ["other tiles held out"]
            part = None if differences else self._part_of(plain, repeat)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(
                "A kept repeat cannot be read.", where=str(path), next_step="Delete this file; it is made again."
            ) from error
        if part is None:
            raise UsageError(
                f"The folder holds repeats that were made with other settings: {', '.join(differences)}.",
                where=str(path),
                next_step="Name another folder with --out, or give the settings of that run again.",
            )
        return part

    def _part_of(self, plain: Mapping[str, Any], repeat: int) -> Part:
        places = self.divisions[repeat].held_out
        fused = plain["fused"]
        part = Part(
            held_out=self.rows[places],
            truth=self.labels[places],
            predicted=np.array(plain["predicted"], dtype=np.int64),
            fused=None
            if fused is None
            else Fused(np.array(fused["predicted"], dtype=np.int64), float(fused["largest_difference"])),
            seconds=float(plain["seconds"]),
            is_finite=bool(plain["finite"]),
            made_on=str(plain["made_on"]),
        )
        if len(part.predicted) != len(places) or len(part.deployed) != len(places):
            raise ValueError("as many classes as tiles")
        return part

    def _train(self, one: Candidate, repeat: int) -> None:
        """Train, measure, and keep the part."""
        settings, division = self.settings, self.divisions[repeat]
        samples = self._pixels()
        train, held_out = samples.take(division.train), samples.take(division.held_out)
        seed = settings.seed + repeat
        began = time.monotonic()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = one.build()
        title = f"{one.name}, repeat {repeat + 1} of {len(self.divisions)}"
        fit_settings = FitSettings(device=settings.device, precision=settings.precision, seed=seed, folder=None)
        fitted = fit(network, train, held_out, self.recipe, settings=fit_settings, emit=self._emit, title=title)
        seconds = time.monotonic() - began
        logits = logits_of(fitted.network, held_out, device=settings.device)
        is_finite = bool(np.isfinite(logits).all())
        fused = None
        if is_finite and isinstance(fitted.network, RepVGG) and fitted.network.spec.block == "ecm":
            fused = fused_of(logits, logits_of(fuse(fitted.network), held_out, device=settings.device), one.name)
        plain = {
            "notice": "Research use only.",
            "key": self._key(one, repeat),
            "held_out_rows": self.rows[division.held_out].tolist(),
            "predicted": logits.argmax(axis=1).tolist(),
            "fused": None
            if fused is None
            else {"predicted": fused.predicted.tolist(), "largest_difference": fused.largest_difference},
            "seconds": round(seconds, 1),
            "finite": is_finite,
            "made_on": machine_told(self.device),
        }
        write_atomically(self._path(one, repeat), json.dumps(plain).encode())

    def _forget_pixels(self) -> None:
        self._samples = None
        (self.settings.out / CACHE).unlink(missing_ok=True)

    def _pixels(self) -> Samples:
        """All tiles of the experiment, read once."""
        if self._samples is None:
            if self.tile_px == self.dataset.spec.size_px:
                self._samples = samples_of(self.dataset, self.rows, self.settings.out / CACHE, self._emit)
            else:
                self._samples = Samples(_reduced(self.dataset, self.rows, self.tile_px, self._emit), self.labels)
        return self._samples


def finite(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Those of networks that learned at all."""
    return tuple(part for part in parts if part.is_finite)


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """What a part was made with that is not what this run asks for, in words."""
    found: list[str] = []
    for name in {**theirs, **ours}:
        one, other = theirs.get(name), ours.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found += _differences(one, other)
        elif one != other:
            found.append(f"{name} {one} there, {other} here")
    return found


def fused_of(logits: Float32Array, fused: Float32Array, name: str) -> Fused:
    """What fusing changed, of the logits [m, 6] before and after.

    Raises:
        ModelError: more than rounding.
    """
    difference = float(np.abs(logits - fused).max())
    if not difference <= ROUNDING * float(np.abs(logits).max()):
        raise ModelError(
            f"Fused, the network is another one: logits differ by up to {difference:.3g}.",
            where=name,
            next_step="Please report this: fusing must change nothing but the time.",
        )
    return Fused(fused.argmax(axis=1).astype(np.int64), difference)


def _reduced(dataset: Dataset, rows: IntArray, tile_px: int, emit: Emit) -> ByteArray:
    """Tiles reduced to ``tile_px``, each pixel the mean of those it covers; uint8 [n, tile_px, tile_px, 3]."""
    tick = ticker("Reading tiles", len(rows), emit)
    pixels = np.empty((len(rows), tile_px, tile_px, 3), dtype=np.uint8)
    order = np.lexsort((dataset.tiles.origins[rows, 1], dataset.tiles.slide[rows]))  # slide after slide
    for start in range(0, len(rows), _CHUNK):
        places = order[start : start + _CHUNK]
        for place, tile in zip(places, read_pixels(dataset, rows[places]), strict=True):
            pixels[place] = np.asarray(Image.fromarray(tile).resize((tile_px, tile_px), Image.Resampling.BOX))
        tick(min(start + _CHUNK, len(rows)))
    return pixels

"""What a run tells while it goes on: one frozen record an event, one JSON object a line with ``--json``.

The schema is documented and versioned in ``docs/events.md``; ``SCHEMA`` changes whenever a field changes its meaning
or goes away. Fields may be added without a new number.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from her2bridge.records import Region, TileClass, TileCounts

SCHEMA = 1


@dataclass(frozen=True)
class Event:
    """Base of all events."""

    name: ClassVar[str] = "event"

    def __init_subclass__(cls) -> None:
        cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


Emit = Callable[[Event], None]


@dataclass(frozen=True)
class RunStarted(Event):
    """First event of a run: with what it is done."""

    run_id: str
    version: str
    backend: str
    model: str
    images: int
    dry_run: bool
    schema: int = SCHEMA


@dataclass(frozen=True)
class RuntimeChosen(Event):
    """The network is ready; comes before the first image that needs it."""

    device: str
    precision: str
    runtime: str


@dataclass(frozen=True)
class ImageStarted(Event):
    """An image is being scored."""

    image: str
    index: int
    regions: int
    tiles: int
    um_per_px: float
    um_per_px_from: str


@dataclass(frozen=True)
class Progress(Event):
    """Tiles done of one image; times in seconds."""

    image: str
    done: int
    total: int
    tiles_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Warned(Event):
    """Something a person should know, and that stops nothing."""

    image: str | None
    message: str


@dataclass(frozen=True)
class ImageTimed(Event):
    """Where an image's time went; comes before its ``ImageScored``, with ``--profile`` only.

    ``stages`` are seconds by what was done, and add up to ``seconds``; ``decoding_seconds`` went on beside, in all
    reading threads together; ``cores_busy`` is the share, 0–1, of all cores' time that this process computed.
    """

    image: str
    seconds: float
    stages: Mapping[str, float]
    decoding_seconds: float
    tiles: int
    cores: int
    cores_busy: float


@dataclass(frozen=True)
class ImageScored(Event):
    """The result of one image; ``metadata`` is what the project shows for it."""

    image: str
    score: str
    status: str
    counts: Mapping[str, int]
    tumour_tiles: int
    tile_h_score: float
    review: tuple[str, ...]
    regions: tuple[Mapping[str, Any], ...]
    metadata: Mapping[str, str]
    written_to: str
    corrected_tiles: int
    seconds: float


@dataclass(frozen=True)
class ImageSkipped(Event):
    """Scored before by the same bundle, settings and regions."""

    image: str
    reason: str
    score: str


@dataclass(frozen=True)
class ImagePlanned(Event):
    """What a dry run would do."""

    image: str
    action: str
    standing: str
    regions: int
    tiles: int


@dataclass(frozen=True)
class ImageFailed(Event):
    """One image failed; the others go on."""

    image: str
    error: str
    what: str
    where: str
    next_step: str


@dataclass(frozen=True)
class Restored(Event):
    """The results of an earlier run are in the project again."""

    image: str
    tiles: int
    kept: int
    score: str


@dataclass(frozen=True)
class RestoreFinished(Event):
    """Last event of ``her2bridge restore``."""

    restored: int
    skipped: int
    failed: int
    schema: int = SCHEMA


@dataclass(frozen=True)
class RunFinished(Event):
    """Last event of a run."""

    scored: int
    skipped: int
    failed: int
    interrupted: bool
    seconds: float


@dataclass(frozen=True)
class TaskProgress(Event):
    """How far a piece of long work is that no image's tiles measure; times in seconds."""

    task: str
    done: int
    total: int
    per_second: float
    seconds_left: float


@dataclass(frozen=True)
class LabelsRead(Event):
    """The labels of one image have become tiles; ``left_out``: tiles or regions by reason."""

    image: str
    tiles: Mapping[str, int]
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class DatasetWritten(Event):
    """Last event of ``her2bridge labels``."""

    folder: str
    slides: int
    patients: int
    tiles: Mapping[str, int]
    splits: Mapping[str, int]
    sha256: str


@dataclass(frozen=True)
class TrainingStarted(Event):
    """A network is about to be trained, or is gone on with after ``epoch`` epochs."""

    title: str
    recipe: str
    tiles: int
    validation_tiles: int
    epoch: int
    epochs: int
    device: str
    precision: str


@dataclass(frozen=True)
class EpochFinished(Event):
    """All training tiles were seen once more; times in seconds."""

    title: str
    epoch: int
    epochs: int
    learning_rate: float
    loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    validation_macro_f1: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class BundleWritten(Event):
    """Last event of ``her2bridge train`` and ``her2bridge train-score``."""

    folder: str
    model: str
    sha256: str


@dataclass(frozen=True)
class Evaluated(Event):
    """Last event of ``her2bridge evaluate``; all figures are in ``folder``."""

    folder: str
    model: str
    tiles: int
    patients: int
    accuracy: float
    macro_f1: float
    expected_calibration_error: float


@dataclass(frozen=True)
class ExperimentFinished(Event):
    """Last event of ``her2bridge experiment``; its table is in ``folder``."""

    experiment: str
    folder: str
    repeats: int
    seconds: float


@dataclass(frozen=True)
class Failed(Event):
    """Last event of a command that failed as a whole."""

    error: str
    what: str
    where: str
    next_step: str
    exit_code: int


def counts_by_label(counts: TileCounts) -> dict[str, int]:
    """Tiles by class: ``{"0": 12, …, "noise": 3}``."""
    return dict(zip((tile_class.label for tile_class in TileClass), counts.by_class, strict=True))


def region_rows(regions: Sequence[Region], counts: Sequence[TileCounts]) -> tuple[Mapping[str, Any], ...]:
    """The regions of ``ImageScored``: each one's id, name, class, counts by class label and tile H-score."""
    return tuple(
        {
            "id": region.id,
            "name": region.name,
            "class": region.class_name,
            "counts": counts_by_label(count),
            "tile_h_score": count.h_score,
        }
        for region, count in zip(regions, counts, strict=True)
    )


def to_json(event: Event) -> str:
    """One line of NDJSON: ``type`` first, then the event's fields; NaN and infinities become null."""
    fields = {f.name: _plain(getattr(event, f.name)) for f in dataclasses.fields(event)}
    return json.dumps({"type": event.name, **fields}, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value

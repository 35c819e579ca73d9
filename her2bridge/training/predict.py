"""A dataset's tiles through a bundle's runtime, as a run would classify them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from her2bridge.errors import UsageError
from her2bridge.events import Emit, RuntimeChosen
from her2bridge.inference.runtime.base import Runtime, classified, usual_batch_size
from her2bridge.inference.runtime.choose import choose_runtime
from her2bridge.model.bundle import Bundle
from her2bridge.records import ByteArray, Float32Array, IntArray, TileClass
from her2bridge.training.dataset import Dataset, read_pixels
from her2bridge.training.progress import ticker

_BLOCK_BYTES = 96 << 20  # pixels in memory at a time


@dataclass(frozen=True)
class RuntimeSettings:
    """Where and how a network runs; see ``choose_runtime``.

    Attributes:
        batch_size: tiles a call; None for what suits the device.
    """

    device: str = "auto"
    precision: str = "auto"
    runtime: str = "auto"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            what = f"--batch-size cannot be {self.batch_size}."
            raise UsageError(what, where="--batch-size", next_step="Give a whole number of at least 1.")


def ready(bundle: Bundle, dataset: Dataset, settings: RuntimeSettings, emit: Emit) -> Runtime:
    """The bundle's runtime, if the dataset's tiles are what its network wants to see.

    Raises:
        UsageError: tiles of another field or size, or a device or precision that cannot be.
        DeviceUnavailable: the device is not here.
    """
    if bundle.spec != dataset.spec:
        has, wants = (f"{spec.size_px} px at {spec.mpp:g} µm/px" for spec in (dataset.spec, bundle.spec))
        raise UsageError(
            f"The dataset's tiles are {has}; the model {bundle.name} sees {wants}.",
            where=str(dataset.folder),
            next_step="Make the dataset again, with tiles of that size.",
        )
    runtime = choose_runtime(bundle, settings.device, settings.precision, runtime=settings.runtime)
    emit(RuntimeChosen(runtime.device, runtime.precision, runtime.name))
    return runtime


def predict_rows(
    runtime: Runtime, dataset: Dataset, rows: IntArray, emit: Emit, *, batch_size: int | None = None, task: str
) -> Float32Array:
    """Class probabilities of the tiles of m rows, float32 [m, 6].

    Memory holds two blocks of tiles at most, whatever m is. Tiles are read slide by slide, while the network computes.

    Args:
        task: what progress is told as.

    Raises:
        SlideError: a slide cannot be read.
    """
    batch = batch_size or usual_batch_size(runtime.device)
    tiles = dataset.tiles
    order = np.lexsort((tiles.origins[rows, 0], tiles.origins[rows, 1], tiles.slide[rows]))
    block = max(batch, _BLOCK_BYTES // (3 * dataset.spec.size_px**2) // batch * batch)
    found = np.empty((len(rows), len(TileClass)), dtype=np.float32)
    tell, done = ticker(task, len(rows), emit), 0

    def batches() -> Iterator[tuple[IntArray, ByteArray]]:
        for start in range(0, len(rows), block):
            places = order[start : start + block]
            pixels = read_pixels(dataset, rows[places])
            for first in range(0, len(places), batch):
                yield places[first : first + batch], pixels[first : first + batch]

    for places, probabilities in classified(batches(), runtime):
        found[places] = probabilities
        done += len(places)
        tell(done)
    return found

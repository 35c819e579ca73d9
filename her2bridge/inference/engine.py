"""From a slide and its grid to predictions: reading runs ahead in threads while the network computes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from her2bridge.errors import Interrupted, ModelError
from her2bridge.inference.one_colour import OncePerColour
from her2bridge.inference.reader import read_tiles
from her2bridge.inference.runtime.base import Runtime, classified
from her2bridge.records import SlideSource, TileClass, TileGrid, TilePredictions
from her2bridge.slides import Slide, open_slide
from her2bridge.stopwatch import Stage, Stopwatch


@dataclass(frozen=True, eq=False)
class SlideJob:
    """One slide to be worked through: where it is and which tiles of it are wanted."""

    source: SlideSource
    grid: TileGrid


def predict_slide(
    job: SlideJob,
    runtime: Runtime,
    *,
    batch_size: int = 32,
    workers: int | None = None,
    slide: Slide | None = None,
    on_progress: Callable[[int], None] | None = None,
    watch: Stopwatch | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TilePredictions:
    """Classify every tile of the job's grid.

    Memory holds a few blocks of pixels and one batch, whatever the slide's size, and 24 bytes a tile.

    Args:
        batch_size: tiles a call of the runtime.
        workers: reading threads; default: one a core, 32 at most.
        slide: the job's slide where it is open already; it is left open.
        on_progress: told after each batch how many tiles are done in all.
        watch: counts what is spent on pixels and on the network.
        should_stop: asked after each batch.

    Raises:
        SlideError: the slide cannot be opened or read.
        ModelError: the network's output is not finite.
        Interrupted: ``should_stop`` said so.
    """
    grid = job.grid
    probabilities = np.empty((len(grid), len(TileClass)), dtype=np.float32)
    if len(grid):
        if slide is None:
            with open_slide(job.source) as opened:
                return predict_slide(
                    job,
                    runtime,
                    batch_size=batch_size,
                    workers=workers,
                    slide=opened,
                    on_progress=on_progress,
                    watch=watch,
                    should_stop=should_stop,
                )
        watch = watch or Stopwatch()
        done = 0
        with closing(
            read_tiles(slide, grid, batch_size=batch_size, workers=workers, on_block=watch.decoded)
        ) as batches:
            pixels = watch.each(Stage.PIXELS, batches)
            for indices, result in watch.each(Stage.NETWORK, classified(pixels, OncePerColour(runtime))):
                if not np.isfinite(result).all():
                    raise _not_finite(job, runtime)
                probabilities[indices] = result
                done += len(indices)
                if on_progress is not None:
                    on_progress(done)
                if should_stop is not None and done < len(grid) and should_stop():
                    raise _interrupted(job, done)
    return TilePredictions(grid, probabilities)


def _interrupted(job: SlideJob, done: int) -> Interrupted:
    return Interrupted(
        f"Stopped after {done} of {len(job.grid)} tiles.",
        where=str(job.source.path),
        next_step="Run again: images that were finished are not computed anew.",
    )


def _not_finite(job: SlideJob, runtime: Runtime) -> ModelError:
    return ModelError(
        "The network's output is not a number for some tiles.",
        where=f"{job.source.path}, {runtime.name} on {runtime.device} in {runtime.precision}",
        next_step="Run again with --precision fp32; if it stays so, the model bundle is at fault.",
    )

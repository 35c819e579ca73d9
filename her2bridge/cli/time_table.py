"""Where the time of a run went, as people are told it with ``--profile``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console

from her2bridge.cli.console import counted, table
from her2bridge.events import ImageTimed
from her2bridge.stopwatch import Stage


def tell_times(timed: Sequence[ImageTimed], notes: Console) -> None:
    """A line for each stage that took any time, over all images, and what went on beside."""
    stages: Counter[str] = Counter()
    for event in timed:
        stages.update(event.stages)
    seconds = sum(event.seconds for event in timed)
    made = table(f"Where the time of {counted(len(timed), 'image')} went", "Seconds", "%", numbers=("Seconds", "%"))
    for stage in Stage:
        if stages[stage] >= 0.005:
            made.add_row(str(stage), f"{stages[stage]:.2f}", f"{100 * stages[stage] / seconds:.0f}")
    made.add_row("in all", f"{seconds:.2f}", "")
    notes.print(made)
    for line in _beside(timed, stages, seconds):
        notes.print(line, soft_wrap=True)


def _beside(timed: Sequence[ImageTimed], stages: Counter[str], seconds: float) -> Iterator[str]:
    busy = sum(event.cores_busy * event.seconds for event in timed) / seconds
    yield f"{counted(timed[0].cores, 'core')}, {100 * busy:.0f} % busy with this run."
    decoding = sum(event.decoding_seconds for event in timed)
    if decoding:
        yield f"Reading and decoding went on beside, {decoding:.2f} s in all threads together."
    tiles, classifying = sum(event.tiles for event in timed), stages[Stage.PIXELS] + stages[Stage.NETWORK]
    if tiles and classifying:
        limit = "the slides" if stages[Stage.PIXELS] > stages[Stage.NETWORK] else "the network"
        yield f"{tiles:,} tiles at {tiles / classifying:,.0f} a second; what they wait for most is {limit}."

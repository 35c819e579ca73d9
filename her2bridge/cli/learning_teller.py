"""Labels, training and evaluation as people are told them while they go on."""

from __future__ import annotations

import math
from collections.abc import Callable

import her2bridge.events as ev
from her2bridge.cli.bar import span
from her2bridge.cli.console import counted, printable


def tell_learning(event: ev.Event, say: Callable[[str], None]) -> None:
    """Say what an event of labels, training, evaluation or experiments means; other events are let pass."""
    match event:
        case ev.LabelsRead():
            left = "".join(f"; {reason}: {count:,}" for reason, count in event.left_out.items() if count)
            say(f"{printable(event.image)}: {counted(sum(event.tiles.values()), 'labelled tile')}{printable(left)}")
        case ev.TrainingStarted():
            title = f"{printable(event.title)}: " if event.title else ""
            recipe = f"recipe {event.recipe}, {counted(event.epochs, 'epoch')}"
            went_on = f", going on after epoch {event.epoch}" if event.epoch else ""
            say(
                f"{title}{counted(event.tiles, 'tile')} to train on, {event.validation_tiles:,} to validate;"
                f" {recipe} on {event.device}, {event.precision}{went_on}"
            )
        case ev.EpochFinished():
            title = f"{printable(event.title)}, " if event.title else ""
            left = f", {span(event.seconds_left)} left" if event.epoch < event.epochs else ""
            seen = f"; validation loss {event.validation_loss:.3f}, macro-F1 {event.validation_macro_f1:.3f}"
            say(
                f"{title}epoch {event.epoch}/{event.epochs}: loss {event.loss:.3f}, accuracy {event.accuracy:.3f}"
                f"{seen if math.isfinite(event.validation_loss) else ''} ({span(event.seconds)}{left})"
            )
        case ev.BundleWritten():
            say(f"Model {printable(event.model)}, SHA-256 {event.sha256[:12]}\nWritten to {event.folder}")
        case ev.Evaluated() | ev.ExperimentFinished():
            say(f"Written to {event.folder}")
        case _:
            pass

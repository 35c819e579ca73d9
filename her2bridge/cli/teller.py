"""A run as people are told it: a progress bar while it goes on, and a table, reasons and warnings at its end."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

import her2bridge.events as ev
from her2bridge.cli.bar import Bar, span
from her2bridge.cli.console import RESEARCH_USE_ONLY, counted, printable, table
from her2bridge.cli.learning_teller import tell_learning
from her2bridge.cli.time_table import tell_times
from her2bridge.errors import Her2BridgeError
from her2bridge.qupath.results import WHSPN
from her2bridge.records import NOT_ASSESSABLE, TUMOUR_CLASSES, Status

_NAMES_AT_MOST = 10
_WIDTH_OF_ALL = 120  # characters, for the whole table of scores
_STYLES = {
    str(Status.POSITIVE): "bold red",
    str(Status.EQUIVOCAL): "yellow",
    str(Status.DISCORDANT): "bold magenta",
    NOT_ASSESSABLE: "dim",
}


class RunTeller:
    """Tells the events of a run to people; sums it up once.

    Args:
        results: hears the table, the scores' reasons and nothing else.
        notes: hears all else.
    """

    def __init__(self, results: Console, notes: Console) -> None:
        self._results, self._notes = results, notes
        self._bar = Bar(notes)
        self._started: ev.RunStarted | None = None
        self._ended: ev.RunFinished | ev.RestoreFinished | None = None
        self._scored: list[ev.ImageScored] = []
        self._skipped: list[ev.ImageSkipped] = []
        self._timed: list[ev.ImageTimed] = []
        self._planned = 0
        self._warnings: list[ev.Warned] = []

    def __call__(self, event: ev.Event) -> None:
        """Hear an event."""
        match event:
            case ev.RunStarted():
                self._started = event
                self._begin(event)
            case ev.RuntimeChosen():
                self._say(f"Network: {event.runtime} on {event.device}, {event.precision}", "dim")
            case ev.ImageStarted():
                of = f"{event.index + 1}/{self._started.images} " if self._started else ""
                self._bar.start(f"{of}{printable(event.image)}", event.tiles)
            case ev.Progress():
                self._bar.show(event.done, event.tiles_per_second, event.seconds_left)
            case ev.TaskProgress():
                self._bar.follow(event)
            case ev.Warned(image=None):
                self._say(f"Warning: {printable(event.message)}", "yellow")
            case ev.Warned():
                self._warnings.append(event)
            case ev.ImageTimed():
                self._timed.append(event)
            case ev.ImageScored():
                self._bar.stop()
                self._scored.append(event)
                told = "" if event.score == event.status else f", {event.status}"
                tiles = sum(event.counts.values())
                persons = (
                    f"; {counted(event.corrected_tiles, 'tile')} as a person classed" if event.corrected_tiles else ""
                )
                name, time = printable(event.image), f"{event.seconds:.1f} s"
                self._say(f"{name}: {event.score}{told}; {tiles:,} tiles in {time}{persons}")
            case ev.ImageSkipped():
                self._skipped.append(event)
            case ev.ImagePlanned():
                self._planned += 1
                what = f"{event.action}; {event.tiles:,} tiles in {counted(event.regions, 'region')}"
                self._results.print(f"{printable(event.image)}: {what}", soft_wrap=True)
            case ev.ImageFailed():
                self._bar.stop()
                self.tell_failure(event)
            case ev.Restored():
                name = printable(event.image)
                kept = f", {event.kept:,} stay as they were corrected" if event.kept else ""
                self._results.print(
                    f"{name}: {event.score} restored, {event.tiles:,} tiles put back{kept}", soft_wrap=True
                )
            case ev.RunFinished() | ev.RestoreFinished():
                self._ended = event
            case _:
                self._bar.stop()
                tell_learning(event, self._say)

    def tell_failure(self, event: ev.ImageFailed) -> None:
        """An image's error, three parts."""
        error = Her2BridgeError(event.what, where=event.where, next_step=event.next_step)
        self._say(f"{printable(event.image)} failed: {error}", "red")

    def tell_error(self, error: Her2BridgeError) -> None:
        """The command's error, three parts."""
        self._say(f"Error: {error}", "red")

    def stop(self) -> None:
        """Take the progress bar away."""
        self._bar.stop()

    def sum_up(self) -> None:
        """Table, reasons, warnings, what was skipped and where results are; says what it said before no second time."""
        self.stop()
        if self._scored:
            self._results.print(_score_table(self._scored, self._results.width))
            self._tell_whspn()
            self._tell_reviews()
            self._results.print(
                "Percentages are of tumour tiles, not of cells. % 0: tiles of class 0 (QuPath: Negative). The status "
                "Negative is a slide's, whose score is 0 or 1+.\nWhat the model learned from, and what it cannot do: "
                f"her2bridge models.\n{RESEARCH_USE_ONLY}",
                soft_wrap=True,
                style="dim",
            )
        self._tell_warnings()
        self._tell_skipped()
        if self._timed:
            tell_times(self._timed, self._notes)
        for place in sorted({event.written_to for event in self._scored if event.written_to}):
            self._say(f"Written to {place}")
        if self._ended is not None:
            self._say(_ending(self._ended, self._planned), "bold")
        self._scored, self._skipped, self._timed, self._warnings, self._ended = [], [], [], [], None

    def _begin(self, event: ev.RunStarted) -> None:
        images = counted(event.images, "image")
        dry = ", dry run: nothing is written" if event.dry_run else ""
        if event.backend == "none":  # analyze
            self._say(f"her2bridge {event.version}, model {event.model}")
        else:
            self._say(f"her2bridge {event.version}, backend {event.backend}, model {event.model}, {images}{dry}")
        self._say(RESEARCH_USE_ONLY, "dim")
        if event.backend != "none" and not event.dry_run:
            self._say("Close the project in QuPath before a run: QuPath would write over the results.", "dim")

    def _tell_whspn(self) -> None:
        read = [event for event in self._scored if event.metadata.get(WHSPN)]
        if read:
            self._results.print("What the WHSPN reads from the shares:", style="bold")
        for event in read:
            self._results.print(f"  {printable(event.image)}: {printable(event.metadata[WHSPN])}", soft_wrap=True)

    def _tell_reviews(self) -> None:
        reviewed = [event for event in self._scored if event.review]
        if reviewed:
            self._results.print("A person should look, because:", style="bold")
        for event in reviewed:
            self._results.print(f"  {printable(event.image)}: {'; '.join(event.review)}", soft_wrap=True)

    def _tell_warnings(self) -> None:
        if self._warnings:
            self._say("Warnings:", "yellow")
        for image, warnings in groupby(self._warnings, lambda one: one.image):  # they come image by image
            self._say(f"  {printable(image or '')}:")
            for warning in warnings:
                self._say(f"    {printable(warning.message)}")

    def _tell_skipped(self) -> None:
        for reason, skipped in groupby(sorted(self._skipped, key=lambda one: one.reason), lambda one: one.reason):
            names = [f"{printable(one.image)}{f' ({one.score})' if one.score else ''}" for one in skipped]
            more = f" and {len(names) - _NAMES_AT_MOST} more" if len(names) > _NAMES_AT_MOST else ""
            self._say(f"Skipped, {reason}: {', '.join(names[:_NAMES_AT_MOST])}{more}")

    def _say(self, text: str, style: str | None = None) -> None:
        self._notes.print(text, soft_wrap=True, style=style)


def _score_table(scored: Sequence[ev.ImageScored], width: int) -> Table:
    """One line an image; on a narrow terminal without what the lines above it said: status and reasons."""
    is_wide = width >= _WIDTH_OF_ALL
    shares = [f"% {one.label}" for one in TUMOUR_CLASSES]
    numbers = ["Tumour tiles", *shares, "Tile H-score"]
    made = table(
        "Image", "Score", *(["Status"] if is_wide else []), *numbers, *(["Review"] if is_wide else []), numbers=numbers
    )
    for column in made.columns[1:]:
        column.no_wrap = is_wide
    for event in scored:
        has_shares = event.score != NOT_ASSESSABLE and event.tumour_tiles > 0
        percent = [
            f"{100 * event.counts[one.label] / event.tumour_tiles:.1f}" if has_shares else "" for one in TUMOUR_CLASSES
        ]
        made.add_row(
            printable(event.image),
            event.score,
            *([Text(event.status, style=_STYLES.get(event.status, ""))] if is_wide else []),
            f"{event.tumour_tiles:,}",
            *percent,
            f"{event.tile_h_score:.1f}" if has_shares else "",
            *([counted(len(event.review), "reason") if event.review else ""] if is_wide else []),
        )
    return made


def _ending(event: ev.RunFinished | ev.RestoreFinished, planned: int) -> str:
    if isinstance(event, ev.RestoreFinished):
        return f"{event.restored} restored, {event.skipped} skipped, {event.failed} failed"
    stopped = "Stopped by Ctrl-C; what was finished is kept: " if event.interrupted else ""
    done = f"{planned} to be scored" if planned else f"{event.scored} scored"
    return f"{stopped}{done}, {event.skipped} skipped, {event.failed} failed, in {span(event.seconds)}"

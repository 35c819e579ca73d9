"""``her2bridge demo``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from her2bridge.cli import options as opt
from her2bridge.cli.console import RESEARCH_USE_ONLY, table
from her2bridge.cli.output import Output
from her2bridge.cli.run import end_with
from her2bridge.errors import UsageError
from her2bridge.events import Event, ImageScored, ImageSkipped
from her2bridge.qupath.classes import path_classes
from her2bridge.records import TileClass
from her2bridge.settings import RunSettings

if TYPE_CHECKING:
    from her2bridge.demo import Comparison, Demo


def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the demo lies, or will lie.")] = Path(
        "her2bridge-demo"
    ),
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Which slide is drawn; equal seeds draw equal slides.  [default: 7]")
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Pixels of the slide.  [default: 12288x8192]")] = None,
    force: Annotated[bool, typer.Option("--force", help="Score again what was scored already.")] = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Draw a synthetic slide, score it, compare with the drawing.

    Makes a QuPath project over a slide whose every tile is known. Takes a minute or two the first time; what lies in
    DIR already is used again. Needs no QuPath; to see the tiles, open the project in it.
    """
    with Output(log=log, debug=debug) as output:
        from her2bridge.demo import compare_with_truth
        from her2bridge.run import run_project

        made = _make(folder, seed, size, output.notes)
        scores: list[str] = []

        def hear(event: Event) -> None:
            if isinstance(event, ImageScored | ImageSkipped):
                scores.append(event.score)
            output(event)

        finished = run_project(made.project, RunSettings(force=force), hear)
        output.told.sum_up()
        if scores:
            _tell(compare_with_truth(made), scores[-1], output.results)
            _tell_next(made, output.notes)
        end_with(finished)


def _make(folder: Path, seed: int | None, size: str | None, notes: Console) -> Demo:
    """Draw the demo, or find it again.

    Raises:
        UsageError: what lies in the folder is not what is asked for, or cannot be.
    """
    from her2bridge.demo import SEED, SIZE, make_demo

    wanted = _size(size)
    if seed is not None and seed < 0:
        raise _refused("--seed", str(seed), "Give a whole number of at least 0.")
    doing = f"Drawing the slide in {folder}, if it is not there; takes a minute or two …"
    if not notes.is_interactive:
        notes.print(doing, soft_wrap=True)
    with notes.status(Text(doing)):
        made = make_demo(folder, size=wanted or SIZE, seed=SEED if seed is None else seed)
    truth = made.truth
    if seed not in (None, truth.seed) or wanted not in (None, (truth.width, truth.height)):
        raise UsageError(
            f"The demo that lies there is another one: seed {truth.seed}, {truth.width}x{truth.height} px.",
            where=str(folder),
            next_step="Name another folder, or leave --seed and --size out.",
        )
    return made


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{4,6})x(\d{4,6})", text, re.ASCII)
    if match is None:
        raise _refused("--size", text, "Give width and height in pixels, 1000 at least, for instance 6144x4096.")
    return int(match[1]), int(match[2])


def _refused(option: str, value: str, next_step: str) -> UsageError:
    return UsageError(f"{option} cannot be {value!r}.", where=option, next_step=next_step)


def _tell(found: Comparison, score: str, results: Console) -> None:
    numbers = ("Drawn", "Found", "Found where drawn")
    made = table("Tile class", *numbers, numbers=numbers)
    for tile_class, path_class in zip(TileClass, path_classes(), strict=True):
        made.add_row(
            f"{tile_class.label} (QuPath: {path_class})",
            f"{found.truth.by_class[tile_class]:,}",
            f"{found.found.by_class[tile_class]:,}",
            f"{found.confusion[tile_class, tile_class]:,}",
        )
    results.print(made)
    results.print(
        f"Score: {score}; the drawing gives {found.true_score}. Of {found.truth.total:,} tiles that show one class, "
        f"{100 * found.agreement:.1f} % were found as drawn; {found.mixed:,} show two and are not compared.\n"
        "The model was trained on drawings like this one: the figures say nothing of real slides.",
        soft_wrap=True,
    )
    results.print(RESEARCH_USE_ONLY, style="dim")


def _tell_next(made: Demo, notes: Console) -> None:
    folder = made.project.parent
    notes.print(
        f"See it in QuPath: open {made.project.absolute()} (or drag it onto QuPath's window), open the image, and "
        "press F to fill the tiles. The score is among the image's metadata in the Project tab, the regions' shares "
        "among their measurements.\n"
        f"Without QuPath: {folder.absolute() / 'her2bridge' / 'results'} holds the results as JSON and GeoJSON, "
        f"{made.slide.absolute().parent / 'truth.json'} what was drawn.",
        soft_wrap=True,
    )

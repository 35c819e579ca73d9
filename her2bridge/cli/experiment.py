"""``her2bridge experiment``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from her2bridge.cli import options as opt
from her2bridge.cli.console import RESEARCH_USE_ONLY, table
from her2bridge.cli.output import Output

if TYPE_CHECKING:
    from her2bridge.experiments.write import ExperimentTable


_Repeats = Annotated[
    int, typer.Option(min=1, metavar="N", help="How often the tiles are divided anew, trained on, measured.")
]
_Split = Annotated[
    str | None,
    typer.Option(
        metavar="patient|paper",
        help="Hold whole patients out, or mix all tiles as the paper does, which flatters.  [default: patient, where"
        " there are three or more]",
    ),
]
_Networks = Annotated[
    list[str] | None,
    typer.Option("--networks", metavar="NAME", help="Only this network; may be given again.  [default: all]"),
]
_Epochs = Annotated[int | None, typer.Option(min=1, metavar="N", help="In place of the recipe's.")]
_BatchSize = Annotated[int | None, typer.Option(min=2, metavar="TILES", help="In place of the recipe's.")]
_TilePx = Annotated[
    int | None,
    typer.Option(min=32, metavar="N", help="Reduce tiles to so many pixels a side, to be quick.  [default: as is]"),
]
_MaxTiles = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Take only so many tiles, classes and patients in proportion.")
]
_About = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="One sentence for the tables: what the tiles show, and who labelled them.  [default: not stated]",
    ),
]
_Precision = Annotated[
    str, typer.Option(metavar="auto|fp32|bf16", help="Of the training; auto takes what recipe and device say.")
]


def experiment(
    name: Annotated[str, typer.Argument(metavar="table4|table5|table6|table7", help="Which table of the paper.")],
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Labelled tiles, of her2bridge labels.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the tables and of the repeats that are done.")],
    repeats: _Repeats = 5,
    split: _Split = None,
    networks: _Networks = None,
    recipe: Annotated[str, typer.Option(metavar="modern|paper", help="How networks are trained.")] = "modern",
    epochs: _Epochs = None,
    batch_size: _BatchSize = None,
    tile_px: _TilePx = None,
    max_tiles: _MaxTiles = None,
    device: opt.Device = "auto",
    precision: _Precision = "auto",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of divisions, weights and training.")] = 2022,
    about: _About = None,
    relocate: opt.Relocations = None,
    json: opt.AsJson = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Repeat one of the paper's tables on labelled tiles.

    Monte-Carlo cross-validation: mean and standard deviation over repeats, each with a fifth of the tiles held out.
    table4: RepVGG and seven other networks; table5: class by class; table6: scores of simulated slides; table7: what
    blocks, attention and fusing do. DIR gets the table as CSV, JSON and Markdown, with the published figures beside; a
    run that was stopped goes on after the last repeat done. The dataset's test tiles are not used. Research use only.
    """
    with Output(as_json=json, log=log, debug=debug) as output:
        from her2bridge.experiments.plan import ExperimentSettings
        from her2bridge.experiments.run import run_experiment
        from her2bridge.training.dataset import load_dataset

        settings = ExperimentSettings(
            out=out,
            repeats=repeats,
            recipe=recipe,
            epochs=epochs,
            batch_size=batch_size,
            tile_px=tile_px,
            max_tiles=max_tiles,
            networks=tuple(networks or ()),
            split=split,
            device=device,
            precision=precision,
            seed=seed,
            about=about,
        )
        labelled = load_dataset(dataset).relocated(opt.relocations_of(relocate))
        made = run_experiment(name, labelled, settings, output)
        _tell(made, out, output)


def _tell(made: ExperimentTable, out: Path, output: Output) -> None:
    titles = [column.title for column in made.shown]
    numbers = [column.title for column in made.shown if made.is_number(column)]
    shown = table(*titles, numbers=numbers)
    for row in made.texts():
        shown.add_row(*row)
    output.results.print(made.title, style="bold")
    output.results.print(shown)
    for note in made.notes:
        output.results.print(note, soft_wrap=True)
    output.results.print(RESEARCH_USE_ONLY, style="dim")
    output.notes.print(f"Written to {out}", soft_wrap=True)

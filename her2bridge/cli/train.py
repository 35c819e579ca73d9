"""``her2bridge train``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from her2bridge.cli import options as opt
from her2bridge.cli.console import RESEARCH_USE_ONLY, counted, printable, table
from her2bridge.cli.output import Output
from her2bridge.errors import Interrupted, UsageError
from her2bridge.records import TileClass

if TYPE_CHECKING:
    from her2bridge.training.recipes import Recipe

_Dataset = Annotated[Path, typer.Argument(metavar="DATASET", help="A folder that her2bridge labels wrote.")]
_Out = Annotated[
    Path, typer.Option("--out", metavar="BUNDLE", help="Folder of the new model; BUNDLE.work is used meanwhile.")
]
_Start = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="BUNDLE", help="Begin with this model: its name, or its folder.  [default: random weights]"
    ),
]
_Attention = Annotated[
    str | None,
    typer.Option(metavar="none|gct|se", help="Attention of the network's blocks.  [default: that of --from, or gct]"),
]
_Recipe = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="paper|modern",
        help="paper: as published, 200 epochs; modern: warm-up, cosine, mean weights, smoothed labels, augmentation.",
    ),
]
_Epochs = Annotated[
    int | None, typer.Option(metavar="NUMBER", help="How often all tiles are seen.  [default: the recipe's]")
]
_BatchSize = Annotated[int | None, typer.Option(metavar="TILES", help="Tiles a step.  [default: the recipe's]")]
_Rate = Annotated[float | None, typer.Option("--lr", metavar="RATE", help="Learning rate.  [default: the recipe's]")]
_Seed = Annotated[int, typer.Option(min=0, metavar="NUMBER", help="Of every random choice.")]
_Precision = Annotated[
    str,
    typer.Option(metavar="auto|fp32|bf16", help="How it computes; auto takes what recipe and device are good at."),
]
_Balance = Annotated[
    str | None,
    typer.Option(
        metavar="none|sampler|loss",
        help="Rare classes: left rare, drawn more often, or weighed more in the loss.  [default: the recipe's]",
    ),
]
_LabelsBy = Annotated[
    str, typer.Option(metavar="TEXT", help="Who labelled, for the model's card, such as 'two pathologists'.")
]
_Folds = Annotated[
    int,
    typer.Option(
        min=0,
        metavar="K",
        help="Train K more networks, each without a part of the patients, into BUNDLE-folds: for suspect labels and"
        " for train-score.",
    ),
]
_Name = Annotated[str | None, typer.Option(metavar="TEXT", help="The model's name.  [default: its folder's]")]
_Version = Annotated[str, typer.Option(metavar="TEXT", help="The model's version.")]
_Restart = Annotated[bool, typer.Option("--restart", help="Forget what a call that was stopped had reached.")]
_Force = Annotated[bool, typer.Option("--force", help="Replace a model that is there.")]


def train(
    dataset: _Dataset,
    out: _Out,
    start: _Start = None,
    attention: _Attention = None,
    recipe: _Recipe = "modern",
    epochs: _Epochs = None,
    batch_size: _BatchSize = None,
    rate: _Rate = None,
    seed: _Seed = 2022,
    device: opt.Device = "auto",
    precision: _Precision = "auto",
    balance: _Balance = None,
    labels_by: _LabelsBy = "not stated",
    folds: _Folds = 0,
    relocate: opt.Relocations = None,
    name: _Name = None,
    model_version: _Version = "1.0.0",
    restart: _Restart = False,
    force: _Force = False,
    json: opt.AsJson = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Train a model on labelled tiles.

    It learns from those of split train; val sets its temperature; test is left alone. Stopped or killed, it goes on
    where it was when the same command is given again. Several GPUs: torchrun --nproc-per-node=N -m her2bridge train,
    and so on. BUNDLE gets metrics.jsonl and curves.png too. Exit code: 0, 1 where it cannot be done, 2 for wrong
    usage, 130 after Ctrl-C. Research use only.
    """
    with Output(as_json=json, log=log, debug=debug) as output:
        from her2bridge.model.bundle import load_bundle
        from her2bridge.training import distributed
        from her2bridge.training.dataset import load_dataset
        from her2bridge.training.train import TrainSettings, train_bundle, work_of

        changes = {"epochs": epochs, "batch_size": batch_size, "learning_rate": rate, "balance": balance}
        how = _recipe(recipe, {key: value for key, value in changes.items() if value is not None})
        begin = None if start is None else load_bundle(start)
        who = (labels_by, folds, name, model_version, restart, force)
        settings = TrainSettings(begin, attention, how, seed, device, precision, *who)
        tiles = load_dataset(dataset).relocated(opt.relocations_of(relocate))
        try:
            with distributed.joined(device):
                made = train_bundle(tiles, out, settings, output)
                is_first = distributed.is_first()
        except KeyboardInterrupt as error:
            raise _stopped(work_of(out)) from error
        for shown in _told(made.card) if is_first else ():
            output.results.print(shown, soft_wrap=isinstance(shown, str))


def _recipe(name: str, changes: Mapping[str, Any]) -> Recipe:
    from her2bridge.training.recipes import RECIPES

    if name not in RECIPES:
        raise UsageError(f"There is no recipe {name!r}.", where="--recipe", next_step=f"Give {' or '.join(RECIPES)}.")
    return replace(RECIPES[name], **changes)


def _stopped(work: Path) -> Interrupted:
    return Interrupted(
        "Stopped by Ctrl-C; what was reached is kept.",
        where=str(work),
        next_step="Give the same command again, without --restart: it goes on where it stopped.",
    )


def _told(card: Mapping[str, Any]) -> Iterator[str | Table]:
    """How well it does on the validation tiles, and what its card warns of."""
    metrics, labels = card["metrics"], [one.label for one in TileClass]
    if metrics["tiles"]:
        yield f"Measured on {metrics['measured_on']}: {counted(metrics['tiles'], 'tile')}"
        figures = table("%", *labels, numbers=labels)
        for key in ("precision", "recall"):
            values = [metrics[key][label] for label in labels]
            figures.add_row(key, *("–" if value is None else f"{100 * value:.1f}" for value in values))
        yield figures
        error = metrics["expected_calibration_error"]
        yield (
            f"Accuracy {metrics['accuracy']:.3f}, macro-F1 {metrics['macro_f1']:.3f}; expected calibration error"
            f" {error['before_temperature']:.3f}, {error['with_it']:.3f} with temperature {card['temperature']:.3g}"
        )
    for limit in card["limits"][1:]:
        yield printable(limit)
    yield RESEARCH_USE_ONLY

"""``her2bridge train-score``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from her2bridge.cli import options as opt
from her2bridge.cli.console import RESEARCH_USE_ONLY, counted, table
from her2bridge.cli.output import Output
from her2bridge.records import TUMOUR_CLASSES

_READINGS = {
    "four_classes": tuple(score.label for score in TUMOUR_CLASSES),
    "three_classes": ("negative", "equivocal", "positive"),
}
_KINDS = {"mlp": "WHSPN, MLP", "svm": "WHSPN, SVM", "rule": "the rule"}


_Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help="The model that scored the slides.")]
_Projects = Annotated[
    list[Path], typer.Argument(metavar="PROJECT", help="Projects with scored slides: project.qpproj, or folders.")
]
_Out = Annotated[Path, typer.Option("--out", metavar="BUNDLE2", help="Folder of the new bundle.")]
_CaseKey = Annotated[
    str,
    typer.Option(
        metavar="KEY", help="Image metadata key of the case score, a text such as 2+ or HER2 2+, ISH negative."
    ),
]
_Folds = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="The cross-validation of BUNDLE's training (her2bridge train --folds). Slides of patients whom BUNDLE"
        " learned from are classified anew by the network that did not see them; without it they are left out.",
    ),
]
_PatientKey = Annotated[
    str, typer.Option(metavar="KEY", help="Image metadata key of the patient; slides of one are never parted.")
]
_ValidationShare = Annotated[
    float, typer.Option(metavar="SHARE", help="How many of the slides choose the weight decay, 0 to 1.")
]
_TestImages = Annotated[
    list[str] | None,
    typer.Option(
        "--test-image",
        metavar="NAME",
        help="Learn nothing of this image's patient, and measure on it; may be given again."
        "  [default: cross-validation]",
    ),
]
_Seed = Annotated[int, typer.Option(min=0, metavar="NUMBER", help="Of every random choice.")]
_TrainedOn = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What is said wherever its score is shown.  [default: how many slides]"),
]


def train_score(
    bundle: _Bundle,
    projects: _Projects,
    out: _Out,
    case_key: _CaseKey = "Case score",
    folds: _Folds = None,
    patient_key: _PatientKey = "Patient",
    validation_share: _ValidationShare = 0.2,
    test_image: _TestImages = None,
    seed: _Seed = 2022,
    trained_on: _TrainedOn = None,
    relocate: opt.Relocations = None,
    backend: opt.Backend = "auto",
    device: opt.Device = "auto",
    json: opt.AsJson = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Teach a model to read slide scores from its tiles.

    It fits the second network (WHSPN) on slides that BUNDLE has scored, by case scores of pathologists, and saves it
    with BUNDLE's first as BUNDLE2.
    The figures are of slides whose patients were not learned from. Exit code: 0, 1 where it cannot be done, 2 for
    wrong usage, 130 after Ctrl-C. Research use only.
    """
    with Output(as_json=json, log=log, debug=debug) as output:
        from her2bridge.model.bundle import load_bundle
        from her2bridge.training.folds import load_folds
        from her2bridge.training.score_cases import CaseSettings
        from her2bridge.training.score_fit import FitSettings
        from her2bridge.training.score_fit import train_score as train

        settings = FitSettings(validation_share, tuple(test_image or ()), seed, trained_on)
        which = CaseSettings(case_key, patient_key, backend, opt.relocations_of(relocate), device)
        held_out = None if folds is None else load_folds(folds)
        saved, cases = train(load_bundle(bundle), projects, out, which, settings, output, held_out)
        section: Mapping[str, Any] = saved.card["whspn"]
        for shown in _told(section["metrics"]):
            output.results.print(shown)
        left_out = sum(cases.left_out.values())
        learned = f"{counted(len(cases.cases), 'slide')} of {counted(section['patients'], 'patient')}"
        output.results.print(f"{learned}; {left_out} left out")
        for reason, count in cases.left_out.items():
            output.results.print(f"  {reason}: {count}")
        output.results.print(RESEARCH_USE_ONLY, style="dim")


def _told(metrics: Mapping[str, Any]) -> Iterator[str | Table]:
    """The figures: one table of all, then the confusion matrices of the MLP."""
    yield f"Measured on {metrics['measured_on']}"
    numbers = ("accuracy, four", "kappa, four", "accuracy, three", "kappa, three")
    figures = table("", *numbers, numbers=numbers)
    for kind, title in _KINDS.items():
        values = [metrics[kind][reading][name] for reading in _READINGS for name in ("accuracy", "quadratic_kappa")]
        figures.add_row(title, *("–" if value is None else f"{value:.3f}" for value in values))
    yield figures
    for kind in ("mlp", "rule"):
        for reading, names in _READINGS.items():
            matrix = table(f"{_KINDS[kind]}: truth", *names, numbers=names)
            for name, row in zip(names, metrics[kind][reading]["rows_truth_columns_predicted"], strict=True):
                matrix.add_row(name, *map(str, row))
            yield matrix

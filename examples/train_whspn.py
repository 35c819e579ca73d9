"""Fit the WHSPN on simulated cohorts and put it into a bundle: one command, one seed, less than a minute.

    python examples/train_whspn.py her2bridge/model/bundles/her2-synthetic-gct-2

The cohorts are those of ``her2bridge.synth.cohort``: no slide, no picture. How the tile network errs is taken from the
confusion matrix in the bundle's card, or from a file (``--confusion matrix.json``: six rows of six numbers, rows truth,
order 0, 1+, 2+, 3+, normal, noise). A cohort has as many slides as in Table 3 of Han et al. 2022; many cohorts are
fitted on, because they cost nothing, and one is fitted on alone, to be compared with the paper's 75 slides.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from her2bridge.model.bundle import Bundle, load_bundle, save_bundle
from her2bridge.records import IntArray
from her2bridge.scoring.whspn import Whspn
from her2bridge.synth.cohort import TABLE_3, Cohort, simulate_cohort
from her2bridge.training.whspn import PENALTIES, WIDTHS, describe, fit_whspn, measure, measure_whspn, scores_by_rule

TRAINED_ON = "simulated cohorts"


def cohorts(part: str, count: int, confusion: IntArray, seed: int) -> Cohort:
    """So many cohorts in one; no two parts and no two seeds share a slide."""
    rng = np.random.default_rng([seed, list(TABLE_3).index(part)])
    return simulate_cohort([count * slides for slides in TABLE_3[part]], confusion, rng)


def fit(count: int, confusion: IntArray, seed: int) -> Whspn:
    """A WHSPN of so many cohorts' training and validation slides."""
    train, val = (cohorts(part, count, confusion, seed) for part in ("train", "val"))
    return fit_whspn((train.tiles, train.scores), (val.tiles, val.scores), seed=seed, trained_on=TRAINED_ON)


def spread(whspn: Whspn, count: int, confusion: IntArray, seed: int) -> dict[str, float]:
    """Standard deviation of the MLP's accuracy from one test cohort of 100 slides to the next."""
    found = []
    for number in range(count):
        rng = np.random.default_rng([seed, len(TABLE_3), number])
        one = simulate_cohort(TABLE_3["test"], confusion, rng)
        found.append(measure(whspn.mlp.predict(one.shares), one.scores))
    kinds = ("four_classes", "three_classes")
    return {kind: round(float(np.std([one[kind]["accuracy"] for one in found])), 4) for kind in kinds}


def confusion_of(bundle: Bundle, source: str) -> IntArray:
    """The confusion matrix, [6, 6]: the card's, or a file's."""
    table = bundle.card["metrics"]["confusion"] if source == "card" else json.loads(Path(source).read_text())
    return np.array(table["rows_truth_columns_predicted"] if isinstance(table, dict) else table)


def section_of(whspn: Whspn, confusion: IntArray, arguments: argparse.Namespace) -> dict[str, Any]:
    """What the card says of it: all figures are of simulated slides."""
    count, seed = arguments.cohorts, arguments.seed
    test = cohorts("test", arguments.test_cohorts, confusion, seed)
    alone = measure_whspn(fit(1, confusion, seed), test.tiles, test.scores)
    return {
        "data": TRAINED_ON,
        "note": "No slide was scored by a pathologist here. The figures say how well it undoes the simulated errors of "
        "the tile network, and nothing of real slides.",
        "seed": seed,
        "cohorts": {"train": count, "validation": count, "test": arguments.test_cohorts, "slides_by_score": TABLE_3},
        "confusion": {"from": arguments.confusion, "rows_truth_columns_predicted": confusion.tolist()},
        "mlp": f"hidden layers {WIDTHS}, ReLU between layers, none on the logits; Adam, decay chosen from {PENALTIES}",
        "svm": "polynomial kernel of degree 3, gamma 10, C 2, one against one",
        "script": "examples/train_whspn.py",
        "metrics": {
            "measured_on": f"{len(test)} simulated slides that were not fitted on",
            **measure_whspn(whspn, test.tiles, test.scores),
            "rule_if_no_tile_were_mistaken": measure(scores_by_rule(test.true_tiles), test.scores),
            "mlp_spread_over_cohorts_of_100": spread(whspn, arguments.test_cohorts, confusion, seed),
            "fitted_on_one_cohort": {kind: alone[kind] for kind in ("mlp", "svm")},
        },
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="a bundle's folder, or the name of one that ships")
    parser.add_argument("--confusion", default="card", help="card, or a JSON file")
    parser.add_argument("--output", type=Path, help="write the bundle here and leave the given one as it is")
    parser.add_argument("--seed", type=int, default=2022)
    parser.add_argument("--cohorts", type=int, default=40, help="to fit on, 75 slides each, and 8 to validate")
    parser.add_argument("--test-cohorts", type=int, default=20, help="to measure on, 100 slides each")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    began = time.monotonic()
    bundle = load_bundle(arguments.bundle if "/" not in arguments.bundle else Path(arguments.bundle))
    confusion = confusion_of(bundle, arguments.confusion)
    whspn = fit(arguments.cohorts, confusion, arguments.seed)
    section = section_of(whspn, confusion, arguments)
    saved = save_bundle(arguments.output or bundle.path, bundle.network(), {**bundle.card, "whspn": section}, whspn)
    figures = section["metrics"]
    print(f"on {figures['measured_on']}:\n{describe({name: figures[name] for name in ('mlp', 'svm', 'rule')})}")
    print(f"if no tile were mistaken:\n{describe({'rule': figures['rule_if_no_tile_were_mistaken']})}")
    print(f"fitted on one cohort of 75 alone:\n{describe(figures['fitted_on_one_cohort'])}")
    print(f"the MLP's accuracy varies by {figures['mlp_spread_over_cohorts_of_100']} from 100 slides to the next")
    print(f"{saved.path}  sha256 {saved.sha256[:12]}  {len(whspn.svm.support)} support vectors")
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

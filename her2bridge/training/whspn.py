"""Fits the WHSPN with scikit-learn and measures it; its use needs neither (``scoring.whspn``)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import cohen_kappa_score, confusion_matrix, log_loss
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from her2bridge.records import TUMOUR_CLASSES, FloatArray, IntArray, TileCounts
from her2bridge.scoring.rule import resection_score
from her2bridge.scoring.whspn import DEGREE, GAMMA, Mlp, Svm, Whspn, shares_of

WIDTHS = (32, 32, 16)
"""Neurons of the three hidden layers. The paper does not say; twice as many were no better on simulated cohorts."""

PENALTIES = (1e-4, 1e-2, 1e-1)
"""Weight decays of the MLP that are tried; the validation slides choose."""

COST = 2.0
"""The SVM's C, as in the paper."""

_EPOCHS = 400
_SCORES = list(range(len(TUMOUR_CLASSES)))
_THREE = np.array([0, 0, 1, 2])
"""0 and 1+ are negative, 2+ equivocal, 3+ positive."""


def fit_whspn(
    train: tuple[IntArray, IntArray], validation: tuple[IntArray, IntArray], *, seed: int, trained_on: str
) -> Whspn:
    """Both variants; equal seeds give equal ones.

    Args:
        train: tiles by predicted class, int64 [n, 6], and scores 0–3, int64 [n], all four among them.
        validation: the same of other slides; they choose the MLP's weight decay.
        seed: of the MLP's start and order.
        trained_on: in words, as it will be said wherever a score of this WHSPN is shown.

    Raises:
        ValueError: a score that no training slide has, or a slide without tumour tiles.
    """
    shares, scores = shares_of(train[0]), train[1]
    if set(scores.tolist()) != set(_SCORES):
        raise ValueError("every score needs slides to learn from")
    tried = [_fit_mlp(shares, scores, penalty, seed) for penalty in PENALTIES]
    seen = shares_of(validation[0])
    losses = [log_loss(validation[1], mlp.probabilities(seen), labels=_SCORES) for mlp in tried]
    return Whspn(tried[int(np.argmin(losses))], _fit_svm(shares, scores), trained_on)


def measure_whspn(whspn: Whspn, tiles: IntArray, scores: IntArray) -> dict[str, dict[str, Any]]:
    """How well ``mlp``, ``svm`` and the ``rule`` give the scores of these slides; see ``measure``."""
    shares = shares_of(tiles)
    said = {"mlp": whspn.mlp.predict(shares), "svm": whspn.svm.predict(shares), "rule": scores_by_rule(tiles)}
    return {name: measure(predicted, scores) for name, predicted in said.items()}


def scores_by_rule(tiles: IntArray) -> IntArray:
    """The rule for resections, 0–3, int64 [n], of tiles by class, int64 [n, 6]."""
    return np.array([resection_score(TileCounts(tuple(row))) for row in tiles.tolist()], dtype=np.int64)


def measure(predicted: IntArray, scores: IntArray) -> dict[str, Any]:
    """Accuracy, quadratic kappa and confusion matrix (rows truth), for the four scores and for the three readings.

    The kappa is None where all slides have one score and are given it.
    """
    figures: dict[str, Any] = {"slides": len(scores)}
    for name, truth, guess in (
        ("four_classes", scores, predicted),
        ("three_classes", _THREE[scores], _THREE[predicted]),
    ):
        labels = _SCORES if name == "four_classes" else [0, 1, 2]
        figures[name] = {
            "accuracy": round(float((truth == guess).mean()), 4),
            "quadratic_kappa": _quadratic_kappa(truth, guess),
            "rows_truth_columns_predicted": confusion_matrix(truth, guess, labels=labels).tolist(),
        }
    return figures


def _quadratic_kappa(truth: IntArray, guess: IntArray) -> float | None:
    if len({*truth.tolist(), *guess.tolist()}) < 2:
        return None
    return round(float(cohen_kappa_score(truth, guess, labels=_SCORES, weights="quadratic")), 4)


def describe(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of ``measure_whspn``'s figures, a line each."""
    lines = ["      four classes        three classes", "      accuracy  kappa     accuracy  kappa"]
    for name, figures in metrics.items():
        four, three = figures["four_classes"], figures["three_classes"]
        lines.append(
            f"{name:<5} {four['accuracy']:.4f}    {four['quadratic_kappa']:.4f}"
            f"    {three['accuracy']:.4f}    {three['quadratic_kappa']:.4f}"
        )
    return "\n".join(lines)


def _fit_mlp(shares: FloatArray, scores: IntArray, penalty: float, seed: int) -> Mlp:
    made = MLPClassifier(WIDTHS, alpha=penalty, max_iter=_EPOCHS, n_iter_no_change=20, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the validation slides judge what came of it
        made.fit(shares, scores)
    return mlp_of(made)


def _fit_svm(shares: FloatArray, scores: IntArray) -> Svm:
    return svm_of(SVC(kernel="poly", degree=DEGREE, gamma=GAMMA, C=COST).fit(shares, scores))


def mlp_of(fitted: MLPClassifier) -> Mlp:
    """The numbers of scikit-learn's MLP."""
    return Mlp(tuple(fitted.coefs_), tuple(fitted.intercepts_))


def svm_of(fitted: SVC) -> Svm:
    """The numbers of scikit-learn's SVM."""
    return Svm(
        np.ascontiguousarray(fitted.support_vectors_),
        fitted.n_support_.astype(np.int64),
        np.ascontiguousarray(fitted.dual_coef_),
        fitted.intercept_,
    )

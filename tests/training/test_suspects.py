"""Suspect labels against a case worked out by hand, and against labels that were made wrong."""

from __future__ import annotations

import numpy as np
import pytest

from her2bridge.training.suspects import find_suspects


def test_by_hand() -> None:
    """Thresholds: class 0 (0.9 + 0.7 + 0.2) / 3 = 0.6, class 1 (0.8 + 0.6 + 0.1) / 3 = 0.5; no other has labels."""
    labels = np.array([0, 0, 0, 1, 1, 1])
    probabilities = np.zeros((6, 6), dtype=np.float32)
    probabilities[:, 0] = [0.9, 0.7, 0.2, 0.2, 0.4, 0.65]
    probabilities[:, 1] = [0.1, 0.3, 0.55, 0.8, 0.6, 0.1]
    probabilities[:, 3] = [0.0, 0.0, 0.25, 0.0, 0.0, 0.25]
    found = find_suspects(labels, probabilities)
    assert found.rows.tolist() == [5, 2]  # margins 0.1 - 0.65 and 0.2 - 0.55
    assert found.found.tolist() == [0, 1]
    assert found.probabilities == pytest.approx([0.65, 0.55])
    assert found.label_probabilities == pytest.approx([0.1, 0.2])


def test_a_class_of_which_the_network_is_never_sure_is_held_to_less() -> None:
    """A tile labelled 0 that is, for a 2+, likely a 2+, although 0 is likelier by the plain numbers."""
    labels = np.array([0, 0, 2, 2])
    probabilities = np.zeros((4, 6), dtype=np.float32)
    probabilities[:, 0] = [0.95, 0.5, 0.6, 0.6]
    probabilities[:, 2] = [0.05, 0.45, 0.4, 0.4]
    assert find_suspects(labels, probabilities).rows.tolist() == [1]


def test_labels_made_wrong_are_found() -> None:
    """10 % of 600 labels are changed; the network knows the truth, with noise."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 6, 600)
    wrong = rng.choice(600, 60, replace=False)
    labels = truth.copy()
    labels[wrong] = (truth[wrong] + rng.integers(1, 6, 60)) % 6
    logits = 4 * np.eye(6)[truth] + rng.normal(0, 1, (600, 6))
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    found = find_suspects(labels, probabilities)
    hits = np.isin(found.rows, wrong)
    assert hits.mean() > 0.9
    assert hits.sum() > 40
    assert (found.found[hits] == truth[found.rows[hits]]).mean() > 0.95
    assert (np.diff(found.label_probabilities - found.probabilities) >= 0).all()


def test_nothing_to_search() -> None:
    assert len(find_suspects(np.zeros(0, dtype=np.int64), np.zeros((0, 6), dtype=np.float32))) == 0

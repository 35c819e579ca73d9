"""The WHSPN's arithmetic is scikit-learn's; its arrays are checked before they are believed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from her2bridge.records import FloatArray, TileClass, TileCounts
from her2bridge.scoring.whspn import Mlp, Svm, Whspn, shares_of
from her2bridge.training.whspn import mlp_of, svm_of

SHARES = st.lists(st.floats(0, 1), min_size=4, max_size=4).filter(lambda values: sum(values) > 0.01)
MANY_SHARES = st.lists(SHARES.map(lambda values: np.array(values) / sum(values)), min_size=1, max_size=8).map(np.stack)


def made_slides(count: int = 300) -> tuple[FloatArray, np.ndarray[Any, Any]]:
    """Shares and scores that overlap, so that no duel is clear and votes are split."""
    rng = np.random.default_rng(5)
    scores = np.arange(count) % 4
    shares = rng.dirichlet(np.ones(4), count)
    shares[np.arange(count), scores] += rng.uniform(0, 1.5, count)
    return shares / shares.sum(axis=1, keepdims=True), scores


@pytest.fixture(scope="module")
def mlp() -> tuple[MLPClassifier, Mlp]:
    fitted = MLPClassifier((9, 7, 5), solver="lbfgs", max_iter=3000, random_state=4, alpha=1e-2).fit(*made_slides())
    return fitted, mlp_of(fitted)


@pytest.fixture(scope="module")
def svm() -> tuple[SVC, Svm]:
    fitted = SVC(kernel="poly", degree=3, gamma=10, C=2, decision_function_shape="ovo").fit(*made_slides())
    return fitted, svm_of(fitted)


@pytest.fixture(scope="module")
def whspn(mlp: tuple[MLPClassifier, Mlp], svm: tuple[SVC, Svm]) -> Whspn:
    return Whspn(mlp[1], svm[1], "made slides")


class TestMlp:
    def test_four_layers(self, mlp: tuple[MLPClassifier, Mlp]) -> None:
        assert mlp[1].widths == (9, 7, 5, 4)

    @given(shares=MANY_SHARES)
    def test_equals_scikit_learn(self, mlp: tuple[MLPClassifier, Mlp], shares: FloatArray) -> None:
        theirs, ours = mlp
        expected = theirs.predict_proba(shares)
        np.testing.assert_allclose(ours.probabilities(shares), expected, rtol=1e-9, atol=1e-12)
        two = np.sort(expected, axis=1)[:, -2:]
        assume((two[:, 1] - two[:, 0] > 1e-9).all())
        np.testing.assert_array_equal(ours.predict(shares), theirs.predict(shares))

    def test_every_score_is_given(self, mlp: tuple[MLPClassifier, Mlp]) -> None:
        """Else the comparison above would compare little."""
        assert set(mlp[1].predict(made_slides()[0]).tolist()) == {0, 1, 2, 3}

    def test_logits_below_zero_live(self) -> None:
        """No ReLU on the logits: the paper has one there, which would make all of these equal."""
        zeros = tuple(np.zeros(shape) for shape in ((4, 2), (2, 2), (2, 2), (2, 4)))
        dead = Mlp(zeros, (np.zeros(2), np.zeros(2), np.zeros(2), np.array([-4.0, -3.0, -2.0, -1.0])))
        assert dead.predict(np.full((1, 4), 0.25)).tolist() == [3]

    def test_large_logits_do_not_overflow(self) -> None:
        zeros = tuple(np.zeros(shape) for shape in ((4, 2), (2, 2), (2, 2), (2, 4)))
        sure = Mlp(zeros, (np.zeros(2), np.zeros(2), np.zeros(2), np.array([0.0, 5000.0, 0.0, 0.0])))
        assert sure.probabilities(np.full((1, 4), 0.25)).tolist() == [[0, 1, 0, 0]]


class TestSvm:
    @given(shares=MANY_SHARES)
    def test_equals_scikit_learn(self, svm: tuple[SVC, Svm], shares: FloatArray) -> None:
        theirs, ours = svm
        expected = theirs.decision_function(shares)
        np.testing.assert_allclose(ours.decisions(shares), expected, rtol=1e-7, atol=1e-7)
        assume((np.abs(expected) > 1e-6).all())
        np.testing.assert_array_equal(ours.predict(shares), theirs.predict(shares))

    def test_every_score_is_given(self, svm: tuple[SVC, Svm]) -> None:
        assert set(svm[1].predict(made_slides()[0]).tolist()) == {0, 1, 2, 3}

    @pytest.mark.parametrize(
        ("intercepts", "score"),
        [
            ((1, 1, 1, 1, 1, 1), 0),
            ((-1, -1, -1, -1, -1, -1), 3),
            ((0, 0, 0, 0, 0, 0), 3),  # a duel at 0 goes to the second
            ((1, -1, 1, 1, 1, -1), 0),  # 0 and 1 and 2 and 3 win 2, 2, 1, 1: the weaker of the two
            ((-1, -1, 1, 1, -1, -1), 1),  # 1 and 3 win two each
        ],
    )
    def test_votes_and_ties(self, intercepts: tuple[int, ...], score: int) -> None:
        nothing = Svm(np.empty((0, 4)), np.zeros(4, dtype=np.int64), np.empty((3, 0)), np.array(intercepts, float))
        assert nothing.predict(np.full((2, 4), 0.25)).tolist() == [score, score]

    def test_ties_are_broken_as_scikit_learn_breaks_them(self, svm: tuple[SVC, Svm]) -> None:
        """Where three or four scores win as many duels, on a grid of all shares."""
        grid = np.array(
            [(a, b, c, 12 - a - b - c) for a in range(13) for b in range(13 - a) for c in range(13 - a - b)]
        )
        shares = grid / 12
        duels = svm[1].decisions(shares)
        votes = np.zeros((len(shares), 4))
        for column, (i, j) in enumerate(((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))):
            votes[np.arange(len(shares)), np.where(duels[:, column] > 0, i, j)] += 1
        tied = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) > 1
        assert tied.any()
        np.testing.assert_array_equal(svm[1].predict(shares[tied]), svm[0].predict(shares[tied]))


class TestReading:
    def test_shares_leave_normal_and_noise_out(self) -> None:
        shares = shares_of(np.array([[1, 2, 3, 4, 90, 7], [0, 0, 0, 0, 5, 5]]))
        np.testing.assert_array_equal(shares[0], [0.1, 0.2, 0.3, 0.4])
        assert np.isnan(shares[1]).all()

    def test_mlp_has_a_margin_and_says_what_it_learned_from(self, whspn: Whspn) -> None:
        counts = TileCounts((10, 20, 30, 140, 50, 5))
        reading = whspn.read(counts, "mlp")
        probabilities = whspn.mlp.probabilities(np.array([[0.05, 0.1, 0.15, 0.7]]))[0]
        first, second = sorted(probabilities, reverse=True)[:2]
        assert reading.score == TileClass(int(probabilities.argmax())).label == "3+"
        assert reading.margin == pytest.approx(first - second)
        assert str(reading) == f"3+ (MLP, margin {first - second:.2f}; trained on made slides)"

    def test_svm_has_none(self, whspn: Whspn) -> None:
        reading = whspn.read(TileCounts((180, 10, 5, 5, 0, 0)), "svm")
        assert (reading.score, reading.kind, reading.margin) == ("0", "SVM", None)
        assert str(reading) == "0 (SVM; trained on made slides)"


class TestArrays:
    def test_there_and_back(self, whspn: Whspn) -> None:
        back = Whspn.from_arrays(whspn.arrays(), "made slides")
        shares = made_slides()[0]
        np.testing.assert_array_equal(back.mlp.probabilities(shares), whspn.mlp.probabilities(shares))
        np.testing.assert_array_equal(back.svm.decisions(shares), whspn.svm.decisions(shares))
        assert back.trained_on == "made slides"

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda a: a.pop("mlp.2.bias"), "mlp.2.bias is missing"),
            (lambda a: a.pop("svm.support"), "svm.support is missing"),
            (lambda a: a.update({"mlp.4.bias": np.zeros(4)}), "mlp.4.bias is unexpected"),
            (lambda a: a.update({"mlp.3.bias": np.zeros(3)}), r"mlp.3.bias is \[3\], not \[4\]"),
            (lambda a: a.update({"mlp.1.weight": np.zeros((7, 9))}), r"mlp.1.weight is \[7, 9\], not \[9, 7\]"),
            (lambda a: a.update({"mlp.0.weight": a["mlp.0.weight"].astype(np.float16)}), "is float16, not float64"),
            (lambda a: a.update({"svm.per_class": a["svm.per_class"].astype(float)}), "is float64, not int64"),
            (lambda a: a.update({"svm.support": a["svm.support"][:, :3]}), r"svm.support is \[\d+, 3\]"),
            (lambda a: a.update({"svm.support": np.float64(0)}), r"svm.support is \[\]"),
            (lambda a: a.update({"svm.dual": a["svm.dual"][:, 1:]}), "svm.dual is"),
            (lambda a: a.update({"svm.intercepts": np.zeros(5)}), "svm.intercepts is"),
            (lambda a: a.update({"svm.intercepts": np.array([0, 0, np.nan, 0, 0, 0])}), "svm.intercepts is not finite"),
            (lambda a: a.update({"svm.per_class": np.array([1, 0, 0, 0])}), "does not add up"),
            (
                lambda a: a.update({"svm.per_class": a["svm.per_class"] + np.array([-999, 999, 0, 0])}),
                "does not add up",
            ),
        ],
    )
    def test_what_is_wrong_is_named(self, whspn: Whspn, change: Callable[[dict[str, Any]], object], said: str) -> None:
        arrays: dict[str, Any] = whspn.arrays()
        change(arrays)
        with pytest.raises(ValueError, match=said):
            Whspn.from_arrays(arrays, "x")

    def test_nothing_at_all(self) -> None:
        with pytest.raises(ValueError, match=r"mlp\.0\.bias is missing.*svm\.support is missing"):
            Whspn.from_arrays({}, "x")


def test_its_use_loads_neither_torch_nor_sklearn() -> None:
    code = "import sys, her2bridge.scoring.whspn; assert not {'torch', 'sklearn', 'scipy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)

"""WHSPN, the second network: from the shares of the four tumour classes to the slide's score.

Han et al. 2022, section 3.2, with two departures that docs/scores.md states: the four fully connected layers of the MLP
have a ReLU between them and none on the logits, where it could die, and the input are shares of tile classes, which the
paper calls both proportions and probabilities.

Numbers only, as arrays: what fitted them (scikit-learn, in ``training``) is not needed to use them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from her2bridge.records import TUMOUR_CLASSES, FloatArray, IntArray, TileClass, TileCounts, WhspnReading

WHSPN_CHOICES = ("mlp", "svm", "none")
"""Which of a bundle's two is asked; ``none``: neither, the rule alone."""

ReadShares = Callable[[TileCounts], WhspnReading]
"""What scoring needs of a WHSPN."""

LAYERS = 4
GAMMA, DEGREE = 10.0, 3
"""Of the SVM's kernel: (γ · x·y)³."""

_SCORES = len(TUMOUR_CLASSES)
_PAIRS = tuple(combinations(range(_SCORES), 2))
"""The SVM's six duels, in the order of its intercepts."""


def shares_of(tiles: IntArray) -> FloatArray:
    """The input: shares of 0, 1+, 2+, 3+ among tumour tiles, float64 [n, 4], of tiles by class, int64 [n, 6].

    NaN for a slide without tumour tiles.
    """
    tumour = tiles[:, :_SCORES].astype(np.float64)
    whole = tumour.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(tumour, whole, out=np.full_like(tumour, np.nan), where=whole > 0))


@dataclass(frozen=True, eq=False)
class Mlp:
    """Four fully connected layers.

    Attributes:
        weights: float64 [in, out] of each layer; the first takes four shares, the last gives four logits.
        biases: float64 [out] of each layer.
    """

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Neurons of each layer, the four logits included."""
        return tuple(len(bias) for bias in self.biases)

    def probabilities(self, shares: FloatArray) -> FloatArray:
        """Probabilities of 0, 1+, 2+, 3+, float64 [n, 4], of shares [n, 4]."""
        values = shares
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            values = np.maximum(values @ weight + bias, 0.0)
        logits = values @ self.weights[-1] + self.biases[-1]
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))

    def predict(self, shares: FloatArray) -> IntArray:
        """Scores 0–3, int64 [n], of shares [n, 4]; the weaker of two that are equally probable."""
        return np.asarray(self.probabilities(shares).argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Svm:
    """A support vector machine, polynomial kernel, one against one; laid out as libsvm lays it out.

    Attributes:
        support: the m support vectors, float64 [m, 4], those of score 0 first.
        per_class: how many of them each score has, int64 [4].
        dual: float64 [3, m]: a vector's coefficient against each of the other three scores, in their order.
        intercepts: of the six duels 0–1, 0–2, 0–3, 1–2, 1–3, 2–3, float64 [6].
    """

    support: FloatArray
    per_class: IntArray
    dual: FloatArray
    intercepts: FloatArray

    def decisions(self, shares: FloatArray) -> FloatArray:
        """The six duels, float64 [n, 6], of shares [n, 4]; above 0 the first of the two wins."""
        kernel = (GAMMA * (shares @ self.support.T)) ** DEGREE
        ends = np.cumsum(self.per_class)
        of = [slice(end - count, end) for end, count in zip(ends, self.per_class, strict=True)]
        duels = [
            kernel[:, of[i]] @ self.dual[j - 1, of[i]] + kernel[:, of[j]] @ self.dual[i, of[j]] + intercept
            for (i, j), intercept in zip(_PAIRS, self.intercepts, strict=True)
        ]
        return np.stack(duels, axis=1)

    def predict(self, shares: FloatArray) -> IntArray:
        """Scores 0–3, int64 [n], of shares [n, 4]: who wins most duels, the weaker of two with as many."""
        votes = np.zeros((len(shares), _SCORES), dtype=np.int64)
        rows = np.arange(len(shares))
        for (i, j), duel in zip(_PAIRS, self.decisions(shares).T, strict=True):
            votes[rows, np.where(duel > 0, i, j)] += 1
        return np.asarray(votes.argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Whspn:
    """Both variants, as a bundle carries them.

    Attributes:
        mlp: the one that is asked by default.
        svm: the other.
        trained_on: what they learned from, in words: ``simulated cohorts``.
    """

    mlp: Mlp
    svm: Svm
    trained_on: str

    def read(self, counts: TileCounts, kind: str) -> WhspnReading:
        """What ``mlp`` or ``svm`` says of a slide that has tumour tiles."""
        shares = shares_of(np.array([counts.by_class]))
        if kind == "svm":
            return WhspnReading(_label(self.svm.predict(shares)), "SVM", None, self.trained_on)
        second, first = np.sort(self.mlp.probabilities(shares)[0])[-2:]
        return WhspnReading(_label(self.mlp.predict(shares)), "MLP", float(first - second), self.trained_on)

    def arrays(self) -> dict[str, FloatArray | IntArray]:
        """All numbers by name; ``from_arrays`` makes the same of them."""
        layers = enumerate(zip(self.mlp.weights, self.mlp.biases, strict=True))
        named: dict[str, FloatArray | IntArray] = {}
        for number, (weight, bias) in layers:
            named |= {f"mlp.{number}.weight": weight, f"mlp.{number}.bias": bias}
        svm = self.svm
        named |= {"svm.support": svm.support, "svm.per_class": svm.per_class}
        return named | {"svm.dual": svm.dual, "svm.intercepts": svm.intercepts}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]], trained_on: str) -> Whspn:
        """The WHSPN of these arrays.

        Raises:
            ValueError: names the arrays that are missing, unexpected, of another type or shape, or not finite.
        """
        faults = _faults(arrays)
        if faults:
            raise ValueError("; ".join(faults))
        layers = range(LAYERS)
        of: dict[str, FloatArray] = {n: a.astype(np.float64) for n, a in arrays.items() if n != "svm.per_class"}
        mlp = Mlp(tuple(of[f"mlp.{n}.weight"] for n in layers), tuple(of[f"mlp.{n}.bias"] for n in layers))
        per_class = arrays["svm.per_class"].astype(np.int64)
        return cls(mlp, Svm(of["svm.support"], per_class, of["svm.dual"], of["svm.intercepts"]), trained_on)


def _label(scores: IntArray) -> str:
    return TileClass(int(scores[0])).label


def _faults(arrays: Mapping[str, npt.NDArray[np.generic]]) -> list[str]:
    """Each array's fault in words; the widths of the hidden layers and the count of support vectors are free."""
    biases = [arrays.get(f"mlp.{number}.bias", np.empty(0)) for number in range(LAYERS - 1)]
    widths = [_SCORES, *(bias.size for bias in biases), _SCORES]
    vectors = arrays.get("svm.support", np.empty((0, _SCORES))).shape[:1]
    expected: dict[str, tuple[int, ...]] = {
        "svm.support": (*vectors, _SCORES),
        "svm.per_class": (_SCORES,),
        "svm.dual": (_SCORES - 1, *vectors),
        "svm.intercepts": (len(_PAIRS),),
    }
    for number in range(LAYERS):
        expected[f"mlp.{number}.weight"] = (widths[number], widths[number + 1])
        expected[f"mlp.{number}.bias"] = (widths[number + 1],)
    faults = [f"{name} is missing" for name in sorted(expected.keys() - arrays.keys())]
    faults += [f"{name} is unexpected" for name in sorted(arrays.keys() - expected.keys())]
    for name in sorted(expected.keys() & arrays.keys()):
        array, kind = arrays[name], np.dtype(np.int64 if name == "svm.per_class" else np.float64)
        if array.shape != expected[name]:
            faults.append(f"{name} is {list(array.shape)}, not {list(expected[name])}")
        elif array.dtype != kind:
            faults.append(f"{name} is {array.dtype}, not {kind}")
        elif not np.isfinite(array.astype(kind)).all():
            faults.append(f"{name} is not finite")
    per_class = arrays.get("svm.per_class")
    if not faults and per_class is not None and (per_class.min() < 0 or per_class.sum() != vectors[0]):
        faults.append("svm.per_class does not add up to the support vectors")
    return faults

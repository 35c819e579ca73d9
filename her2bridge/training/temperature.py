"""The temperature that makes probabilities honest: one number, fitted on tiles that were not trained on.

Guo et al. 2017, "On calibration of modern neural networks": the logits are divided by it before the softmax, which
changes no class.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from her2bridge.records import Float32Array, IntArray

LEAST, MOST = 0.05, 20.0


def fit_temperature(logits: Float32Array, labels: IntArray) -> float:
    """The temperature, ``LEAST`` to ``MOST``, at which the labels are likeliest.

    Where no tile is classed wrongly, the likeliest would be the smallest there is, as if the network never erred; as in
    Platt's scaling (Platt 1999), the labels are then held to be wrong with the chance of 1 in n + 2. Without tiles it
    is 1.

    Args:
        logits: float32 [n, 6], finite.
        labels: ``TileClass`` values, int64 [n].
    """
    if not len(labels):
        return 1.0
    exact = logits.astype(np.float64)
    wanted = exact[np.arange(len(labels)), labels]
    if bool((logits.argmax(axis=1) == labels).all()):
        doubt = 1 / (len(labels) + 2)
        others = (exact.sum(axis=1) - wanted) / (exact.shape[1] - 1)
        wanted = (1 - doubt) * wanted + doubt * others

    def surprise(exponent: float) -> float:
        """The mean negative log-likelihood; it has one minimum over the logarithm of the temperature."""
        temperature = math.exp(exponent)
        return float((logsumexp(exact / temperature, axis=1) - wanted / temperature).mean())

    found = minimize_scalar(
        surprise, bounds=(math.log(LEAST), math.log(MOST)), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.clip(math.exp(found.x), LEAST, MOST))


def doubt_of(temperature: float) -> str | None:
    """What is to be said of a temperature that ended at a bound; None of any other."""
    if 1.01 * LEAST < temperature < MOST / 1.01:
        return None
    return f"the temperature ended at its bound, {temperature:.3g}: the probabilities of this model mean little"

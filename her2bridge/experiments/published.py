"""Tables 4 to 7 of Han et al. 2022 (Front. Neurosci. 16:877229, doi 10.3389/fnins.2022.877229) as data.

All shares are in percent, parameters in millions, "FLOPs" (multiply–adds at 256 × 256) in thousands of millions, times
in milliseconds a tile. Their data are 20 private slides; ours are others. The paper says that time is "for the network
to infer a patch", and that RTX 2080 Ti were trained on: that the times are of batch 1 and of this GPU is inferred.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SOURCE = "Han et al. 2022"

DATA_DIFFER = (
    f"The lines of {SOURCE} (doi 10.3389/fnins.2022.877229) are of 20 private slides and, it seems, of an RTX 2080 Ti "
    "at batch 1 (it names this GPU for training, and a time for one patch). Data, labels and machine here are others: "
    "neither the figures nor the order of the networks can be compared."
)


@dataclass(frozen=True)
class Spread:
    """A figure over repeats: mean and sample standard deviation; none of a single repeat."""

    mean: float
    sd: float | None = None


@dataclass(frozen=True)
class TileLine:
    """One line of Tables 4 and 7: macro figures over the six classes, and what the network costs."""

    accuracy: Spread
    precision: Spread
    recall: Spread
    specificity: Spread
    f1: Spread
    parameters_m: float
    flops_g: float
    ms: float


def _line(figures: str, parameters_m: float, flops_g: float, ms: float) -> TileLine:
    """``figures``: mean and standard deviation of the five, in their order."""
    numbers = [float(word) for word in figures.split()]
    accuracy, precision, recall, specificity, f1 = map(Spread, numbers[::2], numbers[1::2])
    return TileLine(accuracy, precision, recall, specificity, f1, parameters_m, flops_g, ms)


TABLE_4: Mapping[str, TileLine] = {
    "VGG16": _line("92.89 .35  90.44 .48  90.26 .51  98.25 .09  90.35 .48", 138.358, 20.21, 7.853),
    "Inception-v3": _line("92.33 .54  89.95 .63  89.50 .87  98.09 .16  89.73 .71", 23.835, 3.86, 13.64),
    "ResNet-50": _line("92.59 .28  90.66 .25  89.37 .61  98.08 .07  90.01 .39", 25.557, 5.38, 7.432),
    "DenseNet-169": _line("92.88 .16  90.58 .34  89.96 .34  98.25 .05  90.27 .18", 14.149, 4.46, 22.63),
    "ShuffleNetV2-x1.5": _line("92.39 .14  90.17 .19  89.33 .41  98.07 .07  89.75 .22", 3.504, 0.396, 6.653),
    "MobileNetV3-large": _line("92.10 .32  89.79 .58  89.11 1.02  98.05 .16  89.44 .49", 5.483, 0.296, 6.557),
    "EfficientNet-B3": _line("92.87 .28  90.77 .22  89.86 .53  98.20 .10  90.31 .37", 12.233, 1.29, 13.87),
    "RepVGG-SE": _line("93.03 .35  90.91 .58  90.30 .51  98.26 .10  90.60 .47", 7.316, 1.78, 5.283),
    "RepVGG-GCT": _line("93.16 .10  90.92 .19  90.48 .34  98.31 .07  90.70 .19", 7.049, 1.78, 5.185),
}
"""By our names of the networks. RepVGG-GCT has 7.0496 million parameters: the paper cuts where it rounds elsewhere."""

PER_CLASS = ("precision", "recall", "specificity", "f1")

TABLE_5: Mapping[tuple[str, str], Mapping[str, tuple[float, ...]]] = {
    ("RepVGG-GCT", "four"): {
        "precision": (85.2, 82.0, 90.2, 99.5),
        "recall": (84.6, 71.9, 90.8, 99.5),
        "specificity": (98.0, 98.4, 99.1, 100.0),
        "f1": (84.9, 76.6, 90.5, 99.5),
    },
    ("RepVGG-GCT", "three"): {
        "precision": (93.1, 90.3, 99.6),
        "recall": (91.5, 94.4, 99.2),
        "specificity": (98.1, 99.0, 100.0),
        "f1": (92.3, 92.3, 99.4),
    },
    ("RepVGG-SE", "four"): {
        "precision": (83.7, 82.6, 90.4, 98.9),
        "recall": (88.8, 77.7, 90.4, 99.5),
        "specificity": (97.7, 98.4, 99.1, 99.9),
        "f1": (86.2, 80.1, 90.4, 99.2),
    },
    ("RepVGG-SE", "three"): {
        "precision": (92.7, 92.1, 99.2),
        "recall": (90.3, 92.5, 99.4),
        "specificity": (98.1, 99.3, 99.9),
        "f1": (91.5, 92.3, 99.3),
    },
}
"""By network and reading, in the order 0, 1+, 2+, 3+ and negative, equivocal, positive. The specificities of 100 of 3+
and positive are printed as 1 in the paper."""

TABLE_6: Mapping[tuple[str, str], tuple[float, float]] = {
    ("RepVGG-GCT", "MLP"): (86.0, 94.0),
    ("RepVGG-GCT", "SVM"): (84.0, 92.0),
    ("RepVGG-SE", "MLP"): (83.0, 90.0),
    ("RepVGG-SE", "SVM"): (83.0, 91.0),
}
"""By tile network and second network: accuracy on 100 slides in four and in three classes. The paper has no kappa."""

_ONE_CLASS = "56.11 0  9.35 0  16.67 0  83.33 0  11.98 0"
_ECM = "92.61 .17  90.38 .50  89.67 .25  98.16 .06  90.02 .24"
_ECM_GCT = "93.16 .10  90.92 .19  90.48 .34  98.31 .07  90.70 .19"

TABLE_7: Mapping[tuple[str, bool], TileLine] = {
    ("plain", False): _line(_ONE_CLASS, 7.031, 1.78, 1.479),
    ("plain + GCT", False): _line(_ONE_CLASS, 7.045, 1.78, 5.232),
    ("ECM", False): _line(_ECM, 7.836, 1.99, 6.449),
    ("ECM", True): _line(_ECM, 7.036, 1.78, 1.691),
    ("ECM + GCT", False): _line(_ECM_GCT, 7.849, 1.99, 10.243),
    ("ECM + GCT", True): _line(_ECM_GCT, 7.049, 1.78, 5.185),
}
"""By our names of the blocks, and whether fused. Its plain chain has no batch norm and finds one class only."""

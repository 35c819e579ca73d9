"""How a network is trained: the paper's recipe and a modern one, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from her2bridge.errors import UsageError

BALANCES = ("none", "sampler", "loss")
_SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how weights come about, besides the tiles, the start and the seed.

    Attributes:
        name: of the recipe it is, or comes from.
        epochs: how often the tiles are seen.
        batch_size: tiles a step, of all processes together.
        learning_rate: of SGD, after the warm-up.
        momentum: of SGD.
        nesterov: whether it looks ahead.
        weight_decay: pull of the weights towards 0.
        decay_all: whether it pulls biases, batch norm and GCT as well.
        warmup_epochs: over so many the rate rises from 0.
        schedule: ``constant``, or ``cosine`` down to 0.
        ema: the network that is kept is the exponential mean over the steps, with this decay or, in short runs, a lower
            one; None keeps the last one.
        label_smoothing: share of the target that is spread over all classes.
        augment: whether tiles are turned, scaled and restained.
        balance: ``none``; ``sampler``: every class is drawn equally often; ``loss``: rare classes weigh more.
        mixed_precision: bf16 where the device is good at it.
    """

    name: str
    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    nesterov: bool
    weight_decay: float
    decay_all: bool
    warmup_epochs: float
    schedule: str
    ema: float | None
    label_smoothing: float
    augment: bool
    balance: str
    mixed_precision: bool

    def __post_init__(self) -> None:
        faults = [
            (self.epochs < 1, "epochs", self.epochs, "a whole number of at least 1"),
            (self.batch_size < 2, "batch size", self.batch_size, "at least 2 tiles: batch norm needs company"),
            (not 0 < self.learning_rate < 100, "learning rate", self.learning_rate, "a number above 0"),
            (self.balance not in BALANCES, "balance", self.balance, ", ".join(BALANCES)),
            (self.schedule not in _SCHEDULES, "schedule", self.schedule, ", ".join(_SCHEDULES)),
        ]
        for is_wrong, what, value, wanted in faults:
            if is_wrong:
                raise UsageError(f"The {what} cannot be {value!r}.", where="the recipe", next_step=f"Give {wanted}.")

    def rate_at(self, epochs_done: float) -> float:
        """The learning rate after so many epochs, whole and parts."""
        if epochs_done < self.warmup_epochs:
            return self.learning_rate * epochs_done / self.warmup_epochs
        if self.schedule == "constant":
            return self.learning_rate
        share = (epochs_done - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-9)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


PAPER = Recipe(
    name="paper",
    epochs=200,
    batch_size=256,
    learning_rate=0.1,
    momentum=0.9,
    nesterov=False,
    weight_decay=1e-3,
    decay_all=True,
    warmup_epochs=0,
    schedule="cosine",
    ema=None,
    label_smoothing=0.0,
    augment=False,
    balance="none",
    mixed_precision=False,
)
"""Han et al. 2022, section 4.2: SGD, initial rate 0.1, decay 1e-3, batches of 256, 200 epochs, cross-entropy. Momentum
and how the rate falls are not stated there; these are RepVGG's (Ding et al. 2021)."""

MODERN = Recipe(
    name="modern",
    epochs=60,
    batch_size=64,
    learning_rate=0.05,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    decay_all=False,
    warmup_epochs=2,
    schedule="cosine",
    ema=0.99,
    label_smoothing=0.05,
    augment=True,
    balance="sampler",
    mixed_precision=True,
)
"""What the model that ships was trained with, as far as epochs can say it."""

RECIPES: Mapping[str, Recipe] = {one.name: one for one in (PAPER, MODERN)}

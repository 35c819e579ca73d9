"""Runs an experiment from its name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from her2bridge.errors import UsageError
from her2bridge.events import Emit, ExperimentFinished
from her2bridge.experiments import table4, table5, table6, table7
from her2bridge.experiments.monte_carlo import MonteCarlo
from her2bridge.experiments.plan import Candidate, ExperimentSettings, chosen
from her2bridge.experiments.write import ExperimentTable, write_table
from her2bridge.training.dataset import Dataset


class Experiment(NamedTuple):
    """What runs one, and the networks that it tries."""

    run: Callable[[MonteCarlo, Sequence[Candidate], Emit], ExperimentTable]
    candidates: tuple[Candidate, ...]


EXPERIMENTS: Mapping[str, Experiment] = {
    "table4": Experiment(table4.run, table4.CANDIDATES),
    "table5": Experiment(table5.run, table5.CANDIDATES),
    "table6": Experiment(table6.run, table6.CANDIDATES),
    "table7": Experiment(table7.run, table7.CANDIDATES),
}


def run_experiment(
    name: str,
    dataset: Dataset,
    settings: ExperimentSettings,
    emit: Emit,
    candidates: Sequence[Candidate] | None = None,
) -> ExperimentTable:
    """Run it and write its table into ``settings.out``; ``ExperimentFinished`` is the last event.

    Args:
        candidates: networks to be tried in place of the experiment's own.

    Raises:
        NotEnoughLabels: too few labelled tiles.
        UsageError: no such experiment, settings that cannot be, or torchvision is missing.
        WriteFailed: the folder cannot be written.
    """
    if name not in EXPERIMENTS:
        raise UsageError(
            f"There is no experiment called {name!r}.",
            where="her2bridge experiment",
            next_step=f"Give one of {', '.join(EXPERIMENTS)}.",
        )
    began = time.monotonic()
    experiment = EXPERIMENTS[name]
    networks = chosen(experiment.candidates if candidates is None else candidates, settings.networks)
    table = experiment.run(MonteCarlo(dataset, settings, emit), networks, emit)
    write_table(table, settings.out)
    emit(ExperimentFinished(name, str(settings.out), settings.repeats, time.monotonic() - began))
    return table

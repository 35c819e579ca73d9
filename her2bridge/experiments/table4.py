"""Table 4: the paper's two networks and the seven that it compares with, by accuracy, size and time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from her2bridge.events import Emit
from her2bridge.experiments.complexity import milliseconds_a_tile, size_of
from her2bridge.experiments.machine import machine, machine_told
from her2bridge.experiments.monte_carlo import MonteCarlo, Part, figures_of, finite, spread
from her2bridge.experiments.networks import OURS, SEVEN
from her2bridge.experiments.peers import PEERS, PUBLISHED_CLASSES, build_peer
from her2bridge.experiments.plan import Candidate
from her2bridge.experiments.published import TABLE_4, TileLine
from her2bridge.experiments.write import OURS as HERE
from her2bridge.experiments.write import THEIRS, Cell, Column, ExperimentTable, Row
from her2bridge.model.repvgg import RepVGG, fuse

TASK = "Table 4"
CANDIDATES = (*SEVEN, *OURS)
PAPER_PX = 256
"""Sizes are stated for tiles of this side, whatever the networks were trained on."""

FIGURES = ("accuracy", "precision", "recall", "specificity", "f1")
FIGURE_COLUMNS = (
    Column("accuracy", "Accuracy %"),
    Column("precision", "Precision %"),
    Column("recall", "Recall %"),
    Column("specificity", "Specificity %"),
    Column("f1", "F1 %"),
    Column("macro_f1", "Macro F1 %"),
)
FIGURE_NOTE = (
    "Precision, recall and specificity are means over the six classes; F1 is, as in the paper, that of mean precision "
    "and mean recall; macro F1 the mean of the classes' F1."
)
COST_COLUMNS = (
    Column("parameters_m", "Parameters, M", 3),
    Column("flops_g", "Multiply–adds, G", 3),
    Column("ms", "ms a tile", 3),
)
COLUMNS = (
    Column("network", "Network"),
    Column("from", "From"),
    *FIGURE_COLUMNS,
    *COST_COLUMNS,
    Column("parameters_six_m", "Parameters with six outputs, M", 3),
)


def run(monte_carlo: MonteCarlo, candidates: Sequence[Candidate], emit: Emit) -> ExperimentTable:
    """Train and measure them all, then time them in turns; weights at random, which changes no time."""
    parts = monte_carlo.parts(candidates, TASK)
    device = monte_carlo.device
    times = milliseconds_a_tile({one.name: deployed(one) for one in candidates}, PAPER_PX, device, emit)
    rows: list[Row] = []
    for one in candidates:
        rows.append({"network": one.name, "from": HERE, **macro(parts[one.name]), **costs(one), "ms": times[one.name]})
        if one.name in TABLE_4:
            rows.append({"network": one.name, "from": THEIRS, **published(TABLE_4[one.name]), "parameters_six_m": None})
    notes = (
        *monte_carlo.notes(parts),
        FIGURE_NOTE,
        "RepVGG is measured fused.",
        f"Size of RepVGG: fused, six outputs; of the others, as the paper counts: {PUBLISHED_CLASSES} outputs. "
        f"Multiply–adds of convolutions and linear layers for one tile of {PAPER_PX} px.",
        time_note(device),
    )
    title = "Table 4: classification of tiles, and what it costs"
    return ExperimentTable(
        "table4", title, COLUMNS, tuple(rows), notes, monte_carlo.told() | {"timed_on": machine(device)}
    )


def macro(parts: Sequence[Part], *, fused: bool = True) -> dict[str, Cell]:
    """The figures over the repeats, in percent."""
    found = [figures_of(part, fused=fused) for part in finite(parts)]
    return {
        "accuracy": spread([100 * one.accuracy for one in found]),
        "precision": spread([100 * one.macro_precision for one in found]),
        "recall": spread([100 * one.macro_recall for one in found]),
        "specificity": spread([100 * one.macro_specificity for one in found]),
        "f1": spread([100 * one.f1_of_macro for one in found]),
        "macro_f1": spread([100 * one.macro_f1 for one in found]),
    }


def published(line: TileLine) -> dict[str, Cell]:
    """A line of the paper's."""
    cells: dict[str, Cell] = {name: getattr(line, name) for name in (*FIGURES, "parameters_m", "flops_g", "ms")}
    return cells | {"macro_f1": None}


def costs(one: Candidate) -> dict[str, Cell]:
    """Parameters in millions and multiply–adds in thousands of millions, as the paper counts them."""
    six = size_of(partial(deployed, one), PAPER_PX)
    size = size_of(partial(build_peer, one.name, PUBLISHED_CLASSES), PAPER_PX) if one.name in PEERS else six
    return {
        "parameters_m": size.parameters / 1e6,
        "flops_g": size.multiply_adds / 1e9,
        "parameters_six_m": six.parameters / 1e6,
    }


def deployed(one: Candidate) -> nn.Module:
    """The network as it would be used: RepVGG fused."""
    network = one.build()
    return fuse(network) if isinstance(network, RepVGG) else network


def time_note(device: torch.device) -> str:
    """What the times are, and what they were taken on."""
    return (
        f"Times: median of one tile of {PAPER_PX} px at batch 1 after a warm-up, fp32 (TF32 off), in eager torch, "
        f"not in the runtimes that score slides. On {machine_told(device)}; all networks in this one run and process, "
        "taking turns."
    )

"""Table 7: what blocks, attention and fusing do; with the plain chain that has batch norm, which the paper lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import nn

from her2bridge.events import Emit
from her2bridge.experiments.complexity import milliseconds_a_tile, size_of
from her2bridge.experiments.machine import machine
from her2bridge.experiments.monte_carlo import MonteCarlo, Part, finite
from her2bridge.experiments.networks import BLOCKS
from her2bridge.experiments.plan import Candidate
from her2bridge.experiments.published import TABLE_7
from her2bridge.experiments.table4 import (
    COST_COLUMNS,
    FIGURE_COLUMNS,
    FIGURE_NOTE,
    PAPER_PX,
    deployed,
    macro,
    published,
    time_note,
)
from her2bridge.experiments.write import OURS as HERE
from her2bridge.experiments.write import THEIRS, Cell, Column, ExperimentTable, Row
from her2bridge.model.repvgg import Block

TASK = "Table 7"
CANDIDATES = BLOCKS

COLUMNS = (
    Column("block", "Block"),
    Column("fused", "Fused"),
    Column("from", "From"),
    *FIGURE_COLUMNS,
    *COST_COLUMNS,
    Column("changed", "Tiles that fusing changed", 0),
    Column("difference", "Largest difference of a logit", 6),
)


def run(monte_carlo: MonteCarlo, candidates: Sequence[Candidate], emit: Emit) -> ExperimentTable:
    """Train and measure them all, then time each form."""
    parts = monte_carlo.parts(candidates, TASK)
    device = monte_carlo.device
    forms = [(one, fused) for one in candidates for fused in _forms(one)]
    built = {f"{one.name} {fused}": _build(one, fused) for one, fused in forms}
    times = milliseconds_a_tile(built, PAPER_PX, device, emit)
    rows: list[Row] = []
    for one, fused in forms:
        rows.extend(_lines(one, fused, parts[one.name], times[f"{one.name} {fused}"]))
    notes = (
        *monte_carlo.notes(parts),
        FIGURE_NOTE,
        "plain: one 3×3 convolution a block, without batch norm, as in the paper, where it finds one class only. plain "
        "with BN: the same with batch norm, which the paper leaves out: what lies between it and ECM is what the "
        "branches do; between plain and it, what batch norm does. It is timed with its batch "
        "norm, which could be folded into the convolution: folded, it is as large as plain.",
        "Fusing is exact but for rounding: how many held-out tiles, over all repeats, got another class by it, and the "
        "largest difference of a logit, are in the last two columns.",
        f"Parameters with six outputs; multiply–adds of convolutions and linear layers for one tile of {PAPER_PX} px "
        "(the paper's 1.99 G counts batch norm too).",
        time_note(device),
    )
    title = "Table 7: what blocks, attention and fusing do"
    return ExperimentTable(
        "table7", title, COLUMNS, tuple(rows), notes, monte_carlo.told() | {"timed_on": machine(device)}
    )


def _forms(one: Candidate) -> tuple[bool, ...]:
    """Not fused, and fused where there are branches to fuse."""
    with torch.device("meta"):
        has_branches = any(isinstance(module, Block) for module in one.build().modules())
    return (False, True) if has_branches else (False,)


def _build(one: Candidate, fused: bool) -> nn.Module:
    return deployed(one) if fused else one.build()


def _lines(one: Candidate, fused: bool, parts: Sequence[Part], ms: float) -> Iterator[Row]:
    """Ours, and the paper's if it has one."""

    size = size_of(partial(_build, one, fused), PAPER_PX)
    changed: Cell = None
    difference: Cell = None
    if fused:
        pairs = [(part, part.fused) for part in finite(parts) if part.fused is not None]
        changed = sum(int((part.predicted != done.predicted).sum()) for part, done in pairs)
        difference = max((done.largest_difference for _, done in pairs), default=None)
    name = {"block": one.name, "fused": "yes" if fused else "no"}
    yield {
        **name,
        "from": HERE,
        **macro(parts, fused=fused),
        "parameters_m": size.parameters / 1e6,
        "flops_g": size.multiply_adds / 1e9,
        "ms": ms,
        "changed": changed,
        "difference": difference,
    }
    theirs = TABLE_7.get((one.name, fused))
    if theirs is not None:
        yield {**name, "from": THEIRS, **published(theirs), "changed": None, "difference": None}

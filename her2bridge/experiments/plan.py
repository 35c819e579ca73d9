"""How an experiment is run: its settings, and the networks that it tries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from her2bridge.errors import UsageError
from her2bridge.training.recipes import RECIPES, Recipe


@dataclass(frozen=True)
class ExperimentSettings:
    """How an experiment is run.

    Attributes:
        out: the folder of its tables and parts.
        repeats: divisions of the tiles, each trained and measured.
        recipe: name in ``training.recipes.RECIPES``.
        epochs, batch_size: in place of the recipe's, where given.
        tile_px: tiles are reduced to so many pixels a side; None leaves them as they are.
        max_tiles: so many tiles, drawn in proportion to classes and patients; None takes all.
        networks: names of those to be trained; all where empty.
        split: ``patient`` or ``paper``; None: by patient where there are three or more.
        device, precision: of the training, as in ``FitSettings``.
        seed: of divisions, weights and training.
        about: what the tiles show and who labelled them, one sentence; None where nobody says.
    """

    out: Path
    repeats: int = 5
    recipe: str = "modern"
    epochs: int | None = None
    batch_size: int | None = None
    tile_px: int | None = None
    max_tiles: int | None = None
    networks: tuple[str, ...] = ()
    split: str | None = None
    device: str = "auto"
    precision: str = "auto"
    seed: int = 2022
    about: str | None = None


@dataclass(frozen=True)
class Candidate:
    """A network to be tried.

    Attributes:
        name: what the table calls it.
        build: makes it anew, weights at random, six outputs.
        smallest_px: side of the smallest tile that it takes.
        other_name: what another table calls the same network; their repeats are shared.
    """

    name: str
    build: Callable[[], nn.Module]
    smallest_px: int = 32
    other_name: str | None = None

    @property
    def kept_as(self) -> str:
        """The name below which its repeats are kept."""
        return self.other_name or self.name


def chosen(candidates: Sequence[Candidate], names: Sequence[str]) -> tuple[Candidate, ...]:
    """Those of these names, in any case; all where none is given.

    Raises:
        UsageError: a name that is none of theirs.
    """
    known = {one.name.lower(): one for one in candidates}
    for name in names:
        if name.lower() not in known:
            raise UsageError(
                f"There is no network called {name!r} in this experiment.",
                where="--networks",
                next_step=f"Give one of {', '.join(one.name for one in candidates)}.",
            )
    wanted = {name.lower() for name in names}
    return tuple(one for key, one in known.items() if key in wanted or not wanted)


def recipe_of(settings: ExperimentSettings) -> Recipe:
    """The recipe with the settings' own epochs and batch size.

    Raises:
        UsageError: no such recipe.
    """
    if settings.recipe not in RECIPES:
        known = ", ".join(sorted(RECIPES))
        raise UsageError(
            f"There is no recipe called {settings.recipe!r}.", where="--recipe", next_step=f"Give one of {known}."
        )
    recipe = RECIPES[settings.recipe]
    epochs = recipe.epochs if settings.epochs is None else settings.epochs
    return dataclasses.replace(
        recipe,
        epochs=epochs,
        warmup_epochs=min(recipe.warmup_epochs, epochs // 5),  # a short run is not all warm-up
        batch_size=recipe.batch_size if settings.batch_size is None else settings.batch_size,
    )

"""The numbers that scoring turns on, each with its default and its reason."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from her2bridge.errors import UsageError


@dataclass(frozen=True)
class ScoreSettings:
    """Thresholds of the score and of the review reasons. Shares are 0–1.

    Attributes:
        min_tumour_tiles: fewer tumour tiles than this are not assessable.
        min_tumour_mm2: less tumour than this is not assessable.
        doubt_low: a deciding share from here on, and below ``doubt_high``, is for review.
        doubt_high: see ``doubt_low``.
        max_noise: a larger share of noise among all tiles is for review.
        max_normal: a larger share of normal tissue among all tiles is for review.
        biopsy_certainty: probability at which a single tile is a focus in a biopsy.
        biopsy_focus_um2: the least area of such a focus; stands in for "a cluster of at least 5 cells".
        min_whspn_margin: a smaller margin of the WHSPN's MLP is for review.
    """

    min_tumour_tiles: int = 50
    min_tumour_mm2: float = 0.2
    doubt_low: float = 0.05
    doubt_high: float = 0.15
    max_noise: float = 0.20
    max_normal: float = 0.60
    biopsy_certainty: float = 0.9
    biopsy_focus_um2: float = 1500.0
    min_whspn_margin: float = 0.2

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, where: str) -> ScoreSettings:
        """Settings from a file's table.

        Raises:
            UsageError: a name we do not know, a value that is not a finite number of at least 0 (shares: at most 1),
                or a ``doubt_low`` above ``doubt_high``.
        """
        defaults = {f.name: f.default for f in dataclasses.fields(cls)}
        for name, value in values.items():
            if name not in defaults:
                raise UsageError(
                    f"There is no score setting called {name!r}.",
                    where=where,
                    next_step=f"Use one of: {', '.join(defaults)}.",
                )
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            is_share = name not in {"min_tumour_tiles", "min_tumour_mm2", "biopsy_focus_um2"}
            if not is_number or not 0 <= value <= (1 if is_share else sys.float_info.max):
                raise UsageError(
                    f"The score setting {name} cannot be {value!r}.",
                    where=where,
                    next_step=f"Give {'a share from 0 to 1' if is_share else 'a number of at least 0'}"
                    f"; the default is {defaults[name]}.",
                )
        settings = cls(**values)
        if settings.doubt_low > settings.doubt_high:
            raise UsageError(
                f"doubt_low, {settings.doubt_low:g}, lies above doubt_high, {settings.doubt_high:g}.",
                where=where,
                next_step="Give doubt_low the smaller of the two.",
            )
        return settings

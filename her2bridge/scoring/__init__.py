"""Predictions to a slide's score. Pure: no files, no clock, no QuPath.

The highest grade decides, so it comes first: shares and tile H-score live on ``records.TileCounts``, the guideline's
rule in ``rule``, the second network in ``whspn``, the verdict and its review reasons in ``score``, every threshold in
``settings``.
"""

from __future__ import annotations

from her2bridge.scoring.score import Circumstances, score_slide, status_of
from her2bridge.scoring.settings import ScoreSettings

__all__ = ["Circumstances", "ScoreSettings", "score_slide", "status_of"]

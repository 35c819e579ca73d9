"""Which annotations are suspect labels; what they say is asked where they are written (test_suspect_writing)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from her2bridge.qupath.classes import is_exclusion, is_scored_region
from her2bridge.qupath.seam import ImageUpdate, PathClassRef
from her2bridge.qupath.suspect_labels import SUSPECT_CLASS, is_suspect, suspect_annotation
from her2bridge.records import TileClass

ONE = suspect_annotation(np.array([128.0, 64.5]), 64.25, TileClass.ZERO, TileClass.NOISE, 0.5)


def test_over_the_tile_alone() -> None:
    assert ONE.geometry is not None
    assert ONE.geometry.bounds == (128, 64.5, 192.25, 128.75)
    assert ONE.name == "labelled 0, the model says noise (0.50)"
    other = suspect_annotation(np.array([128.0, 64.5]), 64.25, TileClass.ZERO, TileClass.NOISE, 0.5)
    assert other.id != ONE.id
    ImageUpdate([], [], {}, frozenset(), {}, [ONE, other])  # refuses what is not ours


def test_no_run_scores_it_or_cuts_it_out() -> None:
    assert not is_scored_region(SUSPECT_CLASS, ())
    assert not is_exclusion(SUSPECT_CLASS, ())


def test_what_a_person_classed_anew_is_theirs() -> None:
    assert is_suspect(ONE)
    assert is_suspect(replace(ONE, path_class=PathClassRef(SUSPECT_CLASS.names, (1, 2, 3)), locked=False))
    others = (
        replace(ONE, path_class=PathClassRef(("3+",))),
        replace(ONE, path_class=None),
        replace(ONE, metadata={}),
        replace(ONE, kind="tile"),
    )
    assert not any(map(is_suspect, others))

"""Random streams of an experiment, kept apart: what draws one thing never repeats the draws of another."""

from __future__ import annotations

import enum

import numpy as np


class Stream(enum.IntEnum):
    """What is drawn. Numpy takes a missing number for 0: without these, ``[1, 2]`` and ``[1, 2, 0]`` are one stream."""

    DIVISION = 0
    ROWS = 1
    HALVES = 2
    SLIDES = 3
    TILES = 4


def rng_of(stream: Stream, seed: int, number: int, *more: int) -> np.random.Generator:
    """The generator of this stream's ``number``; equal arguments, equal draws."""
    return np.random.default_rng([seed, number, int(stream), *more])

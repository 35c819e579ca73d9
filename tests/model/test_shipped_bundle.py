"""The bundle that ships does on fresh synthetic tiles what its card says."""

from __future__ import annotations

import numpy as np
import torch

from her2bridge.model.bundle import load_bundle
from her2bridge.model.repvgg import fuse
from her2bridge.synth.tiles import render_batch


def test_default_bundle_knows_tiles_of_unseen_seeds() -> None:
    bundle = load_bundle()
    batch = render_batch(8, np.random.default_rng([2026, 7]), bundle.spec.size_px, bundle.spec.mpp, per_field=4)
    mean, std = (torch.tensor(bundle.card["transform"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    network = fuse(bundle.network())
    guesses = []
    with torch.inference_mode():
        for part in np.array_split(batch.tiles, 8):
            pixels = torch.from_numpy(part).permute(0, 3, 1, 2).float() / 255.0
            guesses.append(network((pixels - mean) / std).argmax(1).numpy())
    assert (np.concatenate(guesses) == batch.classes).mean() >= 0.87


def test_its_score_comes_with_a_second_opinion() -> None:
    bundle = load_bundle()
    assert bundle.whspn is not None
    assert "simulated" in bundle.whspn.trained_on
    assert bundle.card["metrics"]["accuracy"] > 0.9


def test_its_card_says_what_it_is_not_for() -> None:
    text = " ".join([*load_bundle().card["limits"], load_bundle().card["intended_use"]])
    for words in ("Research use only", "drawings", "must not be used", "five real cores"):
        assert words in text

from __future__ import annotations

import numpy as np
import pytest

from her2bridge.records import ByteArray, TileClass
from her2bridge.synth.fields import render_field
from her2bridge.synth.stains import Layers, Stains, optical_density, sample_stains, to_bytes, transmit, unmix
from her2bridge.synth.tiles import render_batch, render_tile, render_tiles

SIZE = 128


def mean_dab(tiles: ByteArray) -> float:
    return float(np.mean([unmix(tile, Stains()).dab.mean() for tile in tiles]))


def test_beer_lambert_there_and_back() -> None:
    rng = np.random.default_rng(0)
    stains = sample_stains(rng)
    layers = Layers(*(rng.uniform(0.0, 0.8, (20, 30)).astype(np.float32) for _ in range(3)))
    back = unmix(transmit(layers, stains).transpose(1, 2, 0), stains)
    for name in ("haematoxylin", "dab", "neutral"):
        assert np.allclose(getattr(back, name), getattr(layers, name), atol=2e-3)


def test_optical_density_is_the_logarithm_to_base_ten() -> None:
    stains = Stains(background=(250.0, 250.0, 250.0))
    assert np.allclose(optical_density(np.full((1, 1, 3), 25, np.uint8), stains), 1.0)
    assert np.isfinite(optical_density(np.zeros((1, 1, 3), np.uint8), stains)).all()


def test_empty_layers_are_the_background() -> None:
    stains = Stains(background=(240.0, 230.0, 220.0))
    assert (to_bytes(transmit(Layers.empty((3, 4)), stains)) == [240, 230, 220]).all()


def test_sampled_vectors_have_length_one() -> None:
    stains = sample_stains(np.random.default_rng(1))
    assert np.allclose(np.linalg.norm(stains.matrix(), axis=1), 1.0)


@pytest.mark.parametrize("tile_class", list(TileClass))
def test_a_seed_is_a_tile(tile_class: TileClass) -> None:
    tile = render_tile(tile_class, np.random.default_rng(5), SIZE)
    assert tile.shape == (SIZE, SIZE, 3)
    assert tile.dtype == np.uint8
    assert (tile == render_tile(tile_class, np.random.default_rng(5), SIZE)).all()
    assert (tile != render_tile(tile_class, np.random.default_rng(6), SIZE)).any()


def test_brown_grows_with_the_class() -> None:
    rng = np.random.default_rng(2)
    brown = {c: mean_dab(render_tiles(c, 12, rng, 256, per_field=2)) for c in TileClass}
    assert brown[TileClass.ZERO] < brown[TileClass.ONE] < brown[TileClass.TWO] < brown[TileClass.THREE]
    assert brown[TileClass.THREE] > 2 * brown[TileClass.TWO]
    assert brown[TileClass.NORMAL] < brown[TileClass.ONE]


def test_batch_holds_each_class_as_often_as_asked() -> None:
    batch = render_batch([2, 0, 1, 0, 3, 1], np.random.default_rng(3), SIZE)
    assert batch.classes.tolist() == [0, 0, 2, 4, 4, 4, 5]
    assert batch.tiles.shape == (7, SIZE, SIZE, 3)


def test_cells_keep_their_size_in_micrometres() -> None:
    """At half the resolution a field of the same µm shows the same amount of nuclei, not fewer, larger ones."""
    shares = []
    for mpp in (0.25, 0.5):
        dark = []
        for seed in range(6):
            side = int(192 / mpp)
            field = render_field(
                TileClass.ZERO, np.random.default_rng(seed), (side, side), mpp, stains=Stains(), whole=True
            )
            dark.append((unmix(field.pixels, Stains()).haematoxylin > 0.25).mean())
        shares.append(np.mean(dark))
    assert shares[0] == pytest.approx(shares[1], rel=0.3)


def test_odd_sizes_are_rendered() -> None:
    for tile_class in TileClass:
        field = render_field(tile_class, np.random.default_rng(4), (101, 77))
        assert field.pixels.shape == (101, 77, 3)
        assert field.tumour.shape == (51, 39)


def test_only_tumour_classes_show_tumour() -> None:
    for tile_class in TileClass:
        field = render_field(tile_class, np.random.default_rng(9), (256, 256), whole=True)
        assert bool(field.tumour.any()) == tile_class.is_tumour

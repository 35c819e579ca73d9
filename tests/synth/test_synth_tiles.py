from __future__ import annotations

import numpy as np
import pytest

from her2bridge.records import ByteArray, TileClass
from her2bridge.synth.cells import sheet, with_lumens
from her2bridge.synth.fields import Field, render_field
from her2bridge.synth.stains import Layers, Stains, optical_density, sample_stains, to_bytes, transmit, unmix
from her2bridge.synth.tiles import ENOUGH, MARGIN, render_batch, render_tile, render_tiles, shows
from her2bridge.synth.tissue import Ground
from her2bridge.synth.tumour import Staining, paint_tumour

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
    brown = {c: mean_dab(render_tiles(c, 10, rng, 256, per_field=1)) for c in TileClass}
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
        for seed in range(5):
            side, ground = int(192 / mpp), Ground(0.7, 0.1, 0.0, mpp)
            rng = np.random.default_rng(seed)
            field = render_field(TileClass.ZERO, rng, (side, side), mpp, stains=Stains(), ground=ground, whole=True)
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


def drawn(tumour: float, top: float = 1.0) -> Field:
    """A field of 200 × 200 whose left ``tumour`` is tumour, the upper ``top`` of it in the field's own class."""
    where, own = np.zeros((100, 100), dtype=bool), np.zeros((100, 100), dtype=bool)
    where[:, : round(100 * tumour)] = True
    own[: round(100 * top)] = True
    return Field(np.zeros((200, 200, 3), dtype=np.uint8), where, np.ones((100, 100), dtype=bool), own)


def test_little_tumour_is_normal_and_what_is_near_the_border_is_neither() -> None:
    for share in (0.0, ENOUGH - MARGIN - 0.01, ENOUGH, ENOUGH + MARGIN + 0.01, 1.0):
        field = drawn(share)
        assert shows(field, TileClass.NORMAL, 0, 0, 200) == (share < ENOUGH - MARGIN)
        assert shows(field, TileClass.TWO, 0, 0, 200) == (share > ENOUGH + MARGIN)


def test_the_highest_pattern_needs_a_tenth_of_the_tumour() -> None:
    assert shows(drawn(0.6, 0.15), TileClass.THREE, 0, 0, 200)
    assert not shows(drawn(0.6, 0.08), TileClass.THREE, 0, 0, 200)


def test_mixed_fields_hold_two_grades_and_other_tissue() -> None:
    rng = np.random.default_rng(12)
    fields = [render_field(TileClass.THREE, rng, (256, 256)) for _ in range(24)]
    assert 2 <= sum(not field.top.all() for field in fields) <= 16
    assert min(field.tumour.mean() for field in fields) < 0.5


def test_a_grade_shows_only_where_it_is_said_to() -> None:
    ground = Ground(0.4, 0.05, 0.0, 0.25)
    strong, none = Staining(1.2, 0.98, 0.9, 0.1, 0.0, 0.1), Staining(0.0, 0.0, 0.5, 0.0, 0.0, 0.0)
    own, other = [], []
    for seed in range(6):
        layers = Layers.empty((384, 384))
        growth = paint_tumour(np.random.default_rng(seed), layers, ground, strong, lower=none, dense=True)
        brown = layers.dab[::2, ::2]
        own.append(brown[growth.tumour & growth.top])
        other.append(brown[growth.tumour & ~growth.top])
    assert np.concatenate(own).mean() > 4 * np.concatenate(other).mean()


def test_blended_layers_are_one_or_the_other() -> None:
    below, above = (Layers(*(np.full((2, 2), value, np.float32) for _ in range(3))) for value in (1.0, 3.0))
    below.blend(above, np.array([[0.0, 1.0], [0.5, 0.0]], dtype=np.float32))
    for layer in (below.haematoxylin, below.dab, below.neutral):
        assert layer.tolist() == [[1.0, 3.0], [2.0, 1.0]]


def test_lumens_are_holes_in_nests() -> None:
    rng = np.random.default_rng(8)
    nests = sheet(rng, (256, 256), 0.5, 11.0, 0.95, 120.0, stretch=2.0)
    holed = with_lumens(rng, nests, 0.5, 0.15, 25.0)
    assert not (holed.inside & holed.lumen).any()
    assert 0.05 < holed.lumen.mean() < 0.2
    assert (holed.membrane[holed.lumen] <= 0).all()

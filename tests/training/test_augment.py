"""Tiles changed at random: what may change does, and what makes the class stays."""

from __future__ import annotations

import pytest
import torch

from her2bridge.training import augment as module
from her2bridge.training.augment import augment


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(count: int = 8, side: int = 32) -> torch.Tensor:
    """Bright at the left and at the top: no two of its eight positions are alike."""
    y, x = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    one = torch.stack([0.9 - 0.5 * x, 0.9 - 0.3 * y, 0.85 - 0.2 * x * y])
    return one.expand(count, 3, side, side).clone()


def test_equal_seeds_change_alike_and_others_otherwise() -> None:
    rgb = picture()
    assert torch.equal(augment(rgb, seeded(1)), augment(rgb, seeded(1)))
    assert not torch.equal(augment(rgb, seeded(1)), augment(rgb, seeded(2)))


def test_stays_a_picture() -> None:
    found = augment(torch.rand(16, 3, 40, 40), seeded())
    assert found.shape == (16, 3, 40, 40)
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.isfinite(found).all()


def test_turns_and_flips_are_exact_where_the_scale_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """All eight positions of the square come, and nothing else."""
    monkeypatch.setattr(module, "SCALE", (1.0, 1.0))
    rgb = picture(64)
    wanted = [torch.rot90(one, k, (1, 2)) for one in (rgb[0], rgb[0].flip(2)) for k in range(4)]
    found = module._shape(rgb, seeded())
    nearest = [min(range(8), key=lambda k: float((one - wanted[k]).abs().max())) for one in found]
    assert set(nearest) == set(range(8))
    assert max(float((one - wanted[k]).abs().max()) for one, k in zip(found, nearest, strict=True)) < 1e-5


def test_the_scale_is_within_its_range() -> None:
    """A bar of half the width takes between 0.5/1.25 and 0.5/0.8 of it, less what a shift pushes out."""
    rgb = torch.ones(64, 3, 64, 64)
    rgb[:, :, 16:48, 16:48] = 0.0
    shares = 1 - module._shape(rgb, seeded()).mean(dim=(1, 2, 3))
    sides = shares.sqrt()
    assert sides.max() <= 0.5 / 0.8 + 0.02
    assert sides.min() >= 0.5 / 1.25 - 0.02
    assert sides.std() > 0.03


def test_brown_varies_less_than_blue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of pure stains: haematoxylin's density goes from 0.7 to 1.35, DAB's from 0.88 to 1.12."""
    monkeypatch.setattr(module, "COLOUR", (1.0, 1.0))
    monkeypatch.setattr(module, "GLASS", (0.0, 0.0))
    assert module.GAINS[1][1] - module.GAINS[1][0] < 0.5 * (module.GAINS[0][1] - module.GAINS[0][0])
    for vector, (low, high) in ((module._HAEMATOXYLIN, module.GAINS[0]), (module._DAB, module.GAINS[1])):
        density = 0.5 * torch.tensor(vector) / torch.tensor(vector).norm()
        rgb = torch.pow(10.0, -density).view(1, 3, 1, 1).expand(200, 3, 2, 2)
        gains = (-torch.log10(module._stain(rgb, seeded())) / density.view(1, 3, 1, 1))[:, :, 0, 0]
        assert torch.allclose(gains, gains[:, :1].expand(-1, 3), atol=1e-3)
        assert low - 1e-3 <= gains.min() < low + 0.03
        assert high - 0.03 < gains.max() <= high + 1e-3

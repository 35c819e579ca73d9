"""Tiles as they might have been cut, turned, stained and scanned otherwise; on the device, a batch at once.

JPEG, which the drawings that the shipped model learned from were put through, is left out: tiles of slides have been
through it. What is drawn at random comes from a generator on the CPU, so that equal seeds change tiles alike on every
device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_HAEMATOXYLIN, _DAB = (0.650, 0.704, 0.286), (0.268, 0.570, 0.776)
"""Optical density of the stains in red, green and blue (Ruifrok and Johnston 2001)."""
_NEUTRAL = (3**-0.5, 3**-0.5, 3**-0.5)

GAINS = ((0.7, 1.35), (0.88, 1.12), (0.7, 1.35))
"""Of haematoxylin, DAB and what absorbs all colours. DAB varies least: how much of it there is makes the class."""
COLOUR = (0.92, 1.08)
GLASS = (-0.015, 0.03)
SCALE = (0.8, 1.25)
SHARPEN = (-0.8, 1.2)


def augment(rgb: Tensor, generator: torch.Generator) -> Tensor:
    """Change each tile by itself: quarter turn, flip, scale, shift; blur or sharpening; gains of each stain and colour.

    Args:
        rgb: float [n, 3, s, s], 0–1.
        generator: on the CPU.

    Returns:
        Float [n, 3, s, s], 0–1.
    """
    return _stain(_focus(_shape(rgb, generator), generator), generator).clamp(0.0, 1.0)


def _shape(rgb: Tensor, generator: torch.Generator) -> Tensor:
    """What lies beyond the tile is mirrored; a third of the tiles keep their scale, and so every pixel."""
    count = len(rgb)
    turns = torch.randint(0, 4, (count,), generator=generator)
    flips = torch.randint(0, 2, (count,), generator=generator) * 2 - 1
    scale = torch.exp(_uniform((count,), math.log(SCALE[0]), math.log(SCALE[1]), generator))
    scale = torch.where(_uniform((count,), 0, 1, generator) < 1 / 3, torch.ones(()), scale)
    room = (1 - scale).clamp_min(0.0)[:, None]
    shift = _uniform((count, 2), -1, 1, generator) * room
    cos = torch.tensor([1.0, 0.0, -1.0, 0.0])[turns]
    sin = torch.tensor([0.0, 1.0, 0.0, -1.0])[turns]
    rows = [torch.stack([flips * cos, -sin], 1), torch.stack([flips * sin, cos], 1)]
    matrix = torch.cat([scale[:, None, None] * torch.stack(rows, 1), shift[:, :, None]], 2).to(rgb.device)
    grid = nn.functional.affine_grid(matrix, list(rgb.shape), align_corners=False)
    return nn.functional.grid_sample(rgb, grid.to(rgb.dtype), padding_mode="reflection", align_corners=False)


def _focus(rgb: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the tiles are softened or sharpened."""
    count = len(rgb)
    by = _uniform((count,), *SHARPEN, generator) * (_uniform((count,), 0, 1, generator) < 0.5)
    soft = nn.functional.avg_pool2d(nn.functional.pad(rgb, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return (rgb + by.to(rgb.device)[:, None, None, None] * (rgb - soft)).clamp(0.0, 1.0)


def _stain(rgb: Tensor, generator: torch.Generator) -> Tensor:
    count = len(rgb)
    vectors = nn.functional.normalize(torch.tensor([_HAEMATOXYLIN, _DAB, _NEUTRAL]), dim=1)
    gains = torch.stack([_uniform((count,), low, high, generator) for low, high in GAINS], dim=1)
    colour = _uniform((count, 1, 3), *COLOUR, generator)
    glass = _uniform((count, 3, 1, 1), *GLASS, generator)
    mix = (torch.linalg.inv(vectors) * gains[:, None, :]) @ vectors * colour
    density = -torch.log10(rgb.clamp_min(1 / 255))
    shifted = torch.einsum("nchw,ncd->ndhw", density, mix.to(rgb.device))
    return torch.pow(10.0, -shifted - glass.to(rgb.device))


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low

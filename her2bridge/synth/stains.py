"""Light through stained tissue: optical density in three absorbers, and the RGB picture a scanner makes of it.

Beer–Lambert with base 10, as QuPath counts: ``I = I0 · 10^(−OD)``, ``OD = h · H + d · DAB + n · N`` where h, d and n
are maps of the amounts of haematoxylin, DAB and a neutral absorber (float32 [h, w]) and H, DAB and N are unit vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from her2bridge.records import ByteArray

F32 = npt.NDArray[np.float32]

HAEMATOXYLIN = (0.651, 0.701, 0.290)
"""QuPath's default vectors for H-DAB (Ruifrok and Johnston 2001)."""
DAB = (0.269, 0.568, 0.778)
NEUTRAL = (0.577, 0.577, 0.577)


@dataclass(frozen=True)
class Stains:
    """How the absorbers of one slide colour the light.

    Attributes:
        haematoxylin, dab, neutral: unit vectors of optical density, RGB.
        background: the light through glass, RGB of 0–255.
    """

    haematoxylin: tuple[float, float, float] = HAEMATOXYLIN
    dab: tuple[float, float, float] = DAB
    neutral: tuple[float, float, float] = NEUTRAL
    background: tuple[float, float, float] = (243.0, 243.0, 243.0)

    def matrix(self) -> F32:
        """The vectors as rows, float32 [3, 3]: haematoxylin, DAB, neutral."""
        return np.array([self.haematoxylin, self.dab, self.neutral], dtype=np.float32)


@dataclass
class Layers:
    """The amounts of the three absorbers, float32 [h, w] each; painters add to them in place."""

    haematoxylin: F32
    dab: F32
    neutral: F32

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> Layers:
        """Clear glass."""
        return cls(*(np.zeros(shape, dtype=np.float32) for _ in range(3)))

    @property
    def shape(self) -> tuple[int, int]:
        return self.haematoxylin.shape[0], self.haematoxylin.shape[1]

    def scale(self, factor: F32 | float) -> None:
        """Multiply all three: glass where the factor is 0, folded tissue where it is above 1."""
        for layer in (self.haematoxylin, self.dab, self.neutral):
            layer *= factor

    def blend(self, other: Layers, share: F32) -> None:
        """Put ``other`` in place of what is here, to the share (0–1, float32 [h, w]) that each pixel says."""
        self.scale(1.0 - share)
        self.haematoxylin += other.haematoxylin * share
        self.dab += other.dab * share
        self.neutral += other.neutral * share


def transmit(layers: Layers, stains: Stains) -> F32:
    """The light that arrives, float32 [3, h, w], 0–255 and not yet rounded."""
    planes = np.empty((3, *layers.shape), dtype=np.float32)
    matrix = stains.matrix() * np.float32(-np.log(10.0))
    for channel in range(3):
        density = layers.haematoxylin * matrix[0, channel]
        density += layers.dab * matrix[1, channel]
        density += layers.neutral * matrix[2, channel]
        np.exp(density, out=density)
        np.multiply(density, np.float32(stains.background[channel]), out=planes[channel])
    return planes


def to_bytes(planes: F32) -> ByteArray:
    """Round light [3, h, w] to an RGB picture, uint8 [h, w, 3]."""
    return np.ascontiguousarray((np.clip(planes, 0.0, 255.0) + 0.5).astype(np.uint8).transpose(1, 2, 0))


def optical_density(rgb: ByteArray | F32, stains: Stains) -> F32:
    """Optical density of a picture [h, w, 3], float32 [h, w, 3]; black is taken as intensity 1 of 255."""
    light = np.maximum(np.asarray(rgb, dtype=np.float32), 1.0)
    return np.asarray(-np.log10(light / np.asarray(stains.background, dtype=np.float32)), dtype=np.float32)


def unmix(rgb: ByteArray | F32, stains: Stains) -> Layers:
    """The amounts of the three absorbers in a picture: the inverse of ``transmit``."""
    amounts = optical_density(rgb, stains) @ np.linalg.inv(stains.matrix().astype(np.float64))
    h, d, n = (np.ascontiguousarray(amounts[..., index], dtype=np.float32) for index in range(3))
    return Layers(h, d, n)


def sample_stains(rng: np.random.Generator) -> Stains:
    """Stains of some laboratory and scanner: the vectors a few degrees off, the glass not quite white."""
    white = rng.uniform(226.0, 252.0)
    tint = rng.normal((-0.5, -0.5, 1.5), 3.0)
    background = np.clip(white + tint, 205.0, 254.0)
    return Stains(
        haematoxylin=_tilted(rng, _greyed(HAEMATOXYLIN, rng.uniform(0.0, 0.6)), 0.06),
        dab=_tilted(rng, DAB, 0.05),
        neutral=_tilted(rng, NEUTRAL, 0.05),
        background=(float(background[0]), float(background[1]), float(background[2])),
    )


def _greyed(vector: tuple[float, float, float], by: float) -> tuple[float, float, float]:
    """A vector leant towards grey: scanners and old stain make haematoxylin greyer than fresh dye is."""
    return vector[0] + by * NEUTRAL[0], vector[1] + by * NEUTRAL[1], vector[2] + by * NEUTRAL[2]


def _tilted(rng: np.random.Generator, vector: tuple[float, float, float], by: float) -> tuple[float, float, float]:
    straight = np.asarray(vector) / np.linalg.norm(vector)
    moved = np.maximum(straight + rng.normal(0.0, by, 3), 0.05)
    moved /= np.linalg.norm(moved)
    return float(moved[0]), float(moved[1]), float(moved[2])

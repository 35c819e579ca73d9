"""Channel attention for the tile network: a gate for each channel, computed from the block's own sum.

Both modules answer two calls: ``forward(x)`` gives the gated map, ``gate(x)`` the factors alone, float [n, c, 1, 1].
Both gates lie above zero, so they commute with ReLU. Reductions run in fp32 whatever the precision of the maps:
a sum of squares over 128 × 128 half-precision values overflows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from her2bridge.model.spec import SE_REDUCTION
from her2bridge.model.spec import Attention as Attention  # also to be had from here


class GCT(nn.Module):
    """Gated channel transformation: 3 parameters a channel (Yang et al. 2020).

    ``s = alpha · sqrt(sum_hw(x²) + eps)``, ``n = s / sqrt(mean_c(s²) + eps)``,
    ``y = x · (1 + tanh(gamma · n + beta))``.
    It starts as the identity: alpha 1, gamma 0, beta 0.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.alpha = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def gate(self, x: Tensor) -> Tensor:
        """Factors of the channels, [n, c, 1, 1], fp32 for half-precision maps; between 0 and 2."""
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        norm = torch.linalg.vector_norm(x, dim=(2, 3), keepdim=True, dtype=wide)
        size = self.alpha.to(wide) * torch.sqrt(norm.square() + self.eps)
        relative = size * torch.rsqrt(size.square().mean(dim=1, keepdim=True) + self.eps)
        return 1.0 + torch.tanh(self.gamma.to(wide) * relative + self.beta.to(wide))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x).to(x.dtype)


class SE(nn.Module):
    """Squeeze and excitation: two 1×1 convolutions with biases, reduction 16, sigmoid (Hu et al. 2018)."""

    def __init__(self, channels: int, reduction: int = SE_REDUCTION) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1)
        self.excite = nn.Conv2d(channels // reduction, channels, 1)

    def gate(self, x: Tensor) -> Tensor:
        """Factors of the channels, [n, c, 1, 1]; between 0 and 1."""
        pooled = x.mean(dim=(2, 3), keepdim=True)
        return torch.sigmoid(self.excite(torch.relu(self.squeeze(pooled))))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x).to(x.dtype)


def make_attention(kind: Attention, channels: int) -> nn.Module:
    """The attention of one block; ``nn.Identity`` for ``"none"``.

    Raises:
        ValueError: no such attention.
    """
    if kind == "none":
        return nn.Identity()
    if kind == "gct":
        return GCT(channels)
    if kind == "se":
        return SE(channels)
    raise ValueError(f"no attention called {kind!r}; there are none, gct, se")

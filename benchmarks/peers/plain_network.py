"""The fused network in plain torch, from nothing but its weights: what the peers get.

``weights.safetensors`` holds the state of her2bridge's fused network in fp32, ``network.json`` the strides and how
pixels are normalised. her2bridge is not imported.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


class Gate(nn.Module):
    """Gated channel transformation (Yang et al. 2020)."""

    def __init__(self, alpha: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> None:
        super().__init__()
        self.alpha, self.gamma, self.beta = nn.Parameter(alpha), nn.Parameter(gamma), nn.Parameter(beta)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        size = self.alpha * torch.sqrt(torch.sum(x * x, dim=(2, 3), keepdim=True) + self.eps)
        relative = size * torch.rsqrt(torch.mean(size * size, dim=1, keepdim=True) + self.eps)
        return x * (1.0 + torch.tanh(self.gamma * relative + self.beta))


class Fused(nn.Module):
    """3×3 convolutions, each with its gate and ReLU; mean; linear. Normalised float [n, 3, h, w] to logits [n, 6]."""

    def __init__(self, state: dict[str, Tensor], strides: list[int], eps: float) -> None:
        super().__init__()
        names = [name.removesuffix(".conv.weight") for name in state if name.endswith(".conv.weight")]
        layers: list[nn.Module] = []
        for name, stride in zip(names, strides, strict=True):
            weight = state[f"{name}.conv.weight"]
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, stride, padding=1)
            conv.load_state_dict({"weight": weight, "bias": state[f"{name}.conv.bias"]})
            gate = [state[f"{name}.attention.{part}"] for part in ("alpha", "gamma", "beta")]
            layers += [conv, Gate(*gate, eps), nn.ReLU(inplace=True)]
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(state["head.weight"].shape[1], state["head.weight"].shape[0])
        self.head.load_state_dict({"weight": state["head.weight"], "bias": state["head.bias"]})

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.mean(self.blocks(x), dim=(2, 3)))


def about(folder: Path) -> dict[str, Any]:
    """``network.json``: ``strides``, ``eps``, ``mean``, ``std``, ``classes``, ``size_px``, ``mpp``, ``blocks``."""
    told: dict[str, Any] = json.loads((folder / "network.json").read_text(encoding="utf-8"))
    return told


def load_network(folder: Path) -> Fused:
    """The network, in eval mode."""
    told = about(folder)
    stored = load_file(folder / "weights.safetensors")
    order = [f"{name}.{part}" for name in told["blocks"] for part in _PARTS]
    state = {name: stored[name] for name in [*order, "head.weight", "head.bias"]}
    return Fused(state, told["strides"], told["eps"]).eval()


_PARTS = ("conv.weight", "conv.bias", "attention.alpha", "attention.gamma", "attention.beta")


def declare_operators() -> None:
    """torchvision from PyPI beside a CPU build of torch: two operators that it describes are declared, without a body.

    None of the networks here calls them; without that torchvision cannot be imported.
    """
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)


_KEPT: list[Any] = []  # a library's operators go when it goes

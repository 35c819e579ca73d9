"""A bundle with random weights, tiles, and machines made up: what the tests of the runtimes share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from her2bridge.model.attention import GCT, SE, Attention
from her2bridge.model.inference_form import inference_form
from her2bridge.model.repvgg import NetworkSpec, RepVGG, build
from her2bridge.records import ByteArray, Float32Array, TileSpec

CARD = {"name": "tiny", "transform": {"mean": [0.7, 0.65, 0.6], "std": [0.2, 0.21, 0.22]}}


class Hardware:
    """A machine as told."""

    def __init__(self, cuda: int = 0, *, mps: bool = False, capability: int = 8, cpu_bf16: bool = False) -> None:
        self._cuda, self._mps, self._capability, self._cpu_bf16 = cuda, mps, capability, cpu_bf16

    def cuda_devices(self) -> list[str]:
        return ["NVIDIA Made Up"] * self._cuda

    def has_mps(self) -> bool:
        return self._mps

    def cuda_has_fp16(self, index: int) -> bool:
        return self._capability >= 7

    def cuda_has_bf16(self, index: int) -> bool:
        return self._capability >= 8

    def cpu_has_bf16(self) -> bool:
        return self._cpu_bf16


def random_bundle(temperature: float = 1.0, attention: Attention = "gct", size: int = 256) -> Any:
    """Statistics and gates as if trained: a gate that starts as the identity would hide mistakes."""
    torch.manual_seed(3)
    network = build(NetworkSpec(attention=attention)).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, GCT):
                module.alpha.uniform_(-1.5, 1.5)
                module.gamma.uniform_(-1.0, 1.0)
                module.beta.uniform_(-0.5, 0.5)
            elif isinstance(module, SE):
                module.excite.bias.uniform_(0.0, 4.0)  # type: ignore[union-attr]
            elif isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
                module.weight.uniform_(0.5, 1.5)
    _tell_tiles_apart(network)
    return SimpleNamespace(
        name="tiny",
        sha256="0" * 64,
        card=CARD,
        spec=TileSpec(size, 0.25),
        temperature=temperature,
        network=lambda: network,
        fused=lambda: inference_form(network).numbers(),
    )


def _tell_tiles_apart(network: RepVGG) -> None:
    """Scale the last layer so that the probabilities of random tiles are neither all alike nor all 0 and 1."""
    with torch.no_grad():
        network.head.weight.normal_()
        logits = network(torch.from_numpy(_planes(some_tiles(8, seed=99)[:, :64, :64])))
        network.head.weight.div_(logits.std(dim=0)[:, None])
        network.head.bias.copy_(-logits.mean(dim=0) / logits.std(dim=0))


def some_tiles(count: int, seed: int = 0) -> ByteArray:
    """Tiles of different colours with noise."""
    random = np.random.default_rng(seed)
    colours = random.integers(60, 240, (count, 1, 1, 3))
    return np.asarray(np.clip(colours + random.normal(0, 25, (count, 256, 256, 3)), 0, 255), dtype=np.uint8)


def plain(bundle: Any, tiles: ByteArray) -> np.ndarray[Any, Any]:
    """The training form, fp32, normalised in numpy: the slow way."""
    with torch.inference_mode():
        return np.asarray(bundle.network()(torch.from_numpy(_planes(tiles))).softmax(dim=1))


def _planes(tiles: ByteArray) -> Float32Array:
    mean, std = (np.array(CARD["transform"][key], np.float32) for key in ("mean", "std"))  # type: ignore[index]
    return np.ascontiguousarray(((tiles.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2))

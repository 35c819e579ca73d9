"""Train the first bundle from synthetic tiles alone: one command, one seed, about half an hour on two CPU cores.

    python examples/train_first_bundle.py --output her2bridge/model/bundles/her2-synthetic-gct-0

Tiles are rendered into memory, the network learns from crops of growing size (RepVGG ends in a global average, so a
crop of half the width teaches the same features at a quarter of the price) and is measured, fused and in fp32, on whole
tiles of seeds that it never saw.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from her2bridge.inference.runtime.torch_runtime import TorchHardware
from her2bridge.model.attention import Attention
from her2bridge.model.bundle import DEFAULT_BUNDLE, save_bundle
from her2bridge.model.repvgg import NetworkSpec, RepVGG, build, fuse
from her2bridge.records import ByteArray, IntArray, TileClass
from her2bridge.synth.stains import Stains
from her2bridge.synth.tiles import render_tiles

SIZE_PX, MPP = 256, 0.25
MEAN, STD = (0.72, 0.68, 0.75), (0.20, 0.22, 0.18)
CHUNK = 60
TRAINING, EVALUATION = 0, 1
"""Second part of every tile's seed: what is measured on was never trained on."""


@dataclass(frozen=True)
class Phase:
    """Some passes over the tiles, cut to ``crop`` pixels."""

    crop: int
    epochs: float


PHASES = (Phase(96, 5.0), Phase(160, 0.6), Phase(256, 0.15))


def render_chunk(seed: tuple[int, int, int, int], count: int) -> ByteArray:
    """Tiles of one class, in a worker process; four a field, so that stains and growth vary."""
    # Small matrices on several threads in several processes would slow each other down fourfold.
    with threadpool_limits(1):
        return render_tiles(TileClass(seed[2]), count, np.random.default_rng(list(seed)), SIZE_PX, MPP, per_field=4)


def render(seed: int, part: int, per_class: int, workers: int) -> tuple[ByteArray, IntArray]:
    """Tiles uint8 [6 · per_class, size, size, 3] and their classes."""
    classes = np.repeat(np.arange(len(TileClass), dtype=np.int64), per_class)
    tiles = np.empty((len(classes), SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = {}
        for tile_class in TileClass:
            for start in range(0, per_class, CHUNK):
                count = min(CHUNK, per_class - start)
                key = (seed, part, int(tile_class), start // CHUNK)
                jobs[int(tile_class) * per_class + start] = pool.submit(render_chunk, key, count)
        for offset, job in jobs.items():
            chunk = job.result()
            tiles[offset : offset + len(chunk)] = chunk
    return tiles, classes


def normalise(rgb: Tensor) -> Tensor:
    """RGB of 0–1, float [n, 3, h, w], to what the network sees."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (rgb - mean) / std


class Augment:
    """Crop, scale, turn, flip, and other stains: gains of each absorber and each colour in optical density.

    DAB varies least: how much of it there is makes the class.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator
        vectors = torch.from_numpy(Stains().matrix())
        self._vectors, self._inverse = vectors, torch.linalg.inv(vectors)

    def __call__(self, tiles: ByteArray, crop: int) -> Tensor:
        """Normalised input [n, 3, crop, crop] of tiles uint8 [n, h, w, 3]."""
        scale = self._uniform((), 0.8, 1.25).item()
        window = min(round(crop * scale), tiles.shape[1])
        y, x = (int(self._uniform((), 0, tiles.shape[1] - window + 1).item()) for _ in range(2))
        cut = torch.from_numpy(np.ascontiguousarray(tiles[:, y : y + window, x : x + window]))
        rgb = (cut.permute(0, 3, 1, 2).float() + 0.5) / 256.0
        if window != crop:
            rgb = nn.functional.interpolate(rgb, (crop, crop), mode="bilinear", antialias=window > crop)
        rgb = torch.rot90(rgb, int(self._uniform((), 0, 4).item()), (2, 3))
        if self._uniform((), 0, 1).item() < 0.5:
            rgb = rgb.flip(3)
        return normalise(self._stain(rgb).clamp(0.0, 1.0))

    def _stain(self, rgb: Tensor) -> Tensor:
        count = rgb.shape[0]
        gains = torch.stack([self._uniform((count,), *r) for r in ((0.75, 1.3), (0.88, 1.12), (0.75, 1.3))], dim=1)
        colour = self._uniform((count, 1, 3), 0.94, 1.06)
        mix = (self._inverse * gains[:, None, :]) @ self._vectors * colour
        density = -torch.log10(rgb.clamp_min(1e-3))
        shifted = torch.einsum("nchw,ncd->ndhw", density, mix)
        return torch.pow(10.0, -shifted - self._uniform((count, 3, 1, 1), -0.015, 0.03))

    def _uniform(self, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        return torch.rand(shape, generator=self._generator) * (high - low) + low


def batches(count: int, batch: int, generator: torch.Generator) -> Iterator[np.ndarray[Any, Any]]:
    """Shuffled indices, whole batches, without end."""
    while True:
        order = torch.randperm(count, generator=generator).numpy()
        for start in range(0, count - batch + 1, batch):
            yield order[start : start + batch]


def train(network: RepVGG, tiles: ByteArray, classes: IntArray, arguments: argparse.Namespace) -> None:
    """SGD with a warm-up and a cosine down to zero over all phases; bf16 where the CPU has it, else fp32.

    Channels first: with torch 2.13 on the CPU the backward pass of a strided 1×1 convolution in fp32 and channels last
    writes outside its memory.
    """
    has_bf16 = TorchHardware().cpu_has_bf16()
    generator = torch.Generator().manual_seed(arguments.seed)
    augment = Augment(generator)
    order = batches(len(tiles), arguments.batch, generator)
    steps = [max(1, round(p.epochs * arguments.epochs_factor * len(tiles) / arguments.batch)) for p in PHASES]
    decay = [p for p in network.parameters() if p.ndim >= 2 and p.shape[0] > 1]
    plain = [p for p in network.parameters() if not (p.ndim >= 2 and p.shape[0] > 1)]
    groups = [{"params": decay, "weight_decay": 5e-4}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=arguments.lr, momentum=0.9, nesterov=True)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    done, total, began = 0, sum(steps), time.monotonic()
    network.train()
    for phase, count in zip(PHASES, steps, strict=True):
        running = right = seen = 0.0
        for _ in range(count):
            warm = min(1.0, (done + 1) / (0.05 * total))
            for group in optimiser.param_groups:
                group["lr"] = arguments.lr * warm * 0.5 * (1 + math.cos(math.pi * done / total))
            index = next(order)
            target = torch.from_numpy(classes[index])
            with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16):
                logits = network(augment(tiles[index], phase.crop))
            loss = loss_of(logits.float(), target)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            done += 1
            running, seen = running + loss.item(), seen + 1
            right += (logits.argmax(1) == target).float().mean().item()
            if done % 50 == 0:
                minutes = (time.monotonic() - began) / 60
                print(
                    f"{minutes:5.1f} min  step {done}/{total}  {phase.crop} px  "
                    f"loss {running / seen:.3f}  accuracy {right / seen:.3f}",
                    flush=True,
                )
                running = right = seen = 0.0
    network.eval()


def confusion(network: nn.Module, tiles: ByteArray, classes: IntArray) -> IntArray:
    """Counts [truth, prediction] of a network in fp32 on whole tiles."""
    table = np.zeros((len(TileClass), len(TileClass)), dtype=np.int64)
    with torch.inference_mode():
        for start in range(0, len(tiles), 32):
            pixels = torch.from_numpy(tiles[start : start + 32]).permute(0, 3, 1, 2).float() / 255.0
            guesses = network(normalise(pixels)).argmax(1).numpy()
            np.add.at(table, (classes[start : start + 32], guesses), 1)
    return table


def metrics_of(table: IntArray, part: str) -> dict[str, Any]:
    """What the card says of a confusion matrix [truth, prediction]."""
    recall = table.diagonal() / table.sum(axis=1)
    precision = table.diagonal() / np.maximum(table.sum(axis=0), 1)
    f1 = 2 * recall * precision / np.maximum(recall + precision, 1e-9)
    labels = [tile_class.label for tile_class in TileClass]
    return {
        "measured_on": part,
        "tiles": int(table.sum()),
        "accuracy": round(float(table.trace() / table.sum()), 4),
        "macro_f1": round(float(f1.mean()), 4),
        "recall": {label: round(float(r), 4) for label, r in zip(labels, recall, strict=True)},
        "precision": {label: round(float(p), 4) for label, p in zip(labels, precision, strict=True)},
        "confusion": {"order": labels, "rows_truth_columns_predicted": table.tolist()},
    }


def card_of(arguments: argparse.Namespace, metrics: dict[str, Any], minutes: float) -> dict[str, Any]:
    """All that the bundle says of itself."""
    return {
        "name": arguments.output.name,
        "version": "0.1.0",
        "license": "GPL-3.0-or-later",
        "intended_use": "Research use only. Good enough for the demo: it shows that the whole chain works. "
        "It must not be used to judge a patient's tissue.",
        "patch_size_px": SIZE_PX,
        "spacing_um_px": MPP,
        "transform": {"mean": list(MEAN), "std": list(STD), "of": "RGB, uint8 divided by 255"},
        "training": {
            "data": "synthetic tiles of her2bridge.synth only; no picture of real tissue, no pathologist's label",
            "tiles": 6 * arguments.per_class,
            "seed": arguments.seed,
            "phases": [{"crop_px": p.crop, "epochs": p.epochs * arguments.epochs_factor} for p in PHASES],
            "optimiser": f"SGD, Nesterov 0.9, rate {arguments.lr}, cosine, batch {arguments.batch}, decay 5e-4",
            "augmentation": "crops, scale 0.8 to 1.25, quarter turns, flips, stain gains in optical density",
            "minutes": round(minutes, 1),
            "script": "examples/train_first_bundle.py",
        },
        "metrics": metrics,
        "limits": [
            "Trained on drawings of tissue: figures on synthetic tiles say nothing of accuracy on real slides.",
            "Non-tumour tissue of real slides (muscle, stroma, normal glands) may be taken for unstained tumour.",
            "Made for membranous HER2 staining, DAB and haematoxylin, gastric adenocarcinoma, 0.25 µm per pixel.",
            "The borders between 0 and 1+ and between 2+ and 3+ are set by the generator, not by a pathologist.",
        ],
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parents[1] / "her2bridge" / "model" / "bundles" / DEFAULT_BUNDLE
    parser.add_argument("--output", type=Path, default=default, help="folder of the bundle; its name is the bundle's")
    parser.add_argument("--seed", type=int, default=2022)
    parser.add_argument("--per-class", type=int, default=2000, help="training tiles of each class")
    parser.add_argument("--evaluate-per-class", type=int, default=250)
    parser.add_argument("--epochs-factor", type=float, default=1.0, help="less for a quick try")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--attention", choices=["none", "gct", "se"], default="gct")
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    attention: Attention = arguments.attention
    torch.manual_seed(arguments.seed)
    began = time.monotonic()
    tiles, classes = render(arguments.seed, TRAINING, arguments.per_class, arguments.workers)
    print(f"{len(tiles)} training tiles in {time.monotonic() - began:.0f} s", flush=True)
    network = build(NetworkSpec(attention=attention))
    began = time.monotonic()
    train(network, tiles, classes, arguments)
    minutes = (time.monotonic() - began) / 60
    unseen, truth = render(arguments.seed, EVALUATION, arguments.evaluate_per_class, arguments.workers)
    table = confusion(fuse(network), unseen, truth)
    metrics = metrics_of(table, "synthetic tiles of unseen seeds, whole tiles, fused network, fp32")
    bundle = save_bundle(arguments.output, network, card_of(arguments, metrics, minutes))
    stored = confusion(fuse(bundle.network()), unseen, truth)
    print(json.dumps(metrics, indent=1))
    print(f"as stored in half precision: accuracy {stored.trace() / stored.sum():.4f}")
    print(f"{bundle.path}  sha256 {bundle.sha256[:12]}  trained in {minutes:.1f} min")


if __name__ == "__main__":
    main()

"""Train the bundle that ships, from synthetic tiles alone: one command, one seed, a fixed time on two CPU cores.

    python examples/train_shipped_model.py --minutes 40

Tiles are rendered into memory by worker processes, small ones for most of the steps and large ones for the last, each
labelled by what it shows itself: a crop from a large mixed tile could miss what gave the tile its class. The rate falls
along a cosine of the time that is left, so the run always ends in its budget; how many steps it takes depends on the
machine, and so, unlike the tiles, the weights are not the same bit by bit on another run. The network, an exponential
mean over the last steps, is measured, fused and in fp32, on whole tiles of seeds that it never saw.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from her2bridge.inference.runtime.torch_runtime import TorchHardware
from her2bridge.model.attention import Attention
from her2bridge.model.bundle import save_bundle
from her2bridge.model.repvgg import NetworkSpec, RepVGG, build, fuse
from her2bridge.records import ByteArray, IntArray, TileClass
from her2bridge.synth.stains import Stains
from her2bridge.synth.tiles import render_tiles

SIZE_PX, MPP = 256, 0.25
MEAN, STD = (0.72, 0.68, 0.75), (0.20, 0.22, 0.18)
CHUNK = 60
EVALUATION = 9
"""Second part of every tile's seed where it is not a phase's number: what is measured on was never trained on."""


@dataclass(frozen=True)
class Phase:
    """A part of the time, with tiles of one size.

    Attributes:
        tile: side of the tiles rendered for it, pixels.
        crop: side of what the network sees.
        until: share of the training time at which it ends.
        per_field: tiles cut from one field.
        share: its tiles of each class, in units of ``--per-class``.
    """

    tile: int
    crop: int
    until: float
    per_field: int
    share: float


SMALL, LARGE = Phase(176, 144, 0.6, 6, 2.5), Phase(288, 224, 1.0, 4, 1.0)


@dataclass(frozen=True, eq=False)
class Tiles:
    """Pixels uint8 [n, side, side, 3] and classes int64 [n]."""

    pixels: ByteArray
    classes: IntArray


def render_chunk(seed: tuple[int, int, int, int], count: int, side: int, per_field: int) -> ByteArray:
    """Tiles of one class, in a worker process; few a field, so that stains and growth vary."""
    # Small matrices on several threads in several processes would slow each other down fourfold.
    with threadpool_limits(1):
        return render_tiles(
            TileClass(seed[2]), count, np.random.default_rng(list(seed)), side, MPP, per_field=per_field
        )


def render(pool: ProcessPoolExecutor, seed: int, part: int, counts: Sequence[int], side: int, per_field: int) -> Tiles:
    """``counts`` tiles of the six classes."""
    classes = np.repeat(np.arange(len(TileClass), dtype=np.int64), counts)
    pixels = np.empty((len(classes), side, side, 3), dtype=np.uint8)
    jobs = []
    for tile_class, count in zip(TileClass, counts, strict=True):
        for start in range(0, count, CHUNK):
            key = (seed, part, int(tile_class), start // CHUNK)
            jobs.append(pool.submit(render_chunk, key, min(CHUNK, count - start), side, per_field))
    offset = 0
    for job in jobs:
        chunk = job.result()
        pixels[offset : offset + len(chunk)] = chunk
        offset += len(chunk)
    return Tiles(pixels, classes)


def with_real_noise(tiles: Tiles, folder: Path, rng: np.random.Generator) -> Tiles:
    """The tiles and, as noise, crops of pictures of glass and pen: one for every ten synthetic noise tiles."""
    side = tiles.pixels.shape[1]
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.png"))]
    pictures = [picture for picture in pictures if min(picture.shape[:2]) >= side]
    if not pictures:
        return tiles
    found = []
    for index in range(int((tiles.classes == TileClass.NOISE).sum()) // 10):
        picture = pictures[index % len(pictures)]
        y, x = (int(rng.integers(0, extent - side + 1)) for extent in picture.shape[:2])
        found.append(picture[y : y + side, x : x + side])
    if not found:
        return tiles
    classes = np.full(len(found), int(TileClass.NOISE), dtype=np.int64)
    return Tiles(np.concatenate([tiles.pixels, np.stack(found)]), np.concatenate([tiles.classes, classes]))


def normalise(rgb: Tensor) -> Tensor:
    """RGB of 0–1, float [n, 3, h, w], to what the network sees."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (rgb - mean) / std


class Augment:
    """Crop, scale, turn, flip; other stains: gains of each absorber and each colour in optical density; blur or
    sharpening; JPEG.

    DAB varies least: how much of it there is makes the class.
    """

    def __init__(self, generator: torch.Generator, groups: int = 4) -> None:
        self._generator = generator
        self._groups = groups
        vectors = torch.from_numpy(Stains().matrix())
        self._vectors, self._inverse = vectors, torch.linalg.inv(vectors)

    def __call__(self, tiles: ByteArray, crop: int) -> Tensor:
        """Normalised input [n, 3, crop, crop] of tiles uint8 [n, h, w, 3]; a quarter of a batch shares its geometry."""
        parts = [self._shape(part, crop) for part in np.array_split(tiles, self._groups) if len(part)]
        rgb = self._stain(torch.cat(parts)).clamp(0.0, 1.0)
        return normalise(self._compress(rgb))

    def _shape(self, tiles: ByteArray, crop: int) -> Tensor:
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
        if self._uniform((), 0, 1).item() < 0.5:
            soft = nn.functional.avg_pool2d(nn.functional.pad(rgb, (1, 1, 1, 1), mode="replicate"), 3, 1)
            rgb = (rgb + self._uniform((), -0.8, 1.2).item() * (rgb - soft)).clamp(0.0, 1.0)
        return rgb

    def _stain(self, rgb: Tensor) -> Tensor:
        count = rgb.shape[0]
        gains = torch.stack([self._uniform((count,), *r) for r in ((0.7, 1.35), (0.88, 1.12), (0.7, 1.35))], dim=1)
        colour = self._uniform((count, 1, 3), 0.92, 1.08)
        mix = (self._inverse * gains[:, None, :]) @ self._vectors * colour
        density = -torch.log10(rgb.clamp_min(1e-3))
        shifted = torch.einsum("nchw,ncd->ndhw", density, mix)
        return torch.pow(10.0, -shifted - self._uniform((count, 3, 1, 1), -0.015, 0.03))

    def _compress(self, rgb: Tensor) -> Tensor:
        for index in torch.nonzero(self._uniform((rgb.shape[0],), 0, 1) < 0.2).flatten().tolist():
            buffer = io.BytesIO()
            picture = (rgb[index].permute(1, 2, 0) * 255.0).round().to(torch.uint8).numpy()
            Image.fromarray(picture).save(buffer, "JPEG", quality=int(self._uniform((), 45, 92).item()))
            rgb[index] = torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).float() / 255.0
        return rgb

    def _uniform(self, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        return torch.rand(shape, generator=self._generator) * (high - low) + low


def batches(count: int, batch: int, generator: torch.Generator) -> Iterator[np.ndarray[Any, Any]]:
    """Shuffled indices, whole batches, without end."""
    batch = min(batch, count)
    while True:
        order = torch.randperm(count, generator=generator).numpy()
        for start in range(0, count - batch + 1, batch):
            yield order[start : start + batch]


def keep(network: nn.Module, path: Path, runs: list[dict[str, Any]]) -> None:
    """Write weights and how they came about (safetensors), whole or not at all: a run cut off leaves something."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, part, metadata={"runs": json.dumps(runs)})
    os.replace(part, path)


def runs_of(path: Path) -> list[dict[str, Any]]:
    """How the weights of a checkpoint came about, run by run."""
    with safe_open(path, "pt") as file:
        found: list[dict[str, Any]] = json.loads((file.metadata() or {}).get("runs", "[]"))
    return found


class Trainer:
    """SGD with a warm-up and a cosine down to zero over the time; bf16 where the CPU has it, else fp32.

    Channels first: with torch 2.13 on the CPU the backward pass of a strided 1×1 convolution in fp32 and channels last
    writes outside its memory.
    """

    def __init__(self, network: RepVGG, arguments: argparse.Namespace, phases: Sequence[Phase]) -> None:
        self._network, self._arguments, self._phases = network, arguments, phases
        self._runs = [] if arguments.start_from is None else runs_of(arguments.start_from)
        self._mean = copy.deepcopy(network)
        self._generator = torch.Generator().manual_seed(arguments.seed)
        self._augment = Augment(self._generator)
        decay = [p for p in network.parameters() if p.ndim >= 2 and p.shape[0] > 1]
        plain = [p for p in network.parameters() if not (p.ndim >= 2 and p.shape[0] > 1)]
        groups = [{"params": decay, "weight_decay": 5e-4}, {"params": plain, "weight_decay": 0.0}]
        self._optimiser = torch.optim.SGD(groups, lr=arguments.lr, momentum=0.9, nesterov=True)
        self._loss = nn.CrossEntropyLoss(label_smoothing=0.05)
        self._has_bf16 = TorchHardware().cpu_has_bf16()
        self._began = time.monotonic()
        self._tiles: list[int] = []
        self.steps: list[int] = []

    @property
    def runs(self) -> list[dict[str, Any]]:
        """What the card says of the training: the runs before, and this one as far as it is."""
        done = zip(self._phases, self._tiles, self.steps, strict=True)
        arguments = self._arguments
        this = {
            "seed": arguments.seed,
            "rate": arguments.lr,
            "normal_weight": arguments.normal_weight,
            "phases": [{"tile_px": p.tile, "crop_px": p.crop, "tiles": n, "steps": s} for p, n, s in done],
            "minutes": round((time.monotonic() - self._began) / 60, 1),
        }
        return [*self._runs, this]

    def run(self, sets: list[Tiles], deadline: float) -> RepVGG:
        """Train until ``deadline`` (``time.monotonic``); the exponential mean of the network, in eval mode."""
        began = kept = time.monotonic()
        self._network.train()
        self._tiles, self.steps = [len(tiles.classes) for tiles in sets], [0] * len(sets)
        for number, (phase, tiles) in enumerate(zip(self._phases, sets, strict=True)):
            order = batches(len(tiles.classes), self._arguments.batch, self._generator)
            running = right = seen = 0.0
            while (done := (time.monotonic() - began) / max(deadline - began, 1e-9)) < phase.until:
                loss, accuracy = self._step(tiles, next(order), phase.crop, done)
                self.steps[number] += 1
                running, right, seen = running + loss, right + accuracy, seen + 1
                if seen >= 25:
                    minutes = (time.monotonic() - began) / 60
                    said = f"{minutes:5.1f} min  step {sum(self.steps)}  {100 * done:.0f} %  {phase.crop} px  "
                    print(f"{said}loss {running / seen:.3f}  accuracy {right / seen:.3f}", flush=True)
                    running = right = seen = 0.0
                if time.monotonic() - kept > 60 * self._arguments.checkpoint_minutes:
                    keep(self._mean, self._arguments.checkpoint, self.runs)
                    kept = time.monotonic()
        keep(self._mean, self._arguments.checkpoint, self.runs)
        return self._mean.eval()

    def _step(self, tiles: Tiles, index: np.ndarray[Any, Any], crop: int, done: float) -> tuple[float, float]:
        for group in self._optimiser.param_groups:
            group["lr"] = self._arguments.lr * min(1.0, (done + 1e-3) / 0.04) * 0.5 * (1 + math.cos(math.pi * done))
        target = torch.from_numpy(tiles.classes[index])
        with torch.autocast("cpu", torch.bfloat16, enabled=self._has_bf16):
            logits = self._network(self._augment(tiles.pixels[index], crop))
        loss = self._loss(logits.float(), target)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        self._follow()
        return loss.item(), (logits.argmax(1) == target).float().mean().item()

    @torch.no_grad()
    def _follow(self) -> None:
        """Draw the mean a hundredth of the way to the network as it is; faster in the first steps."""
        share = max(0.01, 1.0 / (sum(self.steps) + 1))
        for mean, now in zip(self._mean.state_dict().values(), self._network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, share)
            else:
                mean.copy_(now)


def confusion(network: nn.Module, tiles: Tiles) -> IntArray:
    """Counts [truth, prediction] of a network in fp32 on whole tiles."""
    table = np.zeros((len(TileClass), len(TileClass)), dtype=np.int64)
    with torch.inference_mode():
        for start in range(0, len(tiles.classes), 32):
            pixels = torch.from_numpy(tiles.pixels[start : start + 32]).permute(0, 3, 1, 2).float() / 255.0
            guesses = network(normalise(pixels)).argmax(1).numpy()
            np.add.at(table, (tiles.classes[start : start + 32], guesses), 1)
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


def card_of(arguments: argparse.Namespace, metrics: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """All that the bundle says of itself."""
    data = "synthetic tiles of her2bridge.synth only; no picture of real tissue, no pathologist's label"
    if arguments.noise_tiles is not None:
        data = "synthetic tiles of her2bridge.synth, and real pictures of glass and pen (histolab, Apache-2.0) as noise"
    return {
        "name": arguments.output.name,
        "version": "1.0.0",
        "license": "GPL-3.0-or-later",
        "intended_use": "Research use only. It assists: it finds and pre-sorts tumour tiles by HER2 staining for a "
        "pathologist to check. It must not be used to judge a patient's tissue.",
        "patch_size_px": SIZE_PX,
        "spacing_um_px": MPP,
        "transform": {"mean": list(MEAN), "std": list(STD), "of": "RGB, uint8 divided by 255"},
        "training": {
            "data": data,
            "label_rule": "A tile's class is the highest pattern on at least 10 % of its tumour area; a tile with less "
            "than 25 % tumour area is normal. Tiles near a border (tumour 17 to 33 %, highest pattern below 12 % of "
            "the tumour) are left out.",
            "runs": runs,
            "optimiser": f"SGD, Nesterov 0.9, cosine over time, batch {arguments.batch}, decay "
            "5e-4, exponential mean 0.99",
            "augmentation": "crops, scale 0.8 to 1.25, quarter turns, flips, stain gains in optical density, blur and "
            "sharpening, JPEG",
            "script": "examples/train_shipped_model.py",
        },
        "metrics": metrics,
        "limits": [
            "Trained on drawings of tissue: figures on synthetic tiles say nothing of accuracy on real slides.",
            "Normal glands, muscle and stroma of real slides may be taken for unstained tumour, or it for them.",
            "Made for membranous HER2 staining, DAB and haematoxylin, gastric adenocarcinoma, 0.25 µm per pixel.",
            "The borders between 0 and 1+ and between 2+ and 3+ are set by the generator, not by a pathologist.",
            "While it was made, five real cores were looked at to make the drawings more like tissue, stain strengths "
            "included, and versions that took muscle for tumour were trained on; no pixel of the cores was trained on, "
            "but figures on them are not those of unseen slides.",
        ],
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parents[1] / "her2bridge" / "model" / "bundles" / "her2-synthetic-gct-2"
    parser.add_argument("--output", type=Path, default=default, help="folder of the bundle; its name is the bundle's")
    parser.add_argument("--minutes", type=float, default=40.0, help="for rendering and training together")
    parser.add_argument("--seed", type=int, default=2022)
    parser.add_argument("--per-class", type=int, default=1500, help="large training tiles of a class of weight 1")
    parser.add_argument("--tiles", type=int, help="the same for all six classes together; for quick tries")
    parser.add_argument("--evaluate-per-class", type=int, default=150)
    parser.add_argument("--noise-tiles", type=Path, metavar="DIR", help="PNGs of glass and pen, added as noise")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--attention", choices=["none", "gct", "se"], default="gct")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    parser.add_argument(
        "--checkpoint", type=Path, default=Path("build/shipped-model.safetensors"), help="kept while training"
    )
    parser.add_argument("--small-until", type=float, default=SMALL.until, help="share of the time on small tiles")
    parser.add_argument("--normal-weight", type=float, default=1.5, help="tiles of normal tissue to one of each other")
    parser.add_argument("--checkpoint-minutes", type=float, default=4.0)
    parser.add_argument("--start-from", type=Path, metavar="CHECKPOINT", help="weights to begin with")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    if arguments.tiles is not None:
        arguments.per_class = max(1, arguments.tiles // len(TileClass))
    attention: Attention = arguments.attention
    torch.manual_seed(arguments.seed)
    began = time.monotonic()
    phases = [phase for phase in (replace(SMALL, until=arguments.small_until), LARGE) if phase.until > 0]
    weights = [arguments.normal_weight if tile_class == TileClass.NORMAL else 1.0 for tile_class in TileClass]
    sets = []
    with ProcessPoolExecutor(arguments.workers, mp_context=get_context("spawn")) as pool:
        for part, phase in enumerate(phases):
            counts = [round(weight * phase.share * arguments.per_class) for weight in weights]
            tiles = render(pool, arguments.seed, part, counts, phase.tile, phase.per_field)
            if arguments.noise_tiles is not None:
                tiles = with_real_noise(tiles, arguments.noise_tiles, np.random.default_rng([arguments.seed, part]))
            sets.append(tiles)
            print(f"{len(tiles.classes)} tiles of {phase.tile} px after {time.monotonic() - began:.0f} s", flush=True)
        unseen = render(pool, arguments.seed, EVALUATION, [arguments.evaluate_per_class] * len(TileClass), SIZE_PX, 2)
        print(f"{len(unseen.classes)} tiles to measure on after {time.monotonic() - began:.0f} s", flush=True)
    network = build(NetworkSpec(attention=attention))
    if arguments.start_from is not None:
        network.load_state_dict(load_file(arguments.start_from))
    trainer = Trainer(network, arguments, phases)
    mean = trainer.run(sets, began + 60 * arguments.minutes)
    metrics = metrics_of(confusion(fuse(mean), unseen), "synthetic tiles of unseen seeds, whole, fused network, fp32")
    card = card_of(arguments, metrics, trainer.runs)
    bundle = save_bundle(arguments.output, mean, card)
    stored = confusion(fuse(bundle.network()), unseen)
    print(json.dumps(metrics, indent=1))
    print(f"as stored in half precision: accuracy {stored.trace() / stored.sum():.4f}")
    print(f"{bundle.path}  sha256 {bundle.sha256[:12]}  {sum(trainer.steps)} steps")


if __name__ == "__main__":
    main()

"""The training loop: any network from pixels to six logits, by a recipe; goes on exactly where it was killed.

What a step does depends on the seed, the epoch, the step and the process alone, never on what random numbers were
drawn before. So a checkpoint need not hold any generator, and a run that was killed and goes on ends with the same bits
as one that was not: on the CPU, with as many processes and threads. GPUs add up in an order of their own.

Channels first: with torch 2.13 on the CPU the backward pass of a strided 1×1 convolution in fp32 and channels last
writes outside its memory. CUDA gets channels last.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from her2bridge.errors import NotEnoughLabels
from her2bridge.events import Emit, EpochFinished, TrainingStarted, to_json
from her2bridge.inference.runtime.torch_runtime import TorchHardware, resolve_device
from her2bridge.records import ByteArray, Float32Array, IntArray, TileClass
from her2bridge.storage import write_atomically
from her2bridge.training import distributed
from her2bridge.training.augment import augment
from her2bridge.training.checkpoint import (
    CHECKPOINT_FILE,
    Place,
    digest_of,
    interrupts_put_off,
    load_checkpoint,
    save_checkpoint,
)
from her2bridge.training.metrics import macro_f1
from her2bridge.training.optimiser import class_weights, groups, own_device, precision_of
from her2bridge.training.progress import ticker
from her2bridge.training.recipes import Recipe
from her2bridge.training.samples import Samples

MEAN, STD = (0.72, 0.68, 0.75), (0.20, 0.22, 0.18)
"""Of RGB of 0–1: what the model that ships is fed."""

METRICS_FILE = "metrics.jsonl"
_SECONDS_BETWEEN_CHECKPOINTS = 180.0
_OF_THE_RUN = 10  # the mean reaches back over a tenth of all steps at most
_STEPS_BETWEEN_QUESTIONS = 16  # whether another process has heard Ctrl-C


@dataclass(frozen=True)
class FitSettings:
    """Where and how, besides the recipe.

    Attributes:
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, fp32 or bf16; auto takes what the recipe and the device say.
        seed: of order and augmentation.
        folder: where checkpoint and ``metrics.jsonl`` are kept; None keeps nothing.
        transform: mean and standard deviation of RGB of 0–1.
        restart: begin anew although there is a checkpoint.
    """

    device: str = "auto"
    precision: str = "auto"
    seed: int = 2022
    folder: Path | None = None
    transform: tuple[tuple[float, float, float], tuple[float, float, float]] = (MEAN, STD)
    restart: bool = False


@dataclass(frozen=True, eq=False)
class Fitted:
    """What came of it.

    Attributes:
        network: on the CPU, in eval mode: the mean over the steps where the recipe keeps one, else the last.
        history: figures of each epoch, as ``EpochFinished`` tells them; None where a figure does not exist. Only the
            first of several processes has it; loss and accuracy are of its part of the tiles.
    """

    network: nn.Module
    history: tuple[dict[str, float | None], ...]


def fit(
    network: nn.Module,
    train: Samples,
    validation: Samples,
    recipe: Recipe,
    *,
    settings: FitSettings | None = None,
    emit: Emit = lambda event: None,
    title: str = "",
) -> Fitted:
    """Train a network that takes normalised RGB, float [b, 3, h, w], and gives logits [b, 6].

    Repeated with the same arguments and folder it goes on where it was stopped, or gives back what it had finished.
    Under torchrun each process takes its part of every batch, and the first one writes and tells.

    Args:
        network: is trained on in a copy.
        validation: measured after each epoch, and decides nothing; may be empty.
        title: names it in events.

    Raises:
        NotEnoughLabels: fewer than two tiles.
        UsageError: a device or precision that cannot be, or a checkpoint of another training.
        KeyboardInterrupt: after the checkpoint has been written.
    """
    if len(train) < 2:
        raise NotEnoughLabels(
            f"There are {len(train)} tiles to train on.",
            where=title or "training",
            next_step="Draw more labelled regions, or give the training split more.",
        )
    settings = settings or FitSettings()
    tell: Emit = emit if distributed.is_first() else lambda event: None
    return _Training(copy.deepcopy(network), train, validation, recipe, settings, tell, title).run()


def logits_of(
    network: nn.Module,
    samples: Samples,
    *,
    device: str = "auto",
    batch_size: int = 32,
    transform: tuple[tuple[float, float, float], tuple[float, float, float]] = (MEAN, STD),
) -> Float32Array:
    """Logits, float32 [n, 6], of a network in eval mode and fp32; it is left as it was."""
    place = resolve_device(device, False, TorchHardware())
    was_training = network.training
    home = next((one.device for one in network.parameters()), torch.device("cpu"))
    network.to(place).eval()
    mean, std = (_planes(values, place) for values in transform)
    found = np.empty((len(samples), len(TileClass)), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(samples), batch_size):
            pixels = np.ascontiguousarray(samples.pixels[start : start + batch_size])
            rgb = _as_rgb(pixels, place)
            found[start : start + len(pixels)] = network((rgb - mean) / std).float().cpu().numpy()
    network.to(home).train(was_training)
    return found


class _Training:
    """One call of ``fit``."""

    def __init__(
        self,
        network: nn.Module,
        train: Samples,
        validation: Samples,
        recipe: Recipe,
        settings: FitSettings,
        tell: Emit,
        title: str,
    ) -> None:
        self._train, self._validation, self._recipe = train, validation, recipe
        self._settings, self._tell, self._title = settings, tell, title
        hardware = TorchHardware()
        self._device = resolve_device(own_device(settings.device), False, hardware)
        self._dtype = precision_of(recipe, settings.precision, self._device, hardware)
        network = network.to(self._device).train()
        if self._device.type == "cuda":
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if distributed.size() > 1:
                network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        self._network = network
        self._mean = copy.deepcopy(network).eval() if recipe.ema is not None else network
        self._optimiser = torch.optim.SGD(
            groups(network, recipe), lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.nesterov
        )
        weight = None if recipe.balance != "loss" else class_weights(train.labels).to(self._device)
        self._loss = nn.CrossEntropyLoss(weight, label_smoothing=recipe.label_smoothing)
        self._batch = max(
            distributed.size(), min(recipe.batch_size, len(train)) // distributed.size() * distributed.size()
        )
        self._steps = max(1, len(train) // self._batch)
        self._place = Place(self._digest())
        self._sums = torch.zeros(2, device=self._device)  # of loss and of tiles found right; of this epoch and process
        self._transform = tuple(_planes(values, self._device) for values in settings.transform)

    def run(self) -> Fitted:
        """All epochs that are left."""
        self._go_on()
        place, recipe = self._place, self._recipe
        counts = len(self._train), len(self._validation)
        name = "bf16" if self._dtype == torch.bfloat16 else "fp32"
        self._tell(
            TrainingStarted(self._title, recipe.name, *counts, place.epoch, recipe.epochs, str(self._device), name)
        )
        forward = self._network
        if distributed.size() > 1:
            forward = DistributedDataParallel(self._network)
        with interrupts_put_off() as is_interrupted, ThreadPoolExecutor(1) as ahead:
            while place.epoch < recipe.epochs:
                self._epoch(forward, ahead, is_interrupted)
                if distributed.any_of(is_interrupted(), self._device):  # while it was measured
                    raise KeyboardInterrupt
        distributed.wait()
        kept = copy.deepcopy(self._mean).to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
        return Fitted(kept, tuple(place.history))

    def _epoch(self, forward: nn.Module, ahead: ThreadPoolExecutor, is_interrupted: Any) -> None:
        place, began, last_kept = self._place, time.monotonic(), time.monotonic()
        title = f"{self._title}, epoch {place.epoch + 1}" if self._title else f"Epoch {place.epoch + 1}"
        tick = ticker(title, self._steps, self._tell)
        for rows, pixels in self._batches(ahead):
            self._step(forward, rows, pixels)
            place.step += 1
            tick(place.step)
            if self._is_asked(place.step) and distributed.any_of(is_interrupted(), self._device):
                self._keep()
                raise KeyboardInterrupt
            if time.monotonic() - last_kept > _SECONDS_BETWEEN_CHECKPOINTS:
                self._keep()
                last_kept = time.monotonic()
        place.epoch, place.step = place.epoch + 1, 0
        if distributed.is_first():
            self._finish_epoch(time.monotonic() - began)
        self._sums.zero_()
        self._keep()

    def _is_asked(self, step: int) -> bool:
        """Whether to ask for Ctrl-C after this step; several processes wait for each other when they do."""
        return distributed.size() == 1 or step % _STEPS_BETWEEN_QUESTIONS == 0

    def _batches(self, ahead: ThreadPoolExecutor) -> Iterator[tuple[IntArray, ByteArray]]:
        """This process's part of each batch that is left; the next one is fetched while one is worked on."""
        order = self._order()
        size, rank = distributed.size(), distributed.rank()

        def fetch(step: int) -> tuple[IntArray, ByteArray]:
            rows = order[step * self._batch : (step + 1) * self._batch][rank::size]
            return rows, np.ascontiguousarray(self._train.pixels[rows])

        steps = range(self._place.step, self._steps)
        waiting = ahead.submit(fetch, steps[0]) if steps else None
        for step in steps:
            assert waiting is not None
            found = waiting.result()
            waiting = ahead.submit(fetch, step + 1) if step + 1 < self._steps else None
            yield found

    def _order(self) -> IntArray:
        """Rows of the epoch, in its order; ``sampler`` draws them, every class equally often."""
        rng = np.random.default_rng([self._settings.seed, self._place.epoch])
        labels = self._train.labels
        if self._recipe.balance != "sampler":
            return rng.permutation(len(labels)).astype(np.int64)
        share = (1 / np.bincount(labels, minlength=len(TileClass)).clip(min=1))[labels]
        return rng.choice(len(labels), len(labels), p=share / share.sum()).astype(np.int64)

    def _step(self, forward: nn.Module, rows: IntArray, pixels: ByteArray) -> None:
        place, device = self._place, self._device
        for group in self._optimiser.param_groups:
            group["lr"] = self._recipe.rate_at(place.epoch + (place.step + 1) / self._steps)
        state = np.random.SeedSequence([self._settings.seed, place.epoch, place.step, distributed.rank()])
        seed = int(state.generate_state(1, np.uint64)[0] >> 1)
        rgb = _as_rgb(pixels, device)
        if self._recipe.augment:
            rgb = augment(rgb, torch.Generator().manual_seed(seed))
        target = _on_device(torch.from_numpy(self._train.labels[rows]), device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)  # for networks with dropout
            with torch.autocast(device.type, torch.bfloat16, enabled=self._dtype == torch.bfloat16):
                logits = forward((rgb - self._transform[0]) / self._transform[1])
            loss = self._loss(logits.float(), target)
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()
        self._optimiser.step()
        self._follow()
        right = (logits.argmax(1) == target).sum()
        self._sums += torch.stack([loss.detach() * len(rows), right])

    @torch.no_grad()
    def _follow(self) -> None:
        """Draw the mean a little way to the network as it is; faster in the first steps, and in short runs."""
        if self._recipe.ema is None:
            return
        done = self._place.epoch * self._steps + self._place.step
        share = max(1 - self._recipe.ema, 1 / (done + 1), min(1.0, _OF_THE_RUN / (self._steps * self._recipe.epochs)))
        for mean, now in zip(self._mean.state_dict().values(), self._network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, share)
            else:
                mean.copy_(now)

    def _finish_epoch(self, seconds: float) -> None:
        """Measure, remember and tell."""
        place, recipe = self._place, self._recipe
        loss, right = (self._sums / (self._steps * self._batch // distributed.size())).tolist()
        seen = _measured(self._mean, self._validation, self._settings, str(self._device))
        event = EpochFinished(
            title=self._title,
            epoch=place.epoch,
            epochs=recipe.epochs,
            learning_rate=recipe.rate_at(place.epoch),
            loss=loss,
            accuracy=right,
            validation_loss=seen[0],
            validation_accuracy=seen[1],
            validation_macro_f1=seen[2],
            seconds=seconds,
            seconds_left=seconds * (recipe.epochs - place.epoch),
        )
        plain = json.loads(to_json(event))
        place.history.append({name: value for name, value in plain.items() if name not in ("type", "title", "epochs")})
        if self._settings.folder is not None:
            lines = "".join(f"{json.dumps(one)}\n" for one in place.history)
            write_atomically(self._settings.folder / METRICS_FILE, lines.encode())
        self._tell(event)

    def _keep(self) -> None:
        if self._settings.folder is not None and distributed.is_first():
            save_checkpoint(self._settings.folder, self._place, self._tensors())

    def _tensors(self) -> dict[str, Tensor]:
        """All that changes from step to step."""
        found = {f"network.{name}": value for name, value in self._network.state_dict().items()}
        if self._mean is not self._network:
            found |= {f"mean.{name}": value for name, value in self._mean.state_dict().items()}
        for name, parameter in self._network.named_parameters():
            momentum = self._optimiser.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                found[f"momentum.{name}"] = momentum
        return {**found, "sums": self._sums}

    def _go_on(self) -> None:
        """Take up the checkpoint, if there is one."""
        folder = self._settings.folder
        if folder is None:
            return
        if self._settings.restart:
            if distributed.is_first():
                (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
            distributed.wait()
        kept = load_checkpoint(folder, self._place.digest)
        if kept is None:
            return
        self._place, tensors = kept

        def part(head: str) -> dict[str, Tensor]:
            return {name.removeprefix(head): value for name, value in tensors.items() if name.startswith(head)}

        self._network.load_state_dict(part("network."))
        if self._mean is not self._network:
            self._mean.load_state_dict(part("mean."))
        momentum = part("momentum.")
        for name, parameter in self._network.named_parameters():
            if name in momentum:
                self._optimiser.state[parameter]["momentum_buffer"] = momentum[name].to(self._device)
        self._sums = tensors["sums"].to(self._device)

    def _digest(self) -> str:
        told = {
            "recipe": asdict(self._recipe),
            "seed": self._settings.seed,
            "transform": self._settings.transform,
            "precision": str(self._dtype),
            "processes": distributed.size(),
        }
        return digest_of(told, self._network, self._train, self._validation)


def _measured(network: nn.Module, samples: Samples, settings: FitSettings, device: str) -> tuple[float, float, float]:
    """Loss, accuracy and macro-F1; NaN where there is nothing to measure on."""
    if not len(samples):
        return math.nan, math.nan, math.nan
    logits = logits_of(network, samples, device=device, transform=settings.transform)
    loss = nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(samples.labels)).item()
    found = logits.argmax(axis=1).astype(np.int64)
    return loss, float((found == samples.labels).mean()), macro_f1(samples.labels, found)


def _as_rgb(pixels: ByteArray, device: torch.device) -> Tensor:
    """uint8 [b, h, w, 3] to RGB of 0–1, float [b, 3, h, w], on the device."""
    return _on_device(torch.from_numpy(pixels), device).permute(0, 3, 1, 2).contiguous().float() / 255.0


def _on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The same there; over pinned memory to a GPU, so that nothing waits."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _planes(values: tuple[float, float, float], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(1, 3, 1, 1)

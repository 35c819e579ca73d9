"""Training's state on disk, so that a run that was killed goes on as if nothing had been."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from her2bridge.errors import UsageError
from her2bridge.storage import write_atomically
from her2bridge.training.samples import Samples

CHECKPOINT_FILE = "checkpoint.safetensors"
_KEY = "fit"
_SAMPLED = 64  # tiles whose pixels are compared


@dataclass
class Place:
    """How far a training is.

    Attributes:
        digest: of all that decides what comes out.
        epoch: whole epochs done.
        step: steps done of the next.
        history: the figures of each epoch done.
    """

    digest: str
    epoch: int = 0
    step: int = 0
    history: list[dict[str, float | None]] = field(default_factory=list)


def save_checkpoint(folder: Path, place: Place, tensors: Mapping[str, torch.Tensor]) -> None:
    """Keep place and tensors, in place of what was kept before.

    Raises:
        WriteFailed: the folder cannot be written; what was kept before is there still.
    """
    plain = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    write_atomically(folder / CHECKPOINT_FILE, save(plain, {_KEY: json.dumps(asdict(place))}))


def load_checkpoint(folder: Path, digest: str) -> tuple[Place, dict[str, torch.Tensor]] | None:
    """What was kept; None where nothing was.

    Raises:
        UsageError: it is of another training, or no checkpoint.
    """
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            place = Place(**json.loads((file.metadata() or {})[_KEY]))
            tensors: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (KeyError, OSError, SafetensorError, TypeError, ValueError) as error:
        raise _refused(path, "cannot be read") from error
    if place.digest != digest:
        raise _refused(path, "is of other tiles, another recipe, seed or network, or of more or fewer processes")
    return place, tensors


def digest_of(told: Mapping[str, Any], network: nn.Module, train: Samples, validation: Samples) -> str:
    """SHA-256 of what decides the outcome of a training; of the pixels, a sample.

    Args:
        told: plain values.
        network: as it starts.
    """
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
    for samples in (train, validation):
        some = np.unique(np.linspace(0, len(samples) - 1, _SAMPLED if len(samples) else 0).astype(np.int64))
        digest.update(f"{samples.pixels.shape}".encode() + samples.labels.tobytes())
        digest.update(np.ascontiguousarray(samples.pixels[some]).tobytes())
    return digest.hexdigest()


def _refused(path: Path, why: str) -> UsageError:
    return UsageError(
        f"There is a checkpoint, and it {why}.",
        where=str(path),
        next_step="Train as you did then, and it goes on; or begin anew with --restart.",
    )


@contextmanager
def interrupts_put_off() -> Iterator[Callable[[], bool]]:
    """Ctrl-C is only noted, for the loop to stop between two steps; a second one is heard at once.

    Yields:
        Whether it was pressed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    heard: list[int] = []
    earlier = signal.getsignal(signal.SIGINT)

    def hear(number: int, frame: FrameType | None) -> None:
        if heard and callable(earlier):
            earlier(number, frame)
        heard.append(number)

    signal.signal(signal.SIGINT, hear)
    try:
        yield lambda: bool(heard)
    finally:
        signal.signal(signal.SIGINT, earlier)

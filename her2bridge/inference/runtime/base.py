"""What a runtime is, and what it must be told; no torch here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

from her2bridge.errors import BundleDamaged
from her2bridge.records import ByteArray, Float32Array
from her2bridge.stopwatch import available_cores

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
RUNTIMES = ("auto", "torch", "openvino")

Key = TypeVar("Key")

_BATCH_SIZES = {"mps": 64, "cuda": 256}
_TILES_A_CORE = 4
_FEWEST = 8


def usual_batch_size(device: str) -> int:
    """Tiles a call that suit a device: ``cpu``, ``cuda:0``, ``mps``.

    A CPU gains nothing by large batches, and the first tiles are there sooner in small ones; but every core needs some.
    """
    kind = device.partition(":")[0]
    return max(_FEWEST, _TILES_A_CORE * available_cores()) if kind == "cpu" else _BATCH_SIZES[kind]


Pending = Callable[[], Float32Array]
"""A batch under way: called once, it waits for the batch's probabilities, float32 [b, 6]."""


class Runtime(Protocol):
    """A network ready to classify tiles on one device; used by one thread.

    Attributes:
        name: library and version, e.g. ``torch 2.13.0``.
        device: ``cpu``, ``cuda:0``, ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16``, as it is run; ``bf16+fp32``: doubtful tiles twice (``SecondLook``).
        depth: how many batches may be under way at once; 1 where starting a batch is computing it.
    """

    name: str
    device: str
    precision: str
    depth: int

    def start(self, tiles: ByteArray) -> Pending:
        """Begin with a batch, as for ``__call__``; the tiles must not be changed until its result has been taken.

        Results are taken in the order in which batches were started, and at most ``depth`` are outstanding.
        """
        ...

    def __call__(self, tiles: ByteArray) -> Float32Array:
        """Probabilities, float32 [b, 6], rows summing to 1, of tiles uint8 [b, size, size, 3], RGB; b may be 0."""
        ...


def classified(batches: Iterable[tuple[Key, ByteArray]], runtime: Runtime) -> Iterator[tuple[Key, Float32Array]]:
    """What each batch came with and its probabilities, in order; the runtime always has as many as it can hold."""
    waiting: deque[tuple[Key, Pending]] = deque()
    for key, tiles in batches:
        waiting.append((key, runtime.start(tiles)))
        if len(waiting) >= runtime.depth:
            first, result = waiting.popleft()
            yield first, result()
    for key, result in waiting:
        yield key, result()


def normalisation(card: Mapping[str, Any]) -> tuple[Float32Array, Float32Array]:
    """Scale and shift, float32 [3] each, that turn RGB of 0–255 into what the network was trained on.

    ``card["transform"]`` holds ``mean`` and ``std`` of RGB divided by 255.

    Raises:
        BundleDamaged: the card holds no such numbers.
    """
    try:
        mean = np.asarray(card["transform"]["mean"], dtype=np.float32)
        std = np.asarray(card["transform"]["std"], dtype=np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise _no_transform(card) from error
    if mean.shape != (3,) or std.shape != (3,) or not (std > 0).all() or not np.isfinite([mean, std]).all():
        raise _no_transform(card)
    scale: Float32Array = (1 / (255 * std)).astype(np.float32)
    shift: Float32Array = (-mean / std).astype(np.float32)
    return scale, shift


def softmax(logits: Float32Array, temperature: float = 1.0) -> Float32Array:
    """Softmax of each row, the logits divided by the bundle's temperature."""
    powers = np.exp((logits - logits.max(axis=1, keepdims=True, initial=-np.inf)) / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)


def first_line(error: BaseException) -> str:
    """A foreign error on a line: its kind, and the beginning of what it says."""
    text = str(error).strip().partition("\n")[0][:120]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _no_transform(card: Mapping[str, Any]) -> BundleDamaged:
    return BundleDamaged(
        "The model's card does not say how pixels are normalised (transform: mean and std, three numbers each).",
        where=f"card.json of {card.get('name', 'the model')}",
        next_step="Use the model bundle as it was published, or train and save it again with her2bridge.",
    )

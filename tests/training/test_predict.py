"""Tiles through the real runtime: each row gets its own tile's probabilities, in bounded batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_evaluations import LABELS, Tile, colour_bundle, coloured

from her2bridge.errors import UsageError
from her2bridge.events import Event, RuntimeChosen, TaskProgress
from her2bridge.inference.runtime.base import Pending
from her2bridge.records import ByteArray, Float32Array
from her2bridge.training import predict
from her2bridge.training.predict import RuntimeSettings, predict_rows, ready

CPU = RuntimeSettings("cpu", "fp32", "torch")


class Counting:
    """A runtime that keeps how many tiles a call had."""

    name, device, precision, depth = "counting", "cpu", "fp32", 2

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.most_under_way = self._under_way = 0

    def __call__(self, tiles: ByteArray) -> Float32Array:
        self.calls.append(len(tiles))
        return np.repeat(tiles[:, 8, 8, :1].astype(np.float32), 6, axis=1)

    def start(self, tiles: ByteArray) -> Pending:
        self._under_way += 1
        self.most_under_way = max(self.most_under_way, self._under_way)

        def result() -> Float32Array:
            self._under_way -= 1
            return self(tiles)

        return result


def test_each_row_gets_its_own_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever order rows are asked for, and however small the blocks are."""
    monkeypatch.setattr(predict, "_BLOCK_BYTES", 5 * 16 * 16 * 3)
    seen = [LABELS[number * 7 % 6] for number in range(9)]
    slides: list[list[Tile]] = [[("0", one) for one in seen], [("0", one) for one in reversed(seen)]]
    dataset = coloured(tmp_path, slides)
    runtime = ready(colour_bundle(tmp_path / "model"), dataset, CPU, lambda event: None)
    rows = np.random.default_rng(0).permutation(18)[:13].astype(np.int64)
    found = predict_rows(runtime, dataset, rows, lambda event: None, batch_size=2, task="x")
    assert [LABELS[one] for one in found.argmax(axis=1)] == [(seen + seen[::-1])[row] for row in rows]
    assert found.dtype == np.float32
    assert found.sum(axis=1) == pytest.approx(1)


def test_batches_and_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict, "_BLOCK_BYTES", 7 * 16 * 16 * 3)
    read: list[int] = []
    of = predict.read_pixels
    monkeypatch.setattr(predict, "read_pixels", lambda dataset, rows: read.append(len(rows)) or of(dataset, rows))
    dataset = coloured(tmp_path, [[("0", "0")] * 14])
    runtime, heard = Counting(), list[Event]()
    predict_rows(runtime, dataset, np.arange(14), heard.append, batch_size=3, task="all of them")
    assert read == [6, 6, 2]
    assert runtime.calls == [3, 3, 3, 3, 2]
    assert runtime.most_under_way == runtime.depth
    last = heard[-1]
    assert isinstance(last, TaskProgress)
    assert (last.task, last.done, last.total) == ("all of them", 14, 14)


def test_no_row(tmp_path: Path) -> None:
    dataset = coloured(tmp_path, [[("0", "0")]])
    none = np.zeros(0, dtype=np.int64)
    assert predict_rows(Counting(), dataset, none, lambda event: None, task="x").shape == (0, 6)


def test_the_runtime_is_told(tmp_path: Path) -> None:
    heard: list[Event] = []
    ready(colour_bundle(tmp_path / "model"), coloured(tmp_path, [[("0", "0")]]), CPU, heard.append)
    assert [type(event) for event in heard] == [RuntimeChosen]


def test_a_model_of_other_tiles_is_refused(tmp_path: Path) -> None:
    dataset = coloured(tmp_path, [[("0", "0")]])
    with pytest.raises(UsageError, match=r"tiles are 16 px at 1 µm/px; the model other sees 32 px at 1 µm/px"):
        ready(colour_bundle(tmp_path / "other", size=32), dataset, CPU, lambda event: None)


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="--batch-size cannot be 0"):
        RuntimeSettings(batch_size=0)

"""How many tiles change their class, and slides their score, when the network computes otherwise than in fp32.

    python benchmarks/precision.py CORES [--tiles 20000] [--candidates openvino-fp32,rounded-bf16] [--device cuda]

The reference is the fused network in torch, eager, fp32 (TF32 off). CORES is the folder ``her2_cores``; to its tiles
come those of drawn slides, all under many grids (``many_tiles.py``). Every candidate sees the same tiles; what it found
is kept in ``--cache``, so a run that was stopped goes on, and candidates can be added one by one. After a change of the
code give ``--anew``. Candidates that this machine or installation lacks are left out, with the reason.

``torch-…`` and ``openvino-…`` are the package's runtimes. ``rounded-…`` is what hardware of that precision does, on any
machine: weights and every map rounded to it, products added up in fp32. torch's own bf16 and fp16 on a CPU that lacks
them are many times slower.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import machine, machine_told, markdown_table, versions, write_json
from many_tiles import Part, at_least, cores, drawn, parts
from network import in_onnx_runtime
from torch import Tensor, nn

from her2bridge.errors import Her2BridgeError
from her2bridge.inference.runtime.base import normalisation, softmax
from her2bridge.inference.runtime.choose import choose_runtime
from her2bridge.inference.runtime.openvino_runtime import OpenVinoRuntime
from her2bridge.inference.runtime.torch_runtime import TorchRuntime
from her2bridge.inference.second_look import doubtful
from her2bridge.model.bundle import Bundle, load_bundle
from her2bridge.model.inference_form import inference_form
from her2bridge.model.repvgg import RepVGG, fuse
from her2bridge.records import ByteArray, Float32Array, SlideScore, Specimen, TileClass
from her2bridge.scoring import Circumstances, score_slide

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
REFERENCE = "reference"
Classify = Callable[[ByteArray], Float32Array]
"""Tiles, uint8 [b, size, size, 3], to probabilities, float32 [b, 6]."""


class Plain:
    """A network that takes normalised planes, in fp32 and eager, as a runtime."""

    def __init__(self, network: nn.Module, bundle: Bundle, device: torch.device, dtype: torch.dtype) -> None:
        self._network = network.eval().to(device, memory_format=torch.channels_last)
        self._scale, self._shift = (
            torch.from_numpy(one).view(1, 3, 1, 1).to(device) for one in normalisation(bundle.card)
        )
        self._device, self._dtype, self._temperature = device, dtype, bundle.temperature

    def __call__(self, tiles: ByteArray) -> Float32Array:
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(tiles)).to(self._device)
            planes = pixels.permute(0, 3, 1, 2).float() * self._scale + self._shift
            logits = self._network(rounded(planes, self._dtype)).float().cpu().numpy()
        return softmax(logits, self._temperature)


def rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    """To the nearest number of that precision, in fp32."""
    return values if dtype == torch.float32 else values.to(dtype).float()


def round_everything(network: RepVGG, dtype: torch.dtype) -> nn.Module:
    """The inference form with the convolutions' weights and all maps rounded; sums, gates and last layer in fp32."""
    form = inference_form(network)

    def to_nearest(_: nn.Module, __: object, output: Tensor) -> Tensor:
        return rounded(output, dtype)

    for block in (*form.body, form.last):
        block.conv.to(dtype).float().register_forward_hook(to_nearest)
    for block in form.body:
        block.register_forward_hook(to_nearest)
        if block.gate is not None:
            block.gate.register_forward_hook(to_nearest)
    return form


def _plain(bundle: Bundle, device: torch.device, precision: str = "fp32") -> Classify:
    dtype = DTYPES[precision]
    network = fuse(bundle.network()) if precision == "fp32" else round_everything(bundle.network(), dtype)
    return Plain(network, bundle, device, dtype)


def _torch(bundle: Bundle, device: torch.device, precision: str) -> Classify:
    if device.type == "cuda":
        return choose_runtime(bundle, str(device), precision, runtime="torch")
    return TorchRuntime(bundle, device, precision)  # also where no hardware has that precision, and the package refuses


def _openvino(bundle: Bundle, device: torch.device, precision: str) -> Classify:
    return OpenVinoRuntime(bundle, precision)


def _onnx(bundle: Bundle, device: torch.device, precision: str) -> Classify:
    return in_onnx_runtime(bundle)


MAKERS: dict[str, Callable[[Bundle, torch.device], Classify]] = {
    f"{name}-{precision}": partial(make, precision=precision)
    for name, make, precisions in (
        ("torch", _torch, ("fp32", "bf16", "fp16")),
        ("rounded", _plain, ("bf16", "fp16")),
        ("openvino", _openvino, ("fp32", "bf16", "fp16")),
        ("onnxruntime", _onnx, ("fp32",)),
    )
    for precision in precisions
}
"""The candidates, by the name that ``--candidates`` takes."""

USUAL = {
    "cpu": "torch-fp32,openvino-fp32,openvino-bf16,rounded-bf16,rounded-fp16",
    "cuda": "torch-fp32,torch-bf16,torch-fp16",
}


@dataclass(frozen=True, eq=False)
class Cache:
    """Probabilities of each candidate and part as files; what one bundle gave."""

    folder: Path
    bundle: Bundle

    def path(self, candidate: str, part: Part) -> Path:
        return self.folder / self.bundle.sha256[:12] / candidate / f"{part.name}.npy"

    def load(self, candidate: str, part: Part) -> Float32Array | None:
        """What the candidate found, float32 [n, 6]; None where it has not seen the part, or of another size."""
        path = self.path(candidate, part)
        found: Float32Array | None = np.load(path) if path.exists() else None
        return found if found is not None and len(found) == len(part.grid) else None

    def store(self, candidate: str, part: Part, found: Float32Array) -> None:
        path = self.path(candidate, part)
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.with_suffix(".part.npy")
        np.save(whole, found)
        whole.replace(path)


def classify_all(classify: Classify, tiles: ByteArray, batch: int = 32) -> Float32Array:
    """Probabilities of n tiles, float32 [n, 6]."""
    found = [classify(tiles[start : start + batch]) for start in range(0, len(tiles), batch)]
    return np.concatenate([np.empty((0, len(TileClass)), dtype=np.float32), *found])


def fill(cache: Cache, wanted: Sequence[Part], ready: dict[str, Classify], anew: bool) -> None:
    """Let every candidate see every part that it has not seen; a part is read once for all of them."""
    taken = dict.fromkeys(ready, 0.0)
    for number, part in enumerate(wanted, 1):
        lacking = [name for name in ready if anew or cache.load(name, part) is None]
        tiles = part.pixels() if lacking else None
        for name in lacking:
            assert tiles is not None
            began = time.perf_counter()
            cache.store(name, part, classify_all(ready[name], tiles))
            taken[name] += time.perf_counter() - began
        if lacking:
            told = ", ".join(f"{name} {taken[name]:.0f} s" for name in lacking)
            print(f"{number} of {len(wanted)} parts: {part.name}, {len(part.grid)} tiles; {told}", flush=True)


def score(bundle: Bundle, part: Part, found: Float32Array) -> SlideScore:
    """What a run would say of the slide, a resection, with these probabilities."""
    read = partial(bundle.whspn.read, kind="mlp") if bundle.whspn is not None else None
    where = Circumstances(specimen=Specimen.RESECTION)
    return score_slide(part.grid, found.argmax(axis=1).astype(np.int64), found, where, read_shares=read)


Seen = tuple[Part, Float32Array, Float32Array]
"""A part and what reference and candidate found, float32 [n, 6] each."""


def compare(cache: Cache, candidate: str, wanted: Sequence[Part]) -> list[dict[str, Any]]:
    """A row from what the cache holds of these parts; for bf16 a second one, with ``SecondLook``'s second look."""
    loaded = [(part, cache.load(REFERENCE, part), cache.load(candidate, part)) for part in wanted]
    seen = [(part, a, b) for part, a, b in loaded if a is not None and b is not None]
    rows = [row_of(cache.bundle, candidate, seen)]
    if candidate.endswith("bf16") and seen:
        twice = [(part, a, np.where(doubtful(b)[:, None], a, b)) for part, a, b in seen]
        rows.append(row_of(cache.bundle, f"{candidate}, doubtful tiles in fp32", twice))
        rows[-1]["doubtful, %"] = 100.0 * float(np.mean(np.concatenate([doubtful(b) for _, _, b in seen])))
    return rows


def row_of(bundle: Bundle, candidate: str, seen: Sequence[Seen]) -> dict[str, Any]:
    """A row: flips by the reference's class, changes of probability, and of scores."""
    if not sum(len(part.grid) for part, _, _ in seen):
        return {"candidate": candidate, "tiles": 0}
    row = flips(candidate, np.concatenate([a for _, a, _ in seen]), np.concatenate([b for _, _, b in seen]))
    scores = [(score(bundle, part, a), score(bundle, part, b)) for part, a, b in seen]
    row["slides × grids"] = len(seen)
    row["scores changed"] = sum(a.score != b.score for a, b in scores)
    row["statuses changed"] = sum(a.status != b.status for a, b in scores)
    row["reviews changed"] = sum(a.review != b.review for a, b in scores)
    row["largest change of H-score"] = max(abs(_h(a) - _h(b)) for a, b in scores)
    return row


def flips(candidate: str, first: Float32Array, second: Float32Array) -> dict[str, Any]:
    """The columns of a row that need tiles alone: probabilities of reference and candidate, float32 [n, 6] each."""
    before, after = first.argmax(axis=1), second.argmax(axis=1)
    changed = before != after
    two = np.sort(first, axis=1)[:, -2:]
    margin = (two[:, 1] - two[:, 0])[changed]
    row: dict[str, Any] = {"candidate": candidate, "tiles": len(before), "flips": int(changed.sum())}
    row["flips, %"] = 100.0 * float(changed.mean())
    for one in TileClass:
        row[one.label] = f"{int(changed[before == one].sum())} of {int((before == one).sum())}"
    row["largest change of a probability"] = float(np.abs(first - second).max())
    row["largest margin of a flip"] = float(margin.max()) if len(margin) else None
    return row


def _h(found: SlideScore) -> float:
    return found.counts.h_score if found.counts.tumour else 0.0


def make_ready(names: Sequence[str], bundle: Bundle, device: torch.device) -> dict[str, Classify]:
    """Reference and candidates; those that cannot be here are told and left out."""
    ready: dict[str, Classify] = {REFERENCE: _plain(bundle, device)}
    for name in names:
        try:
            ready[name] = MAKERS[name](bundle, device)
        except (Her2BridgeError, ImportError, RuntimeError) as error:
            print(f"{name} is left out: {str(error).splitlines()[0]}")
    return ready


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cores", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--tiles", type=int, default=20_000)
    parser.add_argument("--drawn", type=int, default=3, help="how many drawn slides; each takes a minute once")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--candidates", help=f"of {', '.join(MAKERS)}; comma between")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "her2bridge-precision")
    parser.add_argument("--anew", action="store_true", help="leave what the cache holds of the candidates unheeded")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--only-compare", action="store_true", help="compare what the cache holds; compute nothing")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    bundle, device = load_bundle(asked.model), torch.device(asked.device)
    cache = Cache(asked.cache / device.type, bundle)
    pictures = [*cores(asked.cores), *drawn(asked.cache / "drawn", asked.drawn)]
    wanted = at_least(asked.tiles, parts(pictures, bundle.spec))
    names = (asked.candidates or USUAL[device.type]).split(",")
    if not asked.only_compare:
        ready = make_ready(names, bundle, device)
        if asked.anew:
            del ready[REFERENCE]
            fill(cache, wanted, {REFERENCE: _plain(bundle, device)}, anew=False)
        fill(cache, wanted, ready, asked.anew)
        names = [name for name in names if name in ready]
    rows = [row for name in names for row in compare(cache, name, wanted)]
    print(
        f"\n{machine_told(machine())}; {bundle.name} {bundle.sha256[:12]}; reference: torch {torch.__version__} fp32\n"
    )
    print(markdown_table(rows))
    if asked.json:
        write_json(
            asked.json, "precision", rows, versions=versions("torch", "openvino", "onnxruntime"), model=bundle.sha256
        )


if __name__ == "__main__":
    main()

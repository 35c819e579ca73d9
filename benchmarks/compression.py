"""int8 and pruning, tried: speed, class flips, scores and size against the network as it ships.

    python benchmarks/compression.py CORES [--tiles 2000] [--quick] [--json FILE]

All are run by OpenVINO on the CPU, which is needed here. int8 is NNCF's quantisation after training, on 300 tiles of
the left third of each slide; flips are counted on tiles to the right of it. NNCF is no dependency of ours; where it is
missing, int8 is left out. To have it, in a copy of the environment:

    python -m venv NNCF && NNCF/bin/pip install -c constraints.txt nncf==3.4.0 -e '.[openvino]'
    NNCF/bin/python benchmarks/compression.py CORES

Pruned: the smallest weights of each convolution set to zero; or output channels taken out of each block, those of
smallest L1 norm (of the fused kernel) or those that vary least over the calibration's tiles, their mean put into the
next bias; without and with a short training on these tiles, whose labels are what the whole network says of them.

The reference is the fused network in torch, fp32.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import importlib.util
import itertools
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import machine, machine_told, markdown_table, versions, write_json
from many_tiles import Part, Picture, cores, drawn, parts
from network import Call, repeated, some_tiles, take_turns
from precision import Classify, Plain, classify_all, row_of
from torch import nn

from her2bridge.inference.runtime import openvino_runtime
from her2bridge.inference.runtime.base import normalisation, softmax
from her2bridge.inference.runtime.openvino_graph import build_model
from her2bridge.model.attention import GCT
from her2bridge.model.bundle import Bundle, load_bundle
from her2bridge.model.inference_form import inference_form
from her2bridge.model.repvgg import RepVGG, SingleBlock, fuse
from her2bridge.records import ByteArray, Float32Array, IntArray, TileSpec
from her2bridge.slides import open_slide
from her2bridge.training.fit import FitSettings, fit
from her2bridge.training.recipes import MODERN
from her2bridge.training.samples import Samples

GATES = [
    "ReduceL2",
    "ReduceMean",
    "ReduceSum",
    "MatMul",
    "Multiply",
    "Add",
    "Sqrt",
    "Power",
    "Divide",
    "Tanh",
    "Sigmoid",
]
"""OpenVINO's operations of gates, pooling and last layer; not of convolutions."""
LEFT = 1 / 3
"""The part of each slide that calibration and training may see."""
TO_TRAIN = dataclasses.replace(
    MODERN,
    name="after pruning",
    epochs=2,
    batch_size=16,
    learning_rate=1e-3,
    warmup_epochs=0.1,
    ema=None,
    balance="none",
)


@dataclass(frozen=True, eq=False)
class Variant:
    """A compressed network.

    Attributes:
        name: its row.
        model: OpenVINO's, from pixels to logits.
        note: what it took.
    """

    name: str
    model: Any
    note: str = ""


def by_side(pictures: Sequence[Picture], spec: TileSpec, *, left: bool, every: int = 1) -> Iterator[Part]:
    """Parts with only the tiles wholly in the left third of the slide, or only those right of it; of these each nth."""
    widths = {}
    for picture in pictures:
        with open_slide(picture.source) as slide:
            widths[picture.source.path] = slide.size[0]
    for part in parts(pictures, spec):
        x = part.grid.origins()[:, 0] - part.shift[0]
        border = widths[part.source.path] * LEFT
        kept = np.array(x + part.grid.side <= border if left else x >= border)
        kept[np.arange(len(kept)) % every != 0] = False
        yield dataclasses.replace(part, grid=part.grid.only(kept), name=f"{part.name}-{'left' if left else 'right'}")


def to_calibrate(pictures: Sequence[Picture], spec: TileSpec, count: int) -> ByteArray:
    """``count`` tiles of the left thirds, as many of each slide as it has, uint8 [count, size, size, 3]."""
    found: list[ByteArray] = []
    a_slide = math.ceil(count / len(pictures))
    for part in itertools.islice(by_side(pictures, spec, left=True), 8 * len(pictures)):
        rows = np.linspace(0, len(part.grid) - 1, min(a_slide, len(part.grid))).astype(np.int64)
        wanted = np.zeros(len(part.grid), dtype=bool)
        wanted[rows] = True
        if len(rows):
            found.append(dataclasses.replace(part, grid=part.grid.only(wanted)).pixels())
        if sum(map(len, found)) >= count:
            break
    return np.concatenate(found)[:count]


def to_openvino(network: RepVGG, bundle: Bundle) -> Any:
    """The graph that the package's runtime builds, one tile a call."""
    shape = (1, bundle.spec.size_px)
    numbers = inference_form(network).numbers()
    return build_model(openvino_runtime._openvino(), numbers, normalisation(bundle.card), shape)


def compiled(model: Any, bundle: Bundle) -> Classify:
    """The model as the package runs it: every core has tiles of its own. In fp32 where it is not quantised."""
    library = openvino_runtime._openvino()
    hints = {**openvino_runtime._SETTINGS, "INFERENCE_PRECISION_HINT": "f32"}
    ready = library.Core().compile_model(model, "CPU", hints)
    queue = library.AsyncInferQueue(ready, 2 * ready.get_property("NUM_STREAMS"))

    def classify(tiles: ByteArray) -> Float32Array:
        logits = np.empty((len(tiles), 6), dtype=np.float32)

        def keep(request: Any, number: int) -> None:
            logits[number] = request.get_output_tensor().data[0]

        queue.set_callback(keep)
        for number in range(len(tiles)):
            queue.start_async([tiles[number : number + 1]], number)
        queue.wait_all()
        return softmax(logits, bundle.temperature)

    return classify


def file_mb(model: Any) -> float:
    """The weights as OpenVINO saves them, floats as fp16."""
    with tempfile.TemporaryDirectory() as folder:
        openvino_runtime._openvino().save_model(model, Path(folder) / "model.xml")
        return (Path(folder) / "model.bin").stat().st_size / 1e6


def quantised(bundle: Bundle, tiles: ByteArray) -> Iterator[Variant]:
    """int8 by NNCF: all that it would quantise, and the convolutions alone."""
    if importlib.util.find_spec("nncf") is None:
        print("int8 is left out: NNCF is not installed (see --help).")
        return
    openvino_runtime._openvino()  # without telemetry, before NNCF imports it
    import nncf

    data = nncf.Dataset([tiles[n : n + 1] for n in range(len(tiles))])
    mixed = partial(nncf.quantize, preset=nncf.QuantizationPreset.MIXED, subset_size=len(tiles))
    kinds = {
        "everything": mixed,
        "but for the gates": partial(mixed, ignored_scope=nncf.IgnoredScope(types=GATES, validate=False)),
    }
    for name, quantise in kinds.items():
        began = time.perf_counter()
        model = quantise(to_openvino(fuse(bundle.network()), bundle), data)
        took = f"{len(tiles)} tiles, {time.perf_counter() - began:.0f} s"
        yield Variant(f"int8 by NNCF, {name}", model, took)


def blocks_of(network: RepVGG) -> list[SingleBlock]:
    """The blocks of a fused network, in order."""
    return [block for block in network.stages.modules() if isinstance(block, SingleBlock)]


def without_small_weights(network: RepVGG, share: float) -> RepVGG:
    """The fused network with that share of each convolution's weights, the smallest, set to zero."""
    fused = fuse(network)
    with torch.no_grad():
        for block in blocks_of(fused):
            weight = block.conv.weight
            smallest = weight.abs().flatten().argsort()[: round(share * weight.numel())]
            weight.view(-1)[smallest] = 0.0
    return fused


@dataclass(frozen=True, eq=False)
class Maps:
    """Mean and standard deviation of a block's output over the calibration's tiles, by channel, float32 [c] each."""

    mean: torch.Tensor
    deviation: torch.Tensor


def maps_of(network: RepVGG, tiles: ByteArray, bundle: Bundle) -> list[Maps]:
    """Of every block of the fused network, in order."""
    fused, seen = fuse(network), []  # type: ignore[var-annotated]

    def look(_: nn.Module, __: object, output: torch.Tensor) -> None:
        seen.append(torch.stack([output.mean(dim=(0, 2, 3)), output.square().mean(dim=(0, 2, 3))]))

    blocks = blocks_of(fused)
    for block in blocks:
        block.register_forward_hook(look)
    run = Plain(fused, bundle, torch.device("cpu"), torch.float32)
    for start in range(0, len(tiles) // 4 * 4, 4):
        run(tiles[start : start + 4])
    moments = [torch.stack(seen[number :: len(blocks)]).mean(dim=0) for number in range(len(blocks))]
    return [Maps(first, (second - first.square()).clamp(min=0).sqrt()) for first, second in moments]


def without_small_channels(network: RepVGG, share: float, maps: Sequence[Maps], *, by: str = "L1") -> RepVGG:
    """The fused network with that share of every block's output channels taken out: those whose kernel's L1 norm, or
    whose ``variation`` over the calibration's tiles, is least. Fused blocks are a chain, so the next block only loses
    inputs; what those were on average goes into its bias."""
    fused = fuse(network)
    blocks = blocks_of(fused)
    inputs: torch.Tensor | None = None
    with torch.no_grad():
        for block, its_maps, before in zip(blocks, maps, [None, *maps[:-1]], strict=True):
            conv = block.conv
            keeps = max(8, round(conv.out_channels * (1 - share) / 8) * 8)  # vector units want multiples
            size = conv.weight.abs().sum(dim=(1, 2, 3)) if by == "L1" else its_maps.deviation
            kept = size.argsort(descending=True)[:keeps].sort().values
            if before is not None:
                conv.bias += conv.weight.sum(dim=(2, 3)) @ _lost(before.mean, inputs)  # type: ignore[operator]
            block.conv = _cut(conv, kept, inputs)
            block.attention = _cut_attention(block.attention, kept, conv.out_channels)
            inputs = kept
        head = nn.Linear(len(inputs), fused.head.out_features)  # type: ignore[arg-type]
        head.weight.copy_(fused.head.weight[:, inputs])
        head.bias.copy_(fused.head.bias + fused.head.weight @ _lost(maps[-1].mean, inputs))
        fused.head = head
    return fused


def _lost(mean: torch.Tensor, kept: torch.Tensor | None) -> torch.Tensor:
    """The means of the channels that are no longer there; zero for those that are."""
    lost = mean.clone()
    lost[kept] = 0.0
    return lost


def _cut(conv: nn.Conv2d, kept: torch.Tensor, inputs: torch.Tensor | None) -> nn.Conv2d:
    weight = conv.weight[kept] if inputs is None else conv.weight[kept][:, inputs]
    cut = nn.Conv2d(weight.shape[1], weight.shape[0], 3, conv.stride, padding=1)
    cut.weight.copy_(weight)
    cut.bias.copy_(conv.bias[kept])  # type: ignore[union-attr,index]
    return cut


def _cut_attention(attention: nn.Module, kept: torch.Tensor, before: int) -> nn.Module:
    if isinstance(attention, nn.Identity):
        return attention
    if not isinstance(attention, GCT):
        raise SystemExit("Channels are taken out of networks with GCT or without attention only.")
    cut = copy.deepcopy(attention)
    for name in ("alpha", "gamma", "beta"):
        setattr(cut, name, nn.Parameter(getattr(attention, name)[:, kept].clone()))
    # The mean over channels is now one over fewer: what was left out was small, so the sum is as before.
    cut.gamma.mul_(math.sqrt(before / len(kept)))
    return cut


def trained_on(network: RepVGG, tiles: ByteArray, labels: IntArray, bundle: Bundle) -> RepVGG:
    """The network after a few passes over the tiles."""
    transform = bundle.card["transform"]
    settings = FitSettings(device="cpu", transform=(tuple(transform["mean"]), tuple(transform["std"])))
    nothing = Samples(tiles[:0], labels[:0])
    with torch.enable_grad():
        found = fit(network, Samples(tiles, labels), nothing, TO_TRAIN, settings=settings).network
    assert isinstance(found, RepVGG)
    return found


def pruned(bundle: Bundle, tiles: ByteArray, reference: Classify, asked: argparse.Namespace) -> Iterator[Variant]:
    """Both kinds, at each level, and with training."""
    for share in asked.zeros:
        model = to_openvino(without_small_weights(bundle.network(), share), bundle)
        yield Variant(f"{share:.0%} of the weights zero", model)
    labels = classify_all(reference, tiles).argmax(axis=1).astype(np.int64) if asked.channels else np.empty(0)
    maps = maps_of(bundle.network(), tiles, bundle) if asked.channels else []
    for share in asked.channels:
        for by in ("L1", "variation"):
            small = without_small_channels(bundle.network(), share, maps, by=by)
            yield Variant(f"{share:.0%} fewer channels, by {by}", to_openvino(small, bundle))
        if not asked.no_training:
            began = time.perf_counter()
            small = trained_on(small, tiles, labels, bundle)
            took = f"{TO_TRAIN.epochs} × {len(tiles)} tiles, {time.perf_counter() - began:.0f} s"
            yield Variant(f"{share:.0%} fewer channels, by {by}, trained on", to_openvino(small, bundle), took)


def parsed() -> argparse.Namespace:
    def shares(text: str) -> list[float]:
        return [float(one) / 100 for one in text.split(",") if one]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cores", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--tiles", type=int, default=2_000, help="on which flips are counted")
    parser.add_argument("--every", type=int, default=1, help="of a slide's tiles look at each nth only")
    parser.add_argument("--calibration", type=int, default=300, help="tiles for int8 and for training after pruning")
    parser.add_argument("--drawn", type=int, default=1, help="how many drawn slides; each takes a minute once")
    parser.add_argument("--zeros", type=shares, default="10,20,30,40,50", help="%% of weights; comma between")
    parser.add_argument("--channels", type=shares, default="10,20,30", help="%% of channels; comma between")
    parser.add_argument("--no-training", action="store_true")
    parser.add_argument("--quick", action="store_true", help="300 tiles, 40 for calibration, fewer levels, no training")
    parser.add_argument("--batch", type=int, default=32, help="of the timing")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn of the timing, at least")
    parser.add_argument("--rounds", type=int, default=5, help="turns")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "her2bridge-precision")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.quick:
        asked.tiles, asked.calibration, asked.no_training = min(asked.tiles, 300), min(asked.calibration, 40), True
        asked.zeros, asked.channels, asked.rounds = asked.zeros[-1:], asked.channels[:1], 3
    return asked


def main() -> None:
    asked = parsed()
    if not openvino_runtime.is_installed():
        raise SystemExit("OpenVINO is not installed: pip install 'her2bridge[openvino]'")
    if asked.threads:
        torch.set_num_threads(asked.threads)
    bundle = load_bundle(asked.model)
    pictures = [*cores(asked.cores), *drawn(asked.cache / "drawn", asked.drawn)]
    reference = Plain(fuse(bundle.network()), bundle, torch.device("cpu"), torch.float32)
    calibration = to_calibrate(pictures, bundle.spec, asked.calibration)
    variants = [Variant("fp32", to_openvino(fuse(bundle.network()), bundle))]
    variants += [*quantised(bundle, calibration), *pruned(bundle, calibration, reference, asked)]
    ready = [compiled(one.model, bundle) for one in variants]
    found = look(by_side(pictures, bundle.spec, left=False, every=asked.every), [reference, *ready], asked.tiles)
    tiles = some_tiles(asked.batch)
    calls: list[Call] = [repeated(one, tiles) for one in ready]
    speeds = take_turns(calls, asked.batch, asked.seconds, asked.rounds)
    rows = []
    for number, (variant, speed) in enumerate(zip(variants, speeds, strict=True), 1):
        head = {"tiles/s": speed, "times fp32": speed / speeds[0], "file, MB": file_mb(variant.model)}
        row = row_of(bundle, variant.name, [(part, results[0], results[number]) for part, results in found])
        rows.append({"candidate": row.pop("candidate"), **head, **row, "took": variant.note})
    print(f"\n{machine_told(machine())}; batch {asked.batch}; {bundle.name} {bundle.sha256[:12]}\n")
    print(markdown_table(rows))
    if asked.json:
        write_json(asked.json, "compression", rows, versions=versions("torch", "openvino", "nncf"), batch=asked.batch)


def look(found: Iterator[Part], ready: Sequence[Classify], tiles: int) -> list[tuple[Part, list[Any]]]:
    """Parts that hold as many tiles, and what each classifier finds on them."""
    seen: list[tuple[Part, list[Any]]] = []
    done = 0
    while done < tiles:
        part = next(found)
        if len(part.grid):
            pixels = part.pixels()
            seen.append((part, [classify_all(one, pixels) for one in ready]))
            done += len(part.grid)
            print(f"{part.name}: {done} of {tiles} tiles", flush=True)
    return seen


if __name__ == "__main__":
    main()

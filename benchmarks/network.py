"""Tiles a second of the network alone: forms × attention × precision × runtime × batch, and the paper's peers.

    python benchmarks/network.py [--quick] [--device cuda] [--seconds 0.5] [--compile] [--peers] [--json FILE]

Weights are random, with batch norm's statistics of random tiles, so that no value dies away or overflows. Every path
starts from uint8 tiles: the plain forms from a tensor that lies on the device already, the package's runtimes from
the host's memory, with transfer and softmax. Paths of one batch take turns, so that what else the machine does slows
all of them alike; a figure is the median over the turns. TF32 is off.

The last columns compare with the fastest path *without* attention in the same precision, at ``--compare-at``. The
ceiling is what the machine reaches in a large matrix product of that precision, in tiles.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import machine, machine_told, markdown_table, median, versions, write_json
from torch import Tensor, nn

from her2bridge.errors import Her2BridgeError
from her2bridge.experiments.peers import PEERS, build_peer
from her2bridge.inference.onnx_export import export_onnx
from her2bridge.inference.runtime import openvino_runtime
from her2bridge.inference.runtime.base import Runtime, classified, normalisation
from her2bridge.inference.runtime.choose import choose_runtime
from her2bridge.inference.runtime.torch_runtime import TorchHardware
from her2bridge.model.attention import GCT, Attention
from her2bridge.model.bundle import Bundle, load_bundle, save_bundle
from her2bridge.model.inference_form import PixelForm
from her2bridge.model.repvgg import NetworkSpec, RepVGG, build, count_multiply_adds, count_parameters, fuse
from her2bridge.records import ByteArray

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
ATTENTIONS: tuple[Attention, ...] = ("none", "gct", "se")
SIZE = 256
Call = Callable[[int], object]
"""Classifies one batch so many times, and returns when all are done."""


class FromPixels(nn.Module):
    """Any network with the normalisation of pixels in front: uint8 [b, h, w, 3] to its logits."""

    def __init__(
        self, network: nn.Module, card: Mapping[str, Any], dtype: torch.dtype, form: torch.memory_format
    ) -> None:
        super().__init__()
        scale, shift = (torch.from_numpy(one).view(1, 3, 1, 1) for one in normalisation(card))
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.network = network.eval().to(dtype=dtype, memory_format=form)
        self.dtype, self.form = dtype, form

    def forward(self, pixels: Tensor) -> Tensor:
        planes = pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift
        return torch.as_tensor(self.network(planes.to(dtype=self.dtype, memory_format=self.form)))


@dataclass(frozen=True, eq=False)
class Way:
    """A way to compute a network: its place in the table, and what makes it ready for tiles uint8 [b, 256, 256, 3]."""

    path: str
    precision: str
    attention: str
    ready: Callable[[ByteArray], Call]


def random_bundle(attention: Attention, folder: Path) -> Bundle:
    """A0 with random weights whose maps neither die away nor grow, saved, so that the runtimes can open it."""
    torch.manual_seed(7)
    network = build(NetworkSpec(attention=attention)).train()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = 1.0
        for module in network.modules():
            if isinstance(module, GCT):
                module.gamma.normal_(0.0, 0.3)
                module.beta.normal_(0.0, 0.3)
        network(torch.randn(4, 3, SIZE, SIZE))
    for norm in norms:
        norm.momentum = 0.1
    card = {key: value for key, value in load_bundle().card.items() if key not in ("hashes", "whspn")}
    return save_bundle(folder / attention, network.eval(), {**card, "name": f"random-{attention}"})


def on_device(module: nn.Module, device: torch.device, tiles: ByteArray) -> Call:
    """Eager or compiled, on tiles that lie on the device already."""
    placed, pixels = module.to(device), torch.from_numpy(tiles).to(device)

    def call(times: int) -> None:
        with torch.inference_mode():
            for _ in range(times):
                placed(pixels)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return call


def through(runtime: Runtime, tiles: ByteArray) -> Call:
    """A runtime with as many batches under way as it takes, as the engine uses it."""

    def call(times: int) -> None:
        for _ in classified(((None, tiles) for _ in range(times)), runtime):
            pass

    return call


def in_openvino(module: nn.Module, tiles: ByteArray) -> Call:
    """What OpenVINO makes of a plain form, in fp32."""
    library = openvino_runtime._openvino()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        model = library.convert_model(module.eval(), example_input=torch.zeros((2, SIZE, SIZE, 3), dtype=torch.uint8))
    model.reshape([-1, SIZE, SIZE, 3])
    hints = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = library.Core().compile_model(model, "CPU", hints)
    return repeated(compiled, tiles)


def in_onnx_runtime(bundle: Bundle) -> Callable[[ByteArray], Any]:
    """The network as we export it, in ONNX Runtime on the CPU: tiles to probabilities.

    Raises:
        UsageError: onnx or ONNX Runtime is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        content = export_onnx(bundle, Path(folder) / "network.onnx").path.read_bytes()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda tiles: session.run(None, {"pixels": np.ascontiguousarray(tiles)})[0]


def repeated(classify: Callable[[ByteArray], object], tiles: ByteArray) -> Call:
    """One batch after the other."""
    return lambda times: [classify(tiles) for _ in range(times)]


def paths(bundle: Bundle, attention: str, device: torch.device, precision: str, compiles: bool) -> Iterable[Way]:
    """All ways to compute a bundle's network on the device in that precision; those that cannot be are left out."""
    dtype, card = DTYPES[precision], bundle.card
    last, first = torch.channels_last, torch.contiguous_format

    def plain(path: str, network: RepVGG, form: torch.memory_format) -> Way:
        module = FromPixels(network, card, dtype, form)
        return Way(path, precision, attention, partial(on_device, module, device))

    yield plain("torch, training form", bundle.network(), first)
    yield plain("torch, training form, channels last", bundle.network(), last)
    yield plain("torch, fused", fuse(bundle.network()), first)
    yield plain("torch, fused, channels last", fuse(bundle.network()), last)
    scale, shift = (torch.from_numpy(one) for one in normalisation(card))
    form = PixelForm(bundle.network(), scale, shift, dtype)
    yield Way("torch, inference form", precision, attention, partial(on_device, form, device))
    if compiles:
        compiled = torch.compile(PixelForm(bundle.network(), scale, shift, dtype))
        yield Way("torch compiled, inference form", precision, attention, partial(on_device, compiled, device))
    if device.type == "cpu" and precision == "fp32" and openvino_runtime.is_installed():
        module = FromPixels(fuse(bundle.network()), card, dtype, first)
        yield Way("OpenVINO, fused, as it converts", precision, attention, partial(in_openvino, module))
    if device.type == "cpu" and precision == "fp32":
        with suppress(Her2BridgeError):  # not installed
            yield Way("ONNX Runtime, as exported", precision, attention, partial(repeated, in_onnx_runtime(bundle)))
    for name in ("torch", "openvino") if device.type == "cpu" else ("torch",):
        with suppress(Her2BridgeError, ImportError):  # not installed, or not in that precision
            runtime = choose_runtime(bundle, str(device), precision, runtime=name)
            title = "OpenVINO" if name == "openvino" else name
            yield Way(f"her2bridge by {title}", precision, attention, partial(through, runtime))


def take_turns(calls: Sequence[Call], tiles: int, seconds: float, rounds: int) -> list[float]:
    """Tiles a second of each call: the median over the rounds, in each of which every call has its turn."""
    times = []
    for call in calls:
        call(1)
        began = time.perf_counter()
        call(2)
        times.append(max(1, math.ceil(2 * seconds / (time.perf_counter() - began))))
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, often, speeds in zip(calls, times, found, strict=True):
            began = time.perf_counter()
            call(often)
            speeds.append(often * tiles / (time.perf_counter() - began))
    return [median(speeds) for speeds in found]


def some_tiles(count: int) -> ByteArray:
    """Noise about a colour; what tiles show does not matter for speed."""
    random = np.random.default_rng(0)
    return random.integers(90, 240, (count, SIZE, SIZE, 3), dtype=np.uint8)


def ceiling(device: torch.device, precision: str, seconds: float) -> float:
    """Multiply–adds a second of a large matrix product, in tiles of the fused network; best of the turns."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(side, side, device=device, dtype=DTYPES[precision]) for _ in range(2))

    def call(times: int) -> None:
        for _ in range(times):
            torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    products = max(take_turns([call], 1, seconds, 1)[0] for _ in range(3))
    network = fuse(build(NetworkSpec(attention="none")))
    return products * side**3 / count_multiply_adds(network, SIZE)


def measure(ways: Sequence[Way], batches: Sequence[int], asked: argparse.Namespace) -> list[dict[str, Any]]:
    """A row a path, a column a batch."""
    rows: list[dict[str, Any]] = [
        {"path": one.path, "precision": one.precision, "attention": one.attention} for one in ways
    ]
    for batch in batches:
        tiles = some_tiles(batch)
        speeds = take_turns([one.ready(tiles) for one in ways], batch, asked.seconds, asked.rounds)
        for row, speed in zip(rows, speeds, strict=True):
            row[column(batch)] = speed
        told = max(zip(speeds, ways, strict=True), key=lambda pair: pair[0])
        print(f"batch {batch}: fastest {told[1].path}, {told[1].attention}, {told[0]:.1f} tiles/s", flush=True)
    return rows


def column(batch: int) -> str:
    return f"batch {batch}, tiles/s"


def compare(rows: list[dict[str, Any]], at: int, ceilings: Mapping[str, float]) -> None:
    """Adds how much longer a tile takes than without attention, and the share of the ceiling, at one batch."""
    for row in rows:
        alike = [one for one in rows if one["precision"] == row["precision"] and one["attention"] == "none"]
        speed = row[column(at)]
        if row["attention"] != "none":
            own = next(one[column(at)] for one in alike if one["path"] == row["path"])
            row["over the same path without, %"] = 100.0 * (own / speed - 1.0)
            row["over the fastest without, %"] = 100.0 * (max(one[column(at)] for one in alike) / speed - 1.0)
        row["of the ceiling, %"] = 100.0 * speed / ceilings[row["precision"]]


def peers(device: torch.device, asked: argparse.Namespace, bundles: Mapping[str, Bundle]) -> list[dict[str, Any]]:
    """The paper's peers and ours, fp32, batches 1 and 32, in eager torch (the better layout of two) and in OpenVINO."""
    card = bundles["gct"].card
    networks: dict[str, nn.Module] = {name: build_peer(name, 6).eval() for name in PEERS}
    for attention in ("gct", "se", "none"):
        title = f"RepVGG-A0 {'without attention' if attention == 'none' else attention.upper()}"
        networks[title] = fuse(bundles[attention].network())
    rows: list[dict[str, Any]] = []
    for name, network in networks.items():
        size = count_parameters(network), count_multiply_adds(network, SIZE)
        rows.append({"network": name, "parameters, M": size[0] / 1e6, "multiply–adds, G": size[1] / 1e9})
    makers = {
        "torch NCHW": lambda one: partial(
            on_device, FromPixels(one, card, torch.float32, torch.contiguous_format), device
        ),
        "torch channels last": lambda one: partial(
            on_device, FromPixels(one, card, torch.float32, torch.channels_last), device
        ),
    }
    if device.type == "cpu" and openvino_runtime.is_installed():
        makers["OpenVINO"] = lambda one: partial(
            in_openvino, FromPixels(one, card, torch.float32, torch.contiguous_format)
        )
    for title, make in makers.items():
        for batch in asked.batches or ((1, 8) if asked.quick else (1, 32)):
            print(f"{title}, batch {batch}", flush=True)
            tiles = some_tiles(batch)
            speeds = take_turns([make(one)(tiles) for one in networks.values()], batch, asked.seconds, asked.rounds)
            for row, speed in zip(rows, speeds, strict=True):
                row[f"{title}, batch {batch}, tiles/s"] = speed
    return rows


def parsed() -> argparse.Namespace:
    def counts(text: str) -> list[int]:
        return [int(one) for one in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="batches 1 and 8, short turns")
    parser.add_argument("--batches", type=counts, help="comma between; default 1,8,32,64 and on CUDA 256; peers 1,32")
    parser.add_argument("--compare-at", type=int, help="batch of the last columns; default 32, on CUDA 256")
    parser.add_argument("--attentions", default="none,gct,se", help="of none, gct, se; none is always measured")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a turn, at least")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each path")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile as well; on the CPU it needs a C++ compiler"
    )
    parser.add_argument(
        "--peers", action="store_true", help="the networks that the paper compares with, and nothing else"
    )
    parser.add_argument("--threads", type=int, help="of torch; OpenVINO takes what cores it may use")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.quick:
        asked.seconds, asked.rounds = min(asked.seconds, 0.2), min(asked.rounds, 3)
    return asked


def precisions(device: torch.device) -> list[str]:
    """What the device is good at."""
    hardware = TorchHardware()
    if device.type == "cuda":
        return ["fp32", "fp16", *(["bf16"] if hardware.cuda_has_bf16(device.index or 0) else [])]
    return ["fp32", *(["bf16"] if hardware.cpu_has_bf16() else [])]


def main() -> None:
    asked = parsed()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    device = torch.device(asked.device)
    usual = [1, 8] if asked.quick else [1, 8, 32, 64, *([256] if device.type == "cuda" else [])]
    batches = asked.batches or usual
    at = asked.compare_at or (max(batches) if device.type == "cuda" or 32 not in batches else 32)
    wanted = [one for one in ATTENTIONS if one == "none" or asked.peers or one in asked.attentions.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        bundles = {attention: random_bundle(attention, Path(folder)) for attention in wanted}
        if asked.peers:
            name, rows = "peers", peers(device, asked, bundles)
        else:
            name = "network"
            ceilings = {one: ceiling(device, one, asked.seconds) for one in precisions(device)}
            ways = [
                way
                for precision in ceilings
                for attention, bundle in bundles.items()
                for way in paths(bundle, attention, device, precision, asked.compile)
            ]
            rows = measure(ways, batches, asked)
            compare(rows, at, ceilings)
            told = ", ".join(f"{one} {value:,.0f} tiles/s" for one, value in ceilings.items())
            print(f"\nMatrix product, as tiles: {told}. The last columns: batch {at}.")
    print(f"\n{machine_told(machine())}; torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print(markdown_table(rows))
    if asked.json:
        found = versions("torch", "torchvision", "openvino", "onnxruntime")
        write_json(asked.json, name, rows, versions=found, threads=torch.get_num_threads(), compared_at=at)


if __name__ == "__main__":
    main()

"""What a GPU makes of the network: its ceilings, and every way of ours to come near them.

    python benchmarks/gpu.py [--batches 64 256 1024] [--compile] [--json FILE]     on a CUDA device, some minutes
    python benchmarks/gpu.py --device cpu --quick                                  to see that it runs

Ceilings: a large matrix product expressed in tiles of 3.553 GFLOP, and pinned memory copied to the device. Ways: the
inference form launched kernel by kernel, recorded as a graph, with Triton's kernels, compiled; on normalised planes
that lie on the device. ``runtime`` is what the engine uses: from the host's uint8 tiles to its probabilities. Random
weights and tiles: the speed does not depend on them. ``benchmarks/network.py`` compares with other forms and peers.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from bench import machine, machine_told, markdown_table, median_seconds, versions, write_json
from torch import nn

from her2bridge.inference.runtime.base import Pending, Runtime
from her2bridge.inference.runtime.cuda_device import CudaDevice, triton_form
from her2bridge.inference.runtime.cuda_runtime import CudaRuntime
from her2bridge.inference.runtime.torch_runtime import DTYPES, TorchRuntime
from her2bridge.model.attention import Attention
from her2bridge.model.inference_form import inference_form
from her2bridge.model.repvgg import NetworkSpec, build
from her2bridge.records import TileSpec

GFLOP_A_TILE = 3.553
SIZE = 256
ATTENTIONS: tuple[Attention, ...] = ("none", "gct", "se")
CARD = {"name": "random", "transform": {"mean": [0.7, 0.65, 0.6], "std": [0.2, 0.2, 0.2]}}
Row = dict[str, Any]


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(call: Callable[[], object], amount: float, device: torch.device, repeats: int) -> float:
    """Amount a second, the median of ``repeats`` turns of ten calls (one on the CPU)."""
    calls = 10 if device.type == "cuda" else 1

    def turn() -> None:
        for _ in range(calls):
            call()
        wait(device)

    return calls * amount / median_seconds(turn, repeats)


def ceilings(device: torch.device, precision: str, repeats: int, side: int) -> list[Row]:
    """The matrix product's rate in tiles, and that of copying tiles to the device."""
    random = torch.Generator(device).manual_seed(1)
    a, b = (torch.randn((side, side), generator=random, device=device).to(DTYPES[precision]) for _ in range(2))
    tflops = rate(lambda: a @ b, 2 * side**3 / 1e12, device, repeats)
    rows = [{"what": f"matrix product {side}³", "precision": precision, "tiles/s": tflops * 1e3 / GFLOP_A_TILE}]
    rows[0]["TFLOP/s"] = tflops
    if device.type == "cuda":
        host = torch.randint(0, 256, (256, SIZE, SIZE, 3), dtype=torch.uint8).pin_memory()
        there = host.to(device)
        copied = rate(lambda: there.copy_(host, non_blocking=True), len(host), device, repeats)
        rows.append({"what": "pinned uint8 tiles to the device", "tiles/s": copied, "GB/s": copied * SIZE**2 * 3 / 1e9})
    return rows


def ways(
    network: Any, precision: str, planes: torch.Tensor, device: torch.device, compiles: bool
) -> dict[str, Callable[[], object]]:
    """Calls that classify ``planes`` once, by name; a way that does not work here is left out, and why is told."""
    form = inference_form(network, DTYPES[precision]).to(device)
    made: dict[str, Callable[[], object]] = {"launched": lambda: form(planes)}
    if device.type == "cuda":
        forms: dict[str, nn.Module | None] = {"": form, ", Triton": triton_form(form)}
        for name, one in forms.items():
            if one is not None:
                made[f"launched{name}"] = lambda one=one: one(planes)  # type: ignore[misc]
                made[f"recorded{name}"] = recorded(one, planes, device)
    if compiles:
        made["compiled"] = compiled(form, planes, "default")
        if device.type == "cuda":
            made["compiled, recorded"] = compiled(form, planes, "reduce-overhead")
    return made


def compiled(form: nn.Module, planes: torch.Tensor, mode: str) -> Callable[[], object]:
    """By torch.compile, which takes a minute the first time."""
    torch._dynamo.reset()
    fast = torch.compile(form, mode=mode)
    return lambda: fast(planes)


def recorded(form: nn.Module, planes: torch.Tensor, device: torch.device) -> Callable[[], object]:
    """As a CUDA graph."""
    cuda = CudaDevice(device)
    for _ in range(3):
        cuda.computing.run(lambda: form(planes)).synchronize()
    replay = cuda.capture(lambda: form(planes))
    return lambda: cuda.computing.run(replay)


def steadily(runtime: Runtime, tiles: np.ndarray[Any, Any]) -> Callable[[], object]:
    """As the engine calls it: as many batches under way as it takes, every call gives one and takes one."""
    waiting: deque[Pending] = deque()

    def call() -> None:
        waiting.append(runtime.start(tiles))
        if len(waiting) >= runtime.depth:
            waiting.popleft()()

    return call


def networks(options: argparse.Namespace, device: torch.device) -> list[Row]:
    """A row for each way, attention, precision and batch, with its cost over the fastest way without attention."""
    rows: list[Row] = []
    random = np.random.default_rng(1)
    for precision in options.precisions:
        for batch in options.batches:
            tiles = random.integers(0, 256, (batch, SIZE, SIZE, 3), dtype=np.uint8)
            planes = torch.from_numpy(tiles).to(device).permute(0, 3, 1, 2)
            planes = (planes.float() / 64 - 2).to(DTYPES[precision], memory_format=torch.channels_last)
            without = 0.0
            for attention in ATTENTIONS:
                torch.manual_seed(3)
                network = build(NetworkSpec(attention=attention)).eval()
                bundle: Any = SimpleNamespace(
                    card=CARD, spec=TileSpec(SIZE, 0.25), temperature=1.0, network=lambda network=network: network
                )
                runtime = (CudaRuntime if device.type == "cuda" else TorchRuntime)(bundle, device, precision)
                calls = ways(network, precision, planes, device, options.compile)
                with torch.inference_mode(), fixed_shapes(device):
                    found = {name: rate(call, batch, device, options.repeats) for name, call in calls.items()}
                if attention == "none":
                    without = max(found.values())
                found["runtime"] = rate(steadily(runtime, tiles), batch, device, options.repeats)
                for name, speed in found.items():
                    row: Row = {"attention": attention, "precision": precision, "batch": batch, "way": name}
                    rows.append({**row, "tiles/s": speed, "over no attention, %": 100 * (without / speed - 1)})
                    print(markdown_table(rows[-1:]).splitlines()[-1], flush=True)
                del runtime, calls
                if device.type == "cuda":
                    torch.cuda.empty_cache()
    return rows


def fixed_shapes(device: torch.device) -> Any:
    """As the runtime has it: convolutions are tried for the fastest way, and fp32 is not TF32."""
    if device.type != "cuda":
        return nullcontext()
    return torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--precisions", nargs="+", default=["bf16", "fp16", "fp32"], choices=list(DTYPES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--quick", action="store_true", help="one small batch in fp32, once")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.batches, options.precisions, options.repeats = [4], ["fp32"], 1
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("No CUDA device is here: nothing was measured. (--device cpu --quick shows that it runs.)")
    print(machine_told(machine()))
    side = 1024 if options.quick else 8192
    limits = [row for one in options.precisions for row in ceilings(device, one, options.repeats, side)]
    print(markdown_table(limits), flush=True)
    rows = networks(options, device)
    print(f"\n{markdown_table(rows)}")
    if options.json:
        write_json(options.json, "gpu", rows, ceilings=limits, versions=versions("torch", "triton", "numpy"))


if __name__ == "__main__":
    main()

"""One slide from file to classes: her2bridge, WSInfer, TIAToolbox and a plain loop, with the same weights, in one run.

    python benchmarks/peers/setup.py          # once: the peers' environments
    python benchmarks/end_to_end.py [--columns 32 --rows 32] [--json benchmarks/results/end_to_end.json]

The slide is tissue from edge to edge, so that the tools' own masks leave nearly the same tiles; 256-px JPEG tiles at
the network's own resolution, so that nobody resamples. Every tool is a process in its own environment that stays for
the whole run and works while the others wait; the rounds go through all tools in turn. Before these, each is tried on a
smaller slide with 0, 1 and 2 workers (WSInfer also with its ``--speedup``), which warms it up, and keeps what was
fastest. Everybody's network is the fused one in fp32, at batch 32, with torch's or OpenVINO's own number of threads.

"In" is all that the tool does for a slide: tissue mask, tiles, classes, files for QuPath; "out" is without mask and
files. Start-up and imports count nowhere; loading the weights counts where a tool does it for each slide. Classes are
compared tile by tile with her2bridge's in fp32 under torch.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import markdown_table, median, usable_cores, versions, write_json
from safetensors.torch import save_file

from her2bridge.inference.runtime.base import normalisation
from her2bridge.model.bundle import Bundle, load_bundle
from her2bridge.model.repvgg import fuse

HERE = Path(__file__).parent
PEERS = HERE / "peers"
ENVIRONMENTS = HERE.parent / ".bench"
sys.path.insert(0, str(PEERS))
import plain_network  # noqa: E402

Answer = dict[str, Any]

BATCH = 32
PACKAGES = {
    "WSInfer": ("wsinfer", "torch", "torchvision", "tiffslide", "zarr", "tifffile", "numpy"),
    "TIAToolbox": ("tiatoolbox", "torch", "torchvision", "openslide-python", "zarr", "tifffile", "numpy"),
}


@dataclass
class Contender:
    """A row of the table.

    Attributes:
        name: as the table shows it.
        python: of its environment.
        script: its runner.
        choices: what a job may say besides; the fastest is kept.
        peer: whether it is one of those whom we compare with.
        answers: of the rounds.
        error: why it cannot run.
    """

    name: str
    python: Path
    script: Path
    choices: list[dict[str, Any]]
    peer: bool = False
    answers: list[Answer] = field(default_factory=list)
    error: str | None = None
    note: str = ""

    @property
    def choice(self) -> dict[str, Any]:
        return self.choices[0]


class Runner:
    """A process that does jobs; see ``peers/protocol.py``."""

    def __init__(self, contender: Contender, home: Path, log: Path) -> None:
        quiet = {"HF_HUB_OFFLINE": "1", "HOME": str(home), "PATH": "/usr/bin:/bin"}
        self._log = log
        with log.open("a") as sink:
            self._process = subprocess.Popen(
                [str(contender.python), str(contender.script)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                text=True,
                env=quiet,
            )

    def do(self, job: dict[str, Any]) -> Answer:
        """The answer to a job; an error too where the process has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"error": self._last_words()}

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        with self._process:
            try:
                self._process.stdin.close()
                self._process.wait(timeout=20)
            except (BrokenPipeError, subprocess.TimeoutExpired):
                self._process.kill()

    def _last_words(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else f"ended with {self._process.wait()}"


def export(bundle: Bundle, folder: Path) -> None:
    """Write the fused fp32 network for the peers, and see that what they load computes what ours does."""
    folder.mkdir(parents=True, exist_ok=True)
    fused = fuse(bundle.network())
    blocks = [
        name.removesuffix(".conv") for name, module in fused.named_modules() if isinstance(module, torch.nn.Conv2d)
    ]
    strides = [module.stride[0] for module in fused.modules() if isinstance(module, torch.nn.Conv2d)]
    save_file({name: value.contiguous() for name, value in fused.state_dict().items()}, folder / "weights.safetensors")
    normalisation(bundle.card)  # says so where the card does not
    told = {
        "blocks": blocks,
        "strides": strides,
        "eps": 1e-5,
        "mean": bundle.card["transform"]["mean"],
        "std": bundle.card["transform"]["std"],
        "classes": bundle.card["classes"],
        "size_px": bundle.spec.size_px,
        "mpp": bundle.spec.mpp,
    }
    (folder / "network.json").write_text(json.dumps(told), encoding="utf-8")
    plain = plain_network.load_network(folder)
    example = torch.randn(4, 3, bundle.spec.size_px, bundle.spec.size_px, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(plain(example), fused(example), rtol=1e-3, atol=1e-3)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated; WSInfer takes nothing else
        torch.jit.trace(plain, example).save(str(folder / "torchscript.pt"))


def contenders() -> list[Contender]:
    """All, ours last."""
    workers = sorted({0, 1, min(2, usable_cores())})
    here = Path(sys.executable)
    torch_fp32 = {"runtime": "torch", "precision": "fp32", "workers": None}
    best = {"runtime": "auto", "precision": "auto", "workers": None}
    wsinfer = [{"workers": one, "speedup": fast} for fast in (False, True) for one in workers]
    return [
        Contender("loop: tiffslide a tile, torch fp32", here, PEERS / "naive_runner.py", [{}]),
        Contender("WSInfer", ENVIRONMENTS / "wsinfer/bin/python", PEERS / "wsinfer_runner.py", wsinfer, peer=True),
        Contender(
            "TIAToolbox",
            ENVIRONMENTS / "tiatoolbox/bin/python",
            PEERS / "tiatoolbox_runner.py",
            [{"workers": one} for one in workers],
            peer=True,
        ),
        Contender("her2bridge, torch fp32, tiles", here, HERE / "our_runner.py", [torch_fp32 | {"how": "predict"}]),
        Contender("her2bridge, auto, tiles", here, HERE / "our_runner.py", [best | {"how": "predict"}]),
        Contender("her2bridge analyze --whole-slide", here, HERE / "our_runner.py", [best | {"how": "analyze"}]),
        Contender("her2bridge run", here, HERE / "our_runner.py", [best | {"how": "run"}]),
    ]


def compare(every: Sequence[Contender], slide: Path, small: Path, work: Path, bundle: str | None, rounds: int) -> None:
    """Fill in the answers."""
    with ExitStack() as stack:
        runners: dict[str, Runner] = {}
        for one in every:
            if not one.python.is_file():
                one.error = f"no environment: python benchmarks/peers/setup.py ({one.python})"
                continue
            home = work / "home" / one.name.replace("/", " ")
            home.mkdir(parents=True, exist_ok=True)
            runners[one.name] = Runner(one, home, work / f"{one.script.stem}.log")
            stack.callback(runners[one.name].close)
        for one in every:
            if one.error is None:
                one.choices.sort(key=lambda choice: _tried(one, runners[one.name], choice, small, work, bundle))
        for number in range(rounds):
            for one in every:
                if one.error is not None:
                    continue
                answer = _job(runners[one.name], one.choice, slide, work / f"{one.name} {number}", work, bundle)
                one.error = answer.get("error")
                one.answers.append(answer)
                _say(f"round {number + 1}, {one.name}: {_told(answer)}")


def _tried(
    one: Contender, runner: Runner, choice: dict[str, Any], small: Path, work: Path, bundle: str | None
) -> float:
    """Seconds for the small slide, endless where it fails; the first time is only to get warm."""
    if not one.note:
        one.note = "warm"
        _job(runner, choice, small, work / f"{one.name} warm", work, bundle)
    answer = _job(runner, choice, small, work / f"{one.name} {choice}", work, bundle)
    _say(f"{one.name}, {choice}: {_told(answer)}")
    return float("inf") if "error" in answer else sum(answer["parts"].values())


def _job(runner: Runner, choice: dict[str, Any], slide: Path, out: Path, work: Path, bundle: str | None) -> Answer:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    said = {"slide": str(slide), "out": str(out), "model": str(work / "model"), "batch": BATCH, "bundle": bundle}
    return runner.do({**said, **choice}) | {"out": str(out)}


def _told(answer: Answer) -> str:
    if "error" in answer:
        return str(answer["error"])
    return f"{answer['tiles']} tiles, " + ", ".join(f"{name} {took:.2f} s" for name, took in answer["parts"].items())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def rows_of(every: Sequence[Contender]) -> list[dict[str, Any]]:
    """The table: medians over the rounds, and ratios to the faster peer."""
    known = next((one for one in every if "torch fp32, tiles" in one.name and one.error is None), None)
    reference = _classes(known.answers[0]) if known is not None else {}
    speed = {one.name: _speeds(one) for one in every if one.error is None}
    peers = [speed[one.name] for one in every if one.peer and one.error is None]
    rows = []
    for one in every:
        row: dict[str, Any] = {"tool": one.name, "with": _words(one.choice)}
        if one.error is not None:
            rows.append(row | {"remark": f"cannot run: {one.error}"})
            continue
        ins, outs = speed[one.name]
        row["tiles"] = one.answers[0]["tiles"]
        row["tiles/s, in"], row["tiles/s, out"] = ins, outs
        for title, ours, theirs in (
            ("in, × faster peer", ins, [peer[0] for peer in peers if peer[0] is not None]),
            ("out, × faster peer", outs, [peer[1] for peer in peers if peer[1] is not None]),
        ):
            row[title] = ours / max(theirs) if ours is not None and theirs else None
        row["same class"] = _agreement(reference, _classes(one.answers[0]))
        rows.append(row)
    return rows


def _speeds(one: Contender) -> tuple[float | None, float | None]:
    """Tiles a second with mask and files, and without; None where a row measures only the other."""
    whole = median([answer["tiles"] / sum(answer["parts"].values()) for answer in one.answers])
    parts = one.answers[0]["parts"]
    if "classify" not in parts:
        return whole, None
    bare = median([answer["tiles"] / answer["parts"]["classify"] for answer in one.answers])
    return (whole if "write" in parts else None), bare


def _classes(answer: Answer) -> dict[tuple[int, int], int]:
    with np.load(Path(answer["out"]) / "tiles.npz") as found:
        return {(int(x), int(y)): int(c) for (x, y), c in zip(found["origins"], found["classes"], strict=True)}


def _agreement(reference: dict[tuple[int, int], int], found: dict[tuple[int, int], int]) -> str:
    shared = reference.keys() & found.keys()
    return f"{sum(reference[one] == found[one] for one in shared)} of {len(shared)}"


def _words(choice: dict[str, Any]) -> str:
    said = {key: value for key, value in choice.items() if value is not None and key != "how"}
    return ", ".join(
        f"{key} {value}" if not isinstance(value, bool) else key for key, value in said.items() if value is not False
    )


def peer_versions() -> dict[str, dict[str, str]]:
    """What is installed in each environment."""
    asked = (
        "import json, sys; from importlib.metadata import version; "
        "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    )
    found = {}
    for peer, names in PACKAGES.items():
        python = ENVIRONMENTS / peer.lower() / "bin/python"
        if python.is_file():
            told = subprocess.run([str(python), "-c", asked, *names], capture_output=True, text=True, check=True)
            found[peer] = json.loads(told.stdout)
    return found


@contextmanager
def _folder(named: Path | None) -> Iterator[Path]:
    if named is not None:
        named.mkdir(parents=True, exist_ok=True)
        yield named.resolve()
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", type=int, default=32, help="of tiles")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", help="bundle; default: the one that ships")
    parser.add_argument("--work", type=Path, help="keep slides, outputs and logs in this folder")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    from slides import mosaic

    bundle = load_bundle(asked.model)
    with _folder(asked.work) as work:
        small_side = max(1, min(16, asked.columns // 2)), max(1, min(16, asked.rows // 2))
        slide = mosaic(work / f"slide-{asked.columns}x{asked.rows}" / "slide.tif", asked.columns, asked.rows)
        small = mosaic(work / f"small-{small_side[0]}x{small_side[1]}" / "slide.tif", *small_side)
        export(bundle, work / "model")
        every = contenders()
        compare(every, slide, small, work, asked.model, asked.rounds)
        rows = rows_of(every)
    print(markdown_table(rows))
    if asked.json:
        more = {
            "model": bundle.name,
            "batch": BATCH,
            "slide": f"{asked.columns} x {asked.rows} tiles of 256 px",
            "parts": {one.name: [answer.get("parts") for answer in one.answers] for one in every},
            "peers": peer_versions(),
        }
        write_json(
            asked.json, "end_to_end", rows, versions=versions("her2bridge", "torch", "openvino", "tiffslide"), **more
        )


if __name__ == "__main__":
    main()

"""How long until her2bridge shows its help, and until a run has classified its first tiles.

    python benchmarks/startup.py [--runs 15] [--first-tiles 5] [--project DIR] [--json FILE]

Help: our ``--help`` beside a program of one command in typer, in turn, each a process of its own; medians. Typer shows
help through rich unless told otherwise, and rich takes half of its time; we tell it otherwise, so the fair peer is the
plain one, and the ratio is to that. First tile: from the start of ``her2bridge run DIR --json --force --device cpu`` to
its first ``progress``, for each runtime; the first run of each is told apart, for it finds no files in memory and no
choice that was remembered. Without ``--project`` a small demo is drawn, which does not count.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import markdown_table, median, versions, write_json

HER2BRIDGE = (sys.executable, "-m", "her2bridge")
ALONE = """\
import typer

app = typer.Typer({options})


@app.command()
def main(name: str = "") -> None:
    \"\"\"Greet somebody.\"\"\"
    typer.echo(f"Hello {{name}}")


app()
"""
PLAIN, OURS = "typer alone, plain", "her2bridge"
HELP, FIRST_TILES = "--help", "first tiles"
STEPS = ("run_started", "runtime_chosen", "progress")
RUNTIMES = ("auto", "openvino", "torch")
SIZE = (4096, 4096)


def help_times(folder: Path, runs: int) -> list[Mapping[str, object]]:
    """A row for each program: median seconds, and the ratio to plain typer."""
    programs = {PLAIN: "rich_markup_mode=None", "typer alone, rich": ""}
    commands: dict[str, Sequence[str]] = {"python alone": (sys.executable, "-c", "")}
    for number, (name, options) in enumerate(programs.items()):
        path = folder / f"alone{number}.py"
        path.write_text(ALONE.format(options=options), encoding="utf-8")
        commands[name] = (sys.executable, str(path), "--help")
    commands[OURS] = (*HER2BRIDGE, "--help")
    commands[f"{OURS} run"] = (*HER2BRIDGE, "run", "--help")
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(runs + 1):  # the first round warms up
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if number:
                taken[name].append(time.perf_counter() - began)
    plain = median(taken[PLAIN])
    return [
        {"table": HELP, "of": name, "s": median(times), "least s": min(times), "× plain typer": median(times) / plain}
        for name, times in taken.items()
    ]


def first_tile(project: Path, runtime: str) -> dict[str, float]:
    """Seconds from the start of a process to each step of a run, which is ended after its first tiles."""
    command = (*HER2BRIDGE, "run", str(project), "--json", "--force", "--device", "cpu", "--runtime", runtime)
    began = time.perf_counter()
    seconds: dict[str, float] = {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            step = json.loads(line)["type"]
            seconds.setdefault(step, time.perf_counter() - began)
            if step == STEPS[-1]:
                process.send_signal(signal.SIGINT)
                break
        _, told = process.communicate()
    if STEPS[-1] not in seconds:
        raise SystemExit(f"{' '.join(command)} classified nothing: {told}")
    return {step: seconds[step] for step in STEPS}


def first_tiles(project: Path, runs: int) -> list[Mapping[str, object]]:
    """A row for each runtime's first run, and one for the median of those after it; the runtimes in turn."""
    taken: dict[str, list[dict[str, float]]] = {runtime: [] for runtime in RUNTIMES}
    for _ in range(runs + 1):
        for runtime, found in taken.items():
            found.append(first_tile(project, runtime))
    rows: list[Mapping[str, object]] = []
    for runtime, (first, *others) in taken.items():
        rows.append(_row(f"{runtime}, first run", [first]))
        rows.append(_row(runtime, others))
    return rows


def _row(runtime: str, runs: Sequence[Mapping[str, float]]) -> dict[str, object]:
    started, chosen, progress = (median([one[step] for one in runs]) for step in STEPS)
    least = min(one[STEPS[-1]] for one in runs)
    steps = {"project open s": started, "network ready s": chosen}
    return {"table": FIRST_TILES, "of": runtime, "s": progress, "least s": least, **steps}


def _shown(rows: Sequence[Mapping[str, object]]) -> str:
    return markdown_table([{column: value for column, value in row.items() if column != "table"} for row in rows])


def demo(folder: Path) -> Path:
    """A small slide, drawn, in a project."""
    from her2bridge.demo import make_demo

    return make_demo(folder, size=SIZE).project


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="of each program's help")
    parser.add_argument("--first-tiles", type=int, default=5, help="runs of each runtime, besides its first; 0: none")
    parser.add_argument("--project", type=Path, help="to be scored; results are not kept")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        rows = help_times(Path(name), asked.runs)
        print(_shown(rows), flush=True)
        if asked.first_tiles:
            tiles = first_tiles(asked.project or demo(Path(name) / "demo"), asked.first_tiles)
            print(f"\n{_shown(tiles)}")
            rows = [*rows, *tiles]
    if asked.json:
        write_json(asked.json, "startup", rows, versions=versions("her2bridge", "typer", "rich", "torch", "openvino"))


if __name__ == "__main__":
    main()

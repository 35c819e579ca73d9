"""Make the peers' environments, .bench/wsinfer and .bench/tiatoolbox: each its own, with the torch of constraints.txt.

python benchmarks/peers/setup.py [wsinfer] [tiatoolbox] [--torch-pip-args=…]

torch comes first and by itself, so that nothing else chooses one (a CUDA build has several GB); torchvision follows
without its dependencies. An environment that is there is left alone: delete its folder to make it anew.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENTS = ROOT / ".bench"
WITHOUT_DEPENDENCIES = {"wsinfer": (), "tiatoolbox": ("tiatoolbox==2.1.3",)}
"""The peers, and what of each is installed without what it asks for; the rest is in ``NAME.txt``."""


def pinned(name: str) -> str:
    """``NAME==VERSION`` as constraints.txt says."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(f"{name}=="))


def steps(peer: str, python: Path, torch_args: list[str]) -> list[list[str]]:
    """The commands that make an environment, in order."""
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    torch = pinned("torch")
    return [
        [sys.executable, "-m", "venv", str(python.parents[1])],
        [*pip, *torch_args, torch],
        [*pip, "--no-deps", pinned("torchvision"), *WITHOUT_DEPENDENCIES[peer]],
        [*pip, torch, "--requirement", str(HERE / f"{peer}.txt")],
    ]


def python_of(peer: str) -> Path:
    """The environment's Python."""
    return ENVIRONMENTS / peer / "bin" / "python"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", choices=[*WITHOUT_DEPENDENCIES, []], help="default: both")
    parser.add_argument("--torch-pip-args", default="", help="more arguments for the installation of torch")
    asked = parser.parse_args()
    for peer in asked.peers or WITHOUT_DEPENDENCIES:
        python = python_of(peer)
        done = ENVIRONMENTS / peer / ".installed"
        if done.exists():
            print(f"{peer}: there already")
            continue
        shutil.rmtree(ENVIRONMENTS / peer, ignore_errors=True)
        for step in steps(peer, python, shlex.split(asked.torch_pip_args)):
            print(shlex.join(step), flush=True)
            subprocess.run(step, check=True)
        done.touch()


if __name__ == "__main__":
    main()

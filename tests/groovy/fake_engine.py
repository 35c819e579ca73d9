"""An engine that behaves as it is told: ``fake_engine.py WAY scripts answer FOLDER --watch-stdin``.

It leaves in FOLDER what the tests ask for: ``seen.json`` (how it was started), ``pids`` (itself and its child),
``ended`` (that it ended by itself, because its input was closed), ``lasted`` (that it did not).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(sys.argv[4])
STARTED = {"type": "run_started", "run_id": "4f1d2c3b5a69", "schema": 1}
SCORED = {"type": "image_scored", "image": "core_1.tif – ä", "score": "2+", "tumour_tiles": 505, "review": []}
FINISHED = {"type": "run_finished", "scored": 1, "failed": 0}
WRONG = {"error": "NoRegions", "what": "There is no region.", "where": "core_1.tif", "next_step": "Draw one."}


def tell(*events: dict[str, object]) -> None:
    for event in events:
        sys.stdout.buffer.write(json.dumps(event, ensure_ascii=False).encode() + b"\n")
    sys.stdout.buffer.flush()


def log(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def progress(done: int) -> dict[str, object]:
    return {"type": "progress", "done": done, "total": 600, "tiles_per_second": 128.5, "seconds_left": None}


def end_with_stdin() -> None:
    """What the real engine does with ``--watch-stdin``."""
    sys.stdin.buffer.read()
    (FOLDER / "ended").touch()
    sys.exit(130)


def stay() -> None:
    """Heed neither a closed input nor a request to end; three seconds after the first, leave word."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdin.buffer.read()
    time.sleep(3)
    (FOLDER / "lasted").touch()
    time.sleep(60)


def fork() -> None:
    """Start a child that goes on for a minute, whatever becomes of us."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-I", "-c", code])
    (FOLDER / "pids").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(1.5)


def well() -> None:
    environment = {name: os.environ.get(name) for name in ("PYTHONPATH", "PYTHONHOME")}
    seen = {"argv": sys.argv[2:], "isolated": sys.flags.isolated, "utf8": sys.flags.utf8_mode, **environment}
    (FOLDER / "seen.json").write_text(json.dumps(seen), encoding="utf-8")
    tell(STARTED, progress(256), {"type": "from_tomorrow"}, progress(600), SCORED, FINISHED)


def slow() -> None:
    tell(STARTED)
    for done in range(4):
        time.sleep(1)
        tell(progress(done))
    tell(SCORED, FINISHED)


def pauses() -> None:
    tell(STARTED, progress(1))
    time.sleep(5)
    tell(SCORED, FINISHED)


def dies() -> None:
    tell(STARTED)
    log("Traceback: no such thing – ä")
    os._exit(3)


def is_killed() -> None:
    tell(STARTED)
    os.kill(os.getpid(), signal.SIGKILL)


def dies_before_its_child() -> None:
    tell(STARTED)
    fork()
    os._exit(3)


def floods() -> None:
    """Ten megabytes, part of it without any end of line."""
    tell(STARTED)
    for number in range(50_000):
        sys.stderr.write(f"line {number} {'x' * 90}\n")
    sys.stderr.write("y" * 5_000_000)
    sys.stderr.write("\nthe last line\n")
    sys.stderr.flush()
    tell(SCORED, FINISHED)


def floods_and_says_nothing() -> None:
    tell(STARTED)
    for number in range(6000):
        log(f"line {number}")
        time.sleep(0.01 if number > 60 else 0)


def breaks() -> None:
    tell(STARTED)
    sys.stdout.write('{"type": "image_scored", "score": \n')
    sys.stdout.flush()
    end_with_stdin()


def tells_a_list() -> None:
    sys.stdout.write("[1, 2]\n")
    sys.stdout.flush()
    end_with_stdin()


def is_newer() -> None:
    tell({**STARTED, "schema": 2})
    end_with_stdin()


def ends_in_the_middle() -> None:
    tell(STARTED, SCORED)


def is_silent() -> None:
    tell(STARTED)
    end_with_stdin()


def will_not_end() -> None:
    """The work is done, the process stays."""
    fork()
    tell(STARTED, SCORED, FINISHED)
    stay()


def ignores_cancel() -> None:
    fork()
    tell(STARTED, progress(1))
    stay()


def heeds_cancel() -> None:
    tell(STARTED, progress(1))
    end_with_stdin()


def fails() -> None:
    log("a hint")
    tell({"type": "failed", **WRONG, "exit_code": 2})
    sys.exit(2)


def image_fails() -> None:
    tell(STARTED, {"type": "image_failed", "image": "core_1.tif", **WRONG}, {**FINISHED, "scored": 0, "failed": 1})
    sys.exit(1)


def scores_nothing() -> None:
    tell(STARTED, {**FINISHED, "scored": 0})


globals()[sys.argv[1]]()

"""What people are told of a run, event by event and at its end."""

from __future__ import annotations

import io
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from rich.console import Console

from her2bridge import events as ev
from her2bridge.cli import bar
from her2bridge.cli.console import console, counted, printable
from her2bridge.cli.teller import RunTeller
from her2bridge.records import Status

STARTED = ev.RunStarted("id", "0.1.0", "files (QuPath 0.6.0)", "model 0a1b2c", 3, dry_run=False)


def scored(
    image: str = "a.tif", score: str = "2+", status: str = Status.EQUIVOCAL, **changes: object
) -> ev.ImageScored:
    fields: dict[str, object] = {
        "image": image,
        "score": score,
        "status": str(status),
        "counts": {"0": 250, "1+": 125, "2+": 75, "3+": 50, "normal": 80, "noise": 15},
        "tumour_tiles": 500,
        "tile_h_score": 85.0,
        "review": (),
        "regions": (),
        "metadata": {},
        "written_to": "/p/project.qpproj",
        "corrected_tiles": 0,
        "seconds": 7.5,
    }
    return ev.ImageScored(**(fields | changes))  # type: ignore[arg-type]


def told(events: Sequence[ev.Event]) -> tuple[str, str]:
    """What stands on standard output and on standard error in the end."""
    streams = io.StringIO(), io.StringIO()
    consoles = console(), console(stderr=True)
    for made, stream in zip(consoles, streams, strict=True):
        made.file, made.width = stream, 160
    run = RunTeller(*consoles)
    for event in events:
        run(event)
    run.sum_up()
    before = [one.getvalue() for one in streams]
    run.sum_up()
    assert [one.getvalue() for one in streams] == before  # it is told once
    return before[0], before[1]


def test_a_run_says_with_what_it_is_done() -> None:
    _, notes = told([STARTED, ev.RuntimeChosen("cuda:0", "bf16", "torch 2.13")])
    assert "backend files (QuPath 0.6.0), model model 0a1b2c, 3 images" in notes
    assert "Research use only" in notes
    assert notes.count("Close the project in QuPath") == 1
    assert "torch 2.13 on cuda:0, bf16" in notes


def test_a_dry_run_needs_no_closed_project() -> None:
    planned = ev.ImagePlanned("a.tif", "score (never scored)", "never scored", 2, 1600)
    started = ev.RunStarted("id", "0.1.0", "files", "m", 1, dry_run=True)
    results, notes = told([started, planned, ev.RunFinished(0, 0, 0, False, 1.0)])
    assert "1 to be scored, 0 skipped, 0 failed, in 1 s" in notes
    assert "Close the project" not in notes
    assert "nothing is written" in notes
    assert results == "a.tif: score (never scored); 1,600 tiles in 2 regions\n"


def test_the_table() -> None:
    results, notes = told([STARTED, scored(review=("close to 10 %", "biopsy")), scored("b.tif")])
    rows = [line.split() for line in results.splitlines()]
    head, first, second = rows[0], rows[2], rows[3]
    assert head[:3] == ["Image", "Score", "Status"]
    assert first[:2] == ["a.tif", "2+"]
    assert first[-8:] == ["500", "50.0", "25.0", "15.0", "10.0", "85.0", "2", "reasons"]
    assert second[-1] == "85.0"
    assert "a.tif: close to 10 %; biopsy" in results
    assert "b.tif:" not in results
    assert "0 (QuPath: Negative)" in results
    assert "not of cells" in results
    assert "Research use only" in results
    assert notes.count("Written to /p/project.qpproj") == 1


def test_what_the_whspn_learned_from_is_told_with_its_score() -> None:
    said = "3+ (MLP, margin 0.84; trained on simulated cohorts)"
    results, _ = told(
        [STARTED, scored(metadata={"HER2 AI WHSPN": said}), scored("b.tif", metadata={"HER2 AI WHSPN": ""})]
    )
    assert f"What the WHSPN reads from the shares:\n  a.tif: {said}\n" in results
    assert "b.tif:" not in results
    assert "WHSPN" not in told([STARTED, scored()])[0]


def test_what_is_not_assessable_has_no_percentages() -> None:
    nothing = dict.fromkeys(("0", "1+", "2+", "3+", "normal", "noise"), 0)
    few = scored(
        score="Not assessable", status="Not assessable", counts=nothing, tumour_tiles=0, tile_h_score=float("nan")
    )
    results, _ = told([STARTED, few])
    row = results.splitlines()[2]
    assert row.split() == ["a.tif", "Not", "assessable", "Not", "assessable", "0"]
    assert "nan" not in results


def test_warnings_stand_together_by_image() -> None:
    warned = [ev.Warned(None, "read only"), ev.Warned("a.tif", "clipped"), ev.Warned("a.tif", "mended")]
    _, notes = told([STARTED, *warned, scored(), ev.Warned("b.tif", "clipped"), scored("b.tif")])
    lines = notes.splitlines()
    at = lines.index("Warnings:")
    assert lines[at + 1 : at + 6] == ["  a.tif:", "    clipped", "    mended", "  b.tif:", "    clipped"]
    assert lines.index("Warning: read only") < at


def test_what_was_skipped_and_why() -> None:
    skipped = [ev.ImageSkipped(f"{n}.tif", "scored before", "1+") for n in range(12)]
    results, notes = told([STARTED, *skipped, ev.RunFinished(0, 12, 0, False, 3.0)])
    assert "Skipped, scored before: 0.tif (1+), 1.tif (1+)," in notes
    assert "9.tif (1+) and 2 more\n" in notes
    assert "0 scored, 12 skipped, 0 failed, in 3 s" in notes
    assert results == ""


def test_a_failed_image_is_told_at_once() -> None:
    failed = ev.ImageFailed("b.tif", "NoRegions", "No region.", "b.tif", "Draw one.")
    _, notes = told([STARTED, failed])
    assert "b.tif failed: No region.\n  where: b.tif\n  next:  Draw one.\n" in notes


def test_ctrl_c_and_restore() -> None:
    _, notes = told([STARTED, ev.RunFinished(1, 0, 0, True, 3600.0 * 2)])
    assert "Stopped by Ctrl-C; what was finished is kept: 1 scored, 0 skipped, 0 failed, in 2:00 h" in notes
    results, notes = told([ev.Restored("a.tif", 1234, 20, "2+"), ev.RestoreFinished(1, 2, 0)])
    assert results == "a.tif: 2+ restored, 1,234 tiles put back, 20 stay as they were corrected\n"
    assert notes == "1 restored, 2 skipped, 0 failed\n"


def test_names_are_text_and_no_commands() -> None:
    name = "[red]\x1b[31m:smile:\nb"
    results, notes = told([STARTED, ev.Warned(name, name), scored(name), ev.ImageSkipped(name, "r", "")])
    assert "\x1b" not in results + notes
    assert "[red]" in results
    assert ":smile:" in notes
    assert printable(name) == "[red]\ufffd[31m:smile:\ufffdb"


def test_without_a_terminal_there_are_lines_now_and_then_and_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 5.0, 10.0, 10.0, 15.0, 25.0, 25.0, 30.0])  # asked twice where a line is told
    monkeypatch.setattr(bar, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    progress = [ev.Progress("a.tif", done, 9000, 1500.0, 95.0) for done in (1000, 2000, 3000, 4000)]
    _, notes = told([STARTED, ev.ImageStarted("a.tif", 0, 1, 9000, 0.25, "QuPath"), *progress])
    lines = [line for line in notes.splitlines() if "9,000" in line]
    assert lines == [f"1/3 a.tif: {n} of 9,000 tiles, 1,500 tiles/s, 95 s left" for n in ("2,000", "4,000")]
    assert "\x1b" not in notes


def test_on_a_terminal_there_is_a_bar_that_goes_away() -> None:
    stream = io.StringIO()
    terminal = Console(file=stream, force_terminal=True, width=100, markup=False, _environ={"TERM": "xterm"})
    run = RunTeller(Console(file=io.StringIO()), terminal)
    run(STARTED)
    run(ev.ImageStarted("a[b].tif", 1, 1, 600, 0.25, "QuPath"))
    run(ev.Progress("a[b].tif", 300, 600, 128.0, 187.0))
    run(scored("a[b].tif"))
    shown = stream.getvalue().partition("a[b].tif: 2+")[0]
    assert "2/3 a[b].tif" in shown
    assert "300/600 tiles" in shown
    assert "128 tiles/s, 3:07 min left" in shown
    assert "\x1b[?25h" in shown  # the bar is gone, and the cursor back, before the score is told


def test_consoles_without_a_terminal_are_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console().width == 160
    monkeypatch.setenv("COLUMNS", "70")
    assert console().width == 70


def test_counted() -> None:
    assert [counted(n, "tile") for n in (0, 1, 2000)] == ["0 tiles", "1 tile", "2,000 tiles"]


def test_a_task_has_a_line_now_and_then_and_an_epoch_one_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 5.0, 12.0, 12.0, 13.0, 40.0, 41.0])
    monkeypatch.setattr(bar, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    tasks = [ev.TaskProgress("Reading tiles", done, 400, 7.25, 30.0) for done in (10, 90, 95)]
    epoch = ev.EpochFinished("fold 1", 2, 9, 0.05, 0.5, 0.8, 0.6, 0.75, 0.7, 4.0, 28.0)
    other = ev.TaskProgress("Drawing", 1, 2, 100.0, 0.5)
    _, notes = told([*tasks, epoch, other])
    assert notes.splitlines() == [
        "Reading tiles: 90 of 400, 7.2 a second, 30 s left",
        "fold 1, epoch 2/9: loss 0.500, accuracy 0.800; validation loss 0.600, macro-F1 0.700 (4 s, 28 s left)",
    ]


def test_what_learning_tells() -> None:
    counts = {"0": 3, "1+": 2, "2+": 0, "3+": 0, "normal": 1, "noise": 0}
    nan = float("nan")
    _, notes = told(
        [
            ev.LabelsRead("a.tif", counts, {"too little tissue": 4, "conflict": 0}),
            ev.TrainingStarted("", "modern", 5, 0, 3, 10, "cpu", "fp32"),
            ev.EpochFinished("", 10, 10, 0.0, 0.5, 0.8, nan, nan, nan, 4.0, 0.0),
            ev.BundleWritten("/b", "b 1", "cd" * 32),
            ev.Evaluated("/e", "b", 6, 1, 0.5, 0.4, 0.1),
            ev.ExperimentFinished("table4", "/x", 2, 3.0),
        ]
    )
    assert notes.splitlines() == [
        "a.tif: 6 labelled tiles; too little tissue: 4",
        "5 tiles to train on, 0 to validate; recipe modern, 10 epochs on cpu, fp32, going on after epoch 3",
        "epoch 10/10: loss 0.500, accuracy 0.800 (4 s)",
        "Model b 1, SHA-256 cdcdcdcdcdcd",
        "Written to /b",
        "Written to /e",
        "Written to /x",
    ]


def test_where_the_time_of_a_run_went() -> None:
    stages = {"getting the network ready": 1.0, "waiting for pixels": 0.5, "classifying": 6.0, "scoring": 0.001}
    first = ev.ImageTimed("a.tif", 8.0, {**stages, "writing": 0.5}, 2.5, 300, 2, 0.9)
    second = ev.ImageTimed("b.tif", 2.0, {"waiting for pixels": 1.5, "classifying": 0.5}, 0.5, 40, 2, 0.4)
    results, notes = told([STARTED, first, scored(), second, scored("b.tif")])
    assert "Where the time" not in results
    table = notes[notes.index("Where the time") :]
    rows = {line.rstrip().rsplit(maxsplit=2)[0].strip(): line.split()[-2:] for line in table.splitlines()[2:7]}
    assert rows["classifying"] == ["6.50", "65"]
    assert rows["waiting for pixels"] == ["2.00", "20"]
    assert "scoring" not in table
    assert "2 cores, 80 % busy" in table
    assert "3.00 s in all threads together" in table
    assert "340 tiles at 40 a second; what they wait for most is the network." in table
    assert "Where the time" not in told([STARTED, scored()])[1]

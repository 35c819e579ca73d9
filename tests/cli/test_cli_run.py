"""``her2bridge run`` and ``restore`` on a real project."""

from __future__ import annotations

from pathlib import Path

from cli_calls import CPU, call, events_of, spawn, types_of
from conftest import contents

from her2bridge.demo import Demo
from her2bridge.qupath.open import open_project
from her2bridge.qupath.results import METADATA_KEYS

FEW = "min_tumour_tiles = 5\nmin_tumour_mm2 = 0.0\n"


def test_the_whole_way_in_json(demo: Demo, tmp_path: Path) -> None:
    settings = tmp_path / "few.toml"
    settings.write_text(FEW)
    before = contents(demo.project.parent)
    asked = ("run", demo.project.parent, "--json", "--score-settings", settings)
    with spawn(*asked, *CPU) as process:
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, b"")
    heard = events_of(out)
    assert types_of(heard) == ["run_started", "runtime_chosen", "image_started", "image_scored", "run_finished"]
    assert heard[0]["backend"].startswith("files")
    assert (heard[1]["device"], heard[1]["precision"]) == ("cpu", "fp32")
    (scored,) = [event for event in heard if event["type"] == "image_scored"]
    assert scored["score"] in ("0", "1+", "2+", "3+")
    assert scored["metadata"].keys() == set(METADATA_KEYS)
    (entry,) = open_project(demo.project).entries
    assert entry.metadata.items() >= scored["metadata"].items()
    assert len(entry.stored_tiles()) == sum(scored["counts"].values())

    told = call(*asked[:2], "--score-settings", settings)  # scored before: skipped, and told to people
    assert told.exit_code == 0
    assert told.stdout == ""
    assert f"{entry.name} ({scored['score']})" in told.stderr
    assert "Skipped, scored before" in told.stderr
    assert "backend files" in told.stderr

    told = call("run", demo.project, "--dry-run")  # without those settings it is another score
    assert told.exit_code == 0
    assert told.stdout.startswith(f"{entry.name}: score (other model or settings); ")
    assert "nothing is written" in told.stderr

    told = call("run", demo.project, "--json", "--force", "--score-settings", settings, *CPU)
    assert "image_scored" in types_of(events_of(told.stdout))

    _restore(demo, before)


def _restore(demo: Demo, before: dict[str, bytes]) -> None:
    """What QuPath wrote over comes back."""
    count = len(open_project(demo.project).entries[0].stored_tiles())
    for name, data in before.items():
        (demo.project.parent / name).write_bytes(data)
    told = call("restore", demo.project)
    assert told.exit_code == 0
    assert f" restored, {count} tiles" in told.stdout
    assert "1 restored, 0 skipped, 0 failed" in told.stderr
    assert len(open_project(demo.project).entries[0].stored_tiles()) == count
    again = call("restore", demo.project, "--json")
    assert types_of(events_of(again.stdout)) == ["image_skipped", "restore_finished"]
    assert call("restore", demo.project, "--image", "nowhere").exit_code == 2


def test_an_image_that_fails_makes_it_1(demo: Demo) -> None:
    told = call("run", demo.project, "--region-class", "Stroma")
    assert told.exit_code == 1
    assert "failed: There is no region to score" in told.stderr
    assert "  next:  Its annotations are: Tumor (4)" in told.stderr
    told = call("run", demo.project, "--region-class", "Stroma", "--json")
    assert told.exit_code == 1
    assert types_of(events_of(told.stdout)) == ["run_started", "image_failed", "run_finished"]
    assert "  next:  Its annotations are: Tumor (4)" in told.stderr


def test_options_reach_the_settings(demo: Demo) -> None:
    """An option that was lost on the way would leave the number of tiles as it is."""

    def tiles(*args: str) -> int:
        told = call("run", demo.project, "--dry-run", "--json", *args)
        assert told.exit_code == 0, told.stderr
        (planned,) = [event for event in events_of(told.stdout) if event["type"] == "image_planned"]
        return int(planned["tiles"])

    plain = tiles()
    assert tiles("--min-overlap", "0.01") > plain > tiles("--min-overlap", "1")
    assert tiles("--whole-slide") != plain
    assert tiles("--region-class", "tumor", "--region-class", "Other") == plain
    assert tiles("--exclude-class", "Stroma", "--image", demo.slide.name) == plain
    told = call("run", demo.project, "--dry-run", "--exclude-class", "Tumor")
    assert "There is no region to score" in told.stderr

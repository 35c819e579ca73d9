"""What the documents say of files, keys, classes and settings is what the code does; links lead somewhere."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from her2bridge.qupath.classes import path_classes
from her2bridge.qupath.results import METADATA_KEYS, PROBABILITY_NAMES, REGION_MEASUREMENTS
from her2bridge.records import TileSpec
from her2bridge.scoring import ScoreSettings
from her2bridge.version import version

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
FORMATS = (ROOT / "docs" / "file-formats.md").read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_key_and_measurement_is_documented() -> None:
    for name in (*METADATA_KEYS, *REGION_MEASUREMENTS, *PROBABILITY_NAMES):
        short = re.sub(r"^(HER2 AI|HER2:) % tiles (1|2|3)\+$", r"… \2+", name)
        assert short in FORMATS.replace("\n", " "), name


def test_the_settings_shown_are_the_defaults() -> None:
    block = re.search(r"```toml\n(.*?)```", FORMATS, re.DOTALL)
    assert block is not None
    assert tomllib.loads(block[1]) == dataclasses.asdict(ScoreSettings())


def test_classes_are_as_getting_started_says() -> None:
    page = (ROOT / "docs" / "getting-started.md").read_text(encoding="utf-8")
    rows = re.findall(r"^ *\| ([\w+]+) \| `([^`]+)` \| \w+ \|$", page, re.MULTILINE)
    labels = ["0", "1+", "2+", "3+", "normal", "noise"]
    assert rows == list(zip(labels, (str(one) for one in path_classes()), strict=True))


def test_the_worked_tiles_are_right() -> None:
    page = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| ([\d.]+) µm/px \| ([\d.]+) px \| \(([\d.]+), ([\d.]+)\) \| \(([\d.]+), ([\d.]+)\) \|", page)
    assert len(rows) == 3
    for mpp, side, x, y, centre_x, centre_y in rows:
        s = TileSpec().side(float(mpp))
        wanted = (s, 10 * s, 20 * s, 10.5 * s, 20.5 * s)
        assert [float(one) for one in (side, x, y, centre_x, centre_y)] == pytest.approx(wanted, abs=0.006)


def test_the_changelog_knows_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{version()}]" in text or "## [Unreleased]" in text


def test_the_licence_is_the_gpl() -> None:
    assert "GNU GENERAL PUBLIC LICENSE" in (ROOT / "LICENSE").read_text(encoding="utf-8")

"""What the texts of options become."""

from __future__ import annotations

from pathlib import Path

import pytest

from her2bridge.cli.options import relocations_of, score_settings_of, specimen_of
from her2bridge.errors import UsageError
from her2bridge.records import Specimen
from her2bridge.scoring import ScoreSettings


def test_relocations() -> None:
    assert relocations_of(["D:/slides=/data/a=b", "file:/old=", "=x"]) == (
        ("D:/slides", "/data/a=b"),
        ("D:/slides=/data/a", "b"),
        ("file:/old", ""),
        ("", "x"),  # for RunSettings to refuse
    )
    assert relocations_of(None) == ()
    with pytest.raises(UsageError, match="'/old'"):
        relocations_of(["/a=/b", "/old"])


def test_specimen() -> None:
    assert specimen_of(None) is None
    assert specimen_of("biopsy") is Specimen.BIOPSY
    assert specimen_of("resection") is Specimen.RESECTION
    with pytest.raises(UsageError, match="not stated"):
        specimen_of("not stated")


def test_score_settings(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("min_tumour_tiles = 10\nmax_noise = 0.5\n")
    assert score_settings_of(file) == ScoreSettings(min_tumour_tiles=10, max_noise=0.5)
    assert score_settings_of(None) == ScoreSettings()


@pytest.mark.parametrize("content", [b"max_noise = 2.0", b"nonsense = 1", b"max_noise =", b"max_noise = 0.1\xff"])
def test_score_settings_that_cannot_be(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        score_settings_of(file)
    assert caught.value.where == str(file)


def test_score_settings_that_are_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.toml", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            score_settings_of(path)

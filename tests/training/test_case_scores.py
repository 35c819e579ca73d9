"""Scores in free text: as pathologists write them, and what only looks like one."""

from __future__ import annotations

import pytest

from her2bridge.training.case_scores import case_score


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("0", "0"),
        ("3", "3+"),
        (" 2 ", "2+"),
        ("1+", "1+"),
        ("3 +", "3+"),
        ("HER2 2+, ISH negative", "2+"),
        ("IHC 3+", "3+"),
        ("Score: 0", "0"),
        ("HER2 1+ (10 %)", "1+"),
        ("2+/ISH amplified", "2+"),
        ("her2 score 3", "3+"),
        ("HER2 2", "2+"),
        ("HER2: 2", "2+"),
        ("HER2 (2)", "2+"),
        ("IHC=1", "1+"),
        ("HER2 IHC score 0 (no staining)", "0"),
        ("HER2/neu 3+", "3+"),
        ("HER-2/neu: 1+", "1+"),
        ("HER 2 2+", "2+"),
        ("c-erbB-2 3+", "3+"),
        ("negative (0)", "0"),
        ("negative (1+)", "1+"),
        ("negative, 1+ in 5 %", "1+"),
        ("5 % 3+", "3+"),
        ("70% of cells 2+", "2+"),
        ("0/1+", "0"),
        ("1+/2+", "1+"),
        ("2-3+", "2+"),
        ("1+ to 2+", "1+"),
        ("HER2 0/1+", "0"),
        ("HER2 2-3+", "2+"),
        ("1+, repeated 2+", "1+"),
        ("ISH 0, IHC 3+", "3+"),
        ("FISH ratio 2.3; HER2 3+", "3+"),
        ("SISH: 2, 1+", "1+"),
        ("ISH+ 2+", "2+"),
        ("ISH positive, 2+", "2+"),
        ("2+ (FISH 1.0)", "2+"),
        ("Score 3+ (2022-10-01)", "3+"),
        ("Fallscore 2+", "2+"),
        ("block 0 2+", "2+"),
        ("0 of 3 biopsies positive; 2+", "2+"),
        ("block 0, HER2 score 1", "1+"),
        ("HER2 status 2", "2+"),
        ("HER2 status: 3", "3+"),
        ("score 3/3", "3+"),
        ("IHC 2/3; ISH negative", "2+"),
    ],
)
def test_scores(text: str, score: str) -> None:
    found = case_score(text)
    assert found is not None
    assert found.label == score


@pytest.mark.parametrize(
    "text",
    [
        "",
        "n/a",
        "HER2",
        "HER2+",
        "HER 2+",
        "HER2 positive",
        "negative",
        "4",
        "4+",
        "13+",
        "10 %",
        "0 %",
        "HER2 3 %",
        "HER2 10 %",
        "HER2 2.3",
        "ISH 0",
        "FISH 2+",
        "CISH: 2.1",
        "HER2/CEP17 ratio 2",
        "block 3",
        "2022-10-01",
        "0.5",
        "P-003",
        "0 of 3 biopsies positive",
        "IHC 2 of 5 blocks",
        "IHC 3/3 cores positive",
    ],
)
def test_what_is_no_score(text: str) -> None:
    assert case_score(text) is None

"""Tables as files."""

from __future__ import annotations

import csv
import io
import json

from her2bridge.experiments.published import Spread
from her2bridge.experiments.write import Column, ExperimentTable, as_csv, as_json, as_markdown

TABLE = ExperimentTable(
    "table4",
    "A title",
    (
        Column("name", "Name"),
        Column("share", "Share %", 1),
        Column("count", "Count"),
        Column("more", "More", for_people=False),
    ),
    (
        {"name": "a, b", "share": Spread(12.345, 0.5), "count": 12000, "more": 1},
        {"name": "c", "share": Spread(float("nan")), "count": None, "more": 2},
        {"name": "d", "share": 7.0, "count": 3, "more": 3},
    ),
    ("A note.",),
    {"seed": 1},
)


def test_csv_has_a_column_for_the_spread() -> None:
    assert list(csv.DictReader(io.StringIO(as_csv(TABLE)))) == [
        {"name": "a, b", "share": "12.345", "share_sd": "0.5", "count": "12000", "more": "1"},
        {"name": "c", "share": "", "share_sd": "", "count": "", "more": "2"},
        {"name": "d", "share": "7.0", "share_sd": "", "count": "3", "more": "3"},
    ]


def test_json_is_strict() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    plain = json.loads(as_json(TABLE), parse_constant=refuse)
    assert [row["share"] for row in plain["rows"]] == [{"mean": 12.345, "sd": 0.5}, {"mean": None, "sd": None}, 7.0]
    assert plain["made_with"] == {"seed": 1}
    assert plain["notes"][0] == "A note."


def test_markdown_is_for_people() -> None:
    lines = as_markdown(TABLE).splitlines()
    assert lines[0] == "# A title"
    assert "Research use only." in lines
    assert "| Name | Share % | Count |" in lines
    assert "| --- | ---: | ---: |" in lines
    assert "| a, b | 12.3 ± 0.5 | 12,000 |" in lines
    assert "| c |  |  |" in lines
    assert "- A note." in lines

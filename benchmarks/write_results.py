"""Rewrite the tables of RESULTS.md from the JSON files that the benchmarks wrote.

    python benchmarks/write_results.py [benchmarks/results/*.json] [--into benchmarks/RESULTS.md]

What stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` is replaced by the table of ``NAME.json``, with
machine, date, command and versions above it; all else stays as it is. A file without such a place is an error: write
the place, with a heading and what a reader should know, where it belongs. Rows may say to which ``table`` they belong:
then each gets its own, under its name; ``notes`` (a list of sentences) stand below.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import cell, machine_told, markdown_table

HERE = Path(__file__).parent


def section(made: Mapping[str, Any]) -> str:
    """What stands between the marks: who measured what, and the tables."""
    told = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    parts = [f"`{made['command']}`, {made['date']}, {machine_told(made['machine'])}" + (f"; {told}." if told else ".")]
    for peer, numbers in made.get("peers", {}).items():
        parts.append(f"{peer}: " + ", ".join(f"{name} {number}" for name, number in numbers.items()) + ".")
    parts += _tables(made["rows"])
    parts += [f"Line through {name}: {_words(fit)}." for name, fit in _flat(made.get("fits", {})).items()]
    parts += made.get("notes", [])
    return "\n\n".join(parts)


def replace_sections(text: str, sections: Mapping[str, str]) -> str:
    """The text with each section between its marks.

    Raises:
        SystemExit: a section that has no place, or more than one.
    """
    for name, content in sections.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        found = re.findall(f"{re.escape(begin)}.*?{re.escape(end)}", text, re.DOTALL)
        if len(found) != 1:
            raise SystemExit(f"{len(found)} places for {name}: write {begin} and {end} once, where the table belongs")
        text = text.replace(found[0], f"{begin}\n\n{content}\n\n{end}")
    return text


def _tables(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    parts = []
    for name in dict.fromkeys(row.get("table") for row in rows):
        if name is not None:
            parts.append(f"**{name}**")
        own = [row for row in rows if row.get("table") == name]
        parts.append(markdown_table([{key: value for key, value in row.items() if key != "table"} for row in own]))
    return parts


def _flat(fits: Mapping[str, Any], name: str = "") -> dict[str, Mapping[str, float]]:
    """Fits by the names that lead to them."""
    found: dict[str, Mapping[str, float]] = {}
    for key, value in fits.items():
        path = f"{name}, {key}" if name else key
        if any(isinstance(one, Mapping) for one in value.values()):
            found |= _flat(value, path)
        else:
            found[path] = value
    return found


def _words(fit: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {cell(value)}" for name, value in fit.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", help="default: all of benchmarks/results")
    parser.add_argument("--into", type=Path, default=HERE / "RESULTS.md")
    asked = parser.parse_args()
    files = asked.files or sorted((HERE / "results").glob("*.json"))
    sections = {path.stem: section(json.loads(path.read_text(encoding="utf-8"))) for path in files}
    text = asked.into.read_text(encoding="utf-8")
    asked.into.write_text(replace_sections(text, sections), encoding="utf-8")
    print(f"{asked.into}: {', '.join(sections)}")


if __name__ == "__main__":
    main()

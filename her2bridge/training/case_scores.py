"""The HER2 score that a person wrote into a free text: ``HER2 2+, ISH negative`` is 2+."""

from __future__ import annotations

import re

from her2bridge.records import TUMOUR_CLASSES, TileClass

_HER2 = r"\bHER[\s-]*2(?:[\s/-]*neu\b)?|\b(?:c-?)?erb-?b-?2"
_OF = r"\s+(?:out\s+)?of\s"
_READ = re.compile(
    rf"""
      \b[a-z]{{0,3}}ISH\b (?:\s*(?:score|ratio|result|[:=]))* (?:\s*\d+(?:[.,]\d+)?\s*\+?|\s*[+-])?   # apart: no score
    | (?:{_HER2}|\bIHC\b|\bscore\b) (?:\s*(?:status|result|expression|score|IHC)\b)* (?:\s*[:=])? \s*\(?
      (?:(?P<said>[0-3])(?![\w+%]|[.,]\d|\s*[+%]|\s*[/–-]\s*\d|{_OF})
        |(?P<of_three>[0-3])(?=\s*/\s*3\s*(?:\Z|[;,)]|\.\s|\.\Z)))                            # 2/3: two of three
    | {_HER2}                                                                              # its 2 is no score
    | (?<![\w.,+])(?P<plus>[0-3])(?=\s*\+)
    | (?<![\w.,+])(?P<range>[0-3])(?=\s*(?:[/–-]|to|or)\s*[1-3]\s*\+)                       # the first of two
    | (?<![\w.,+/–-])(?P<zero>0)(?![\w+%/–-]|[.,]\d|\s*%|{_OF})
    | \A\s*(?P<alone>[0-3])\s*\Z
    """,
    re.IGNORECASE | re.VERBOSE,
)


def case_score(text: str) -> TileClass | None:
    """The first of 0, 1+, 2+ and 3+ in a text; None where it holds none.

    A 1, 2 or 3 without its plus counts after ``HER2``, ``IHC`` or ``score``, also as ``2/3``, and where it is the whole
    text; a 0 by itself counts anywhere, unless a score follows that is one beyond doubt. The 2 of ``HER2``, shares and
    what stands right behind ``ISH`` do not. Words alone, such as ``negative``, are no score: labs mean different ones.
    """
    zero = None
    for match in _READ.finditer(text):
        if match.lastgroup == "zero":
            zero = TUMOUR_CLASSES[0]
        elif match.lastgroup is not None:
            return TUMOUR_CLASSES[int(match[match.lastgroup])]
    return zero

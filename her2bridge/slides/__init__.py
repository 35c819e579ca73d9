"""Slide files to pixels: the only room that names tiffslide, OpenSlide and tmapslide.

``slide`` has the image as QuPath shows it, ``formats`` knows which reader opens a file, and each ``via_*`` is one.
"""

from __future__ import annotations

from her2bridge.calibration import MppChoice, resolve_mpp
from her2bridge.slides.formats import SlideReader, slide_readers
from her2bridge.slides.slide import Slide, open_slide

__all__ = ["MppChoice", "Slide", "SlideReader", "open_slide", "resolve_mpp", "slide_readers"]

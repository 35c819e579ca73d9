"""``python -m her2bridge``; with ``python -I`` this is how QuPath's scripts start it."""

from __future__ import annotations

from her2bridge.cli.app import main

if __name__ == "__main__":
    main()

"""NDJSON on standard output: one flushed line an event, UTF-8, and nothing else between them."""

from __future__ import annotations

import errno
import os
import sys

from her2bridge.errors import WriteFailed


class JsonLines:
    """Standard output for a program that listens.

    What anything else writes there meanwhile (a JVM, a library in C) goes to standard error, so that each line of
    standard output stays JSON. Where standard output is no file of the system's (a notebook), it is left as it is.
    """

    def __init__(self) -> None:
        self._is_lost = False
        sys.stdout.flush()
        try:
            self._number = sys.stdout.fileno()
            aside = sys.stderr.fileno()
        except OSError:
            self._number, self._file = -1, sys.stdout.buffer
            return
        self._file = os.fdopen(os.dup(self._number), "wb")
        os.dup2(aside, self._number)

    def write(self, line: str) -> None:
        """Write one line, and end the program where nobody can hear it any more.

        Raises:
            SystemExit: without a word where the listener has gone (``| head``), else with what went wrong. It is no
                error of the image at hand, and must not be taken for one.
        """
        if self._is_lost:
            return
        try:
            # Half a surrogate pair, as file names may hold, becomes \udcxx: that is its JSON escape too.
            self._file.write(line.encode("utf-8", "backslashreplace") + b"\n")
            self._file.flush()
        except OSError as error:
            self._is_lost = True
            if self._number >= 0:
                forget(self._file.fileno())
            if isinstance(error, BrokenPipeError) or error.errno == errno.EINVAL:  # Windows says EINVAL
                raise SystemExit(1) from error
            raise SystemExit(f"Error: {lost_output(error)}") from error

    def close(self) -> None:
        """Give standard output back."""
        if self._number >= 0:
            sys.stdout.flush()
            os.dup2(self._file.fileno(), self._number)
            self._file.close()


def forget(number: int) -> None:
    """Let what is buffered for a file that cannot be written go nowhere, instead of failing once more at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def lost_output(error: OSError) -> WriteFailed:
    """What is told of standard output that cannot be written."""
    return WriteFailed(
        f"The results cannot be told ({error.strerror}).",
        where="standard output",
        next_step="Make room on the disk and run again: images that were scored are skipped.",
    )

"""Files are written whole or not at all; one her2bridge writes to a project at a time."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import SoftFileLock, Timeout

from her2bridge.errors import ProjectLocked, WriteFailed

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SECONDS_TO_LOCK = 1.0  # long enough to take over a lock whose owner is gone


def sha256_of(data: bytes) -> str:
    """The hash by which we tell whether a file has changed."""
    return hashlib.sha256(data).hexdigest()


def write_atomically(
    path: Path, data: bytes, *, backup: Path | None = None, only_if: Callable[[], bool] = lambda: True
) -> bool:
    """Replace a file, or make it with the folders it needs; whoever reads sees the old content or the new.

    The content goes to a temporary file beside the target, is flushed to the disk, and then takes the target's name
    and mode. A link is followed.

    Args:
        path: the target.
        data: its content.
        backup: where the old content is kept; an older backup is replaced.
        only_if: asked last of all, when only the name has still to be taken; False leaves everything as it was.

    Returns:
        Whether it was written.

    Raises:
        WriteFailed: the folder cannot be written, or the disk is full; the target is as it was.
    """
    path = path.resolve()
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write_through(part, data)
            if path.exists():
                shutil.copymode(path, part)
            if not only_if():
                part.unlink()
                return False
            if backup is not None and path.exists():
                _keep(path, backup)
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)
    except OSError as error:
        raise _failed(path, error) from error
    return True


def read_if_there(path: Path) -> bytes | None:
    """A file's content; None where there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def only_writer(lock: Path) -> Iterator[None]:
    """Hold a project's lock file, which says which process on which host holds it; one whose process is gone is taken
    over.

    Args:
        lock: in a folder of ours in the project's folder; it is made where it is missing.

    Raises:
        ProjectLocked: another process holds it.
        WriteFailed: the folder cannot be written.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = SoftFileLock(lock, timeout=_SECONDS_TO_LOCK)
        held.acquire()
    except Timeout as error:
        raise ProjectLocked(
            f"Another her2bridge is writing to this project ({_owner(lock)}).",
            where=str(lock),
            next_step="Wait until it has finished. If you are sure that it no longer runs, delete that file.",
        ) from error
    except OSError as error:
        raise WriteFailed(
            f"The project's folder cannot be written to ({error.strerror or type(error).__name__}).",
            where=str(lock.parent.parent),
            next_step="Ask for the right to write there, or copy the project and run on the copy.",
        ) from error
    try:
        yield
    finally:
        held.release()


def _write_through(part: Path, data: bytes) -> None:
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _keep(path: Path, backup: Path) -> None:
    """Give the old content a second name; the target itself is never missing."""
    if backup.exists() and backup.samefile(path):  # an earlier try ended between keeping and replacing
        return
    second = backup.with_name(f"{backup.name}.{os.getpid()}.part")
    second.unlink(missing_ok=True)
    try:
        os.link(path, second)
    except OSError:  # a file system without links
        shutil.copy2(path, second)
    os.replace(second, backup)


def _flush_folder(folder: Path) -> None:
    """Make a rename last; where folders cannot be opened (Windows), the system sees to it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _owner(lock: Path) -> str:
    """Process and host, as the lock file says."""
    try:
        lines = lock.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return f"process {lines[0]} on {lines[1]}" if len(lines) >= 2 else "its lock file does not say which"


def _failed(path: Path, error: OSError) -> WriteFailed:
    if error.errno in _FULL:
        return WriteFailed(
            "The disk is full.", where=str(path), next_step="Make room on it, then run again; nothing was changed."
        )
    return WriteFailed(
        f"The file cannot be written ({error.strerror or type(error).__name__}).",
        where=str(path),
        next_step="Check that the folder may be written to and that no other program holds the file, then run again.",
    )

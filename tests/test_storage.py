"""Writing whole or not at all, and one writer a project."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from her2bridge.errors import ProjectLocked, WriteFailed
from her2bridge.storage import only_writer, read_if_there, write_atomically


class TestWriteAtomically:
    def test_makes_folders_and_leaves_no_traces(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b" / "file"
        write_atomically(path, b"new")
        assert path.read_bytes() == b"new"
        assert [one.name for one in path.parent.iterdir()] == ["file"]

    def test_keeps_the_old_content_as_backup(self, tmp_path: Path) -> None:
        path, backup = tmp_path / "file", tmp_path / "file.backup"
        backup.write_bytes(b"oldest")
        path.write_bytes(b"old")
        write_atomically(path, b"new", backup=backup)
        assert (path.read_bytes(), backup.read_bytes()) == (b"new", b"old")
        backup.write_bytes(b"changed")  # the two are no longer one file
        assert path.read_bytes() == b"new"
        assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "file.backup"]

    def test_a_first_file_has_no_backup(self, tmp_path: Path) -> None:
        write_atomically(tmp_path / "file", b"new", backup=tmp_path / "backup")
        assert not (tmp_path / "backup").exists()

    def test_without_links_the_backup_is_a_copy(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, "no links here")

        monkeypatch.setattr(os, "link", refuse)
        path = tmp_path / "file"
        path.write_bytes(b"old")
        write_atomically(path, b"new", backup=tmp_path / "backup")
        assert (tmp_path / "backup").read_bytes() == b"old"

    @pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")
    def test_keeps_the_mode(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"old")
        path.chmod(0o664)
        write_atomically(path, b"new")
        assert path.stat().st_mode & 0o777 == 0o664

    def test_follows_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        target, link = tmp_path / "there" / "file", tmp_path / "link"
        target.write_bytes(b"old")
        link.symlink_to(target)
        write_atomically(link, b"new")
        assert link.is_symlink()
        assert target.read_bytes() == b"new"

    def test_a_full_disk_changes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"old")

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(WriteFailed, match="disk is full") as caught:
            write_atomically(path, b"new", backup=tmp_path / "backup")
        assert caught.value.where == str(path)
        assert "room" in caught.value.next_step
        assert path.read_bytes() == b"old"
        assert [one.name for one in tmp_path.iterdir()] == ["file"]

    def test_a_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(WriteFailed, match="cannot be written"):
            write_atomically(tmp_path / "file" / "below", b"new")


def test_read_if_there(tmp_path: Path) -> None:
    assert read_if_there(tmp_path / "none") is None
    (tmp_path / "some").write_bytes(b"x")
    assert read_if_there(tmp_path / "some") == b"x"


class TestOnlyWriter:
    def test_the_second_is_told_who_the_first_is(self, tmp_path: Path) -> None:
        lock = tmp_path / "her2bridge" / "lock"
        caught: list[ProjectLocked] = []

        def second() -> None:
            try:
                with only_writer(lock):
                    pass
            except ProjectLocked as error:
                caught.append(error)

        with only_writer(lock):
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()
        (error,) = caught
        assert f"process {os.getpid()} on {socket.gethostname()}" in error.what
        assert error.where == str(lock)
        assert not lock.exists()

    def test_a_lock_whose_process_is_gone_is_taken_over(self, tmp_path: Path) -> None:
        lock = tmp_path / "lock"
        code = "import os,sys;from pathlib import Path;from her2bridge.storage import only_writer;"
        code += "held=only_writer(Path(sys.argv[1]));held.__enter__();os._exit(9)"
        gone = subprocess.run([sys.executable, "-c", code, str(lock)], check=False)
        assert gone.returncode == 9
        assert lock.exists()
        with only_writer(lock):
            assert lock.read_text().splitlines()[0] == str(os.getpid())

    def test_a_lock_of_another_machine_is_heeded(self, tmp_path: Path) -> None:
        lock = tmp_path / "lock"
        lock.write_text("1\nsome-other-host\n")
        with pytest.raises(ProjectLocked, match="process 1 on some-other-host"), only_writer(lock):
            pass
        assert lock.exists()

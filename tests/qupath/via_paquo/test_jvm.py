"""A QuPath in this process: found or not, quiet, bounded, and deaf to Ctrl-C. Each in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES, QUPATH

PROJECT = FIXTURES / "qupath_objects" / "qupath_0_5_1"
needs_qupath = [pytest.mark.qupath, pytest.mark.skipif(QUPATH is None, reason="no QuPath: PAQUO_QUPATH_DIR is not set")]


def python(code: str, *args: str, **env: str) -> tuple[Any, str]:
    """What a program prints on standard output, which must be one line of JSON, and on standard error."""
    told = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *args],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},
    )
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout), told.stderr


WITHOUT = """
    import json, sys
    from her2bridge.errors import BackendUnavailable
    from her2bridge.qupath.open import open_project
    try:
        open_project(sys.argv[1], "paquo")
    except BackendUnavailable as error:
        found = [error.what, error.where, error.next_step]
    print(json.dumps([*found, open_project(sys.argv[1]).backend]))
"""


def test_a_folder_without_a_qupath(tmp_path: Path) -> None:
    (what, where, next_step, fallen_back), _ = python(WITHOUT, str(PROJECT), PAQUO_QUPATH_DIR=str(tmp_path))
    assert what == f"There is no usable QuPath in {tmp_path}."
    assert where == "PAQUO_QUPATH_DIR"
    assert "--backend files" in next_step
    assert fallen_back == f"files (There is no usable QuPath in {tmp_path}; the project is of QuPath 0.5.1)"


def test_the_usual_folders_are_searched(tmp_path: Path) -> None:
    """Home is one of them, and paquo does not know what ~ means."""
    (tmp_path / "QuPath-0.0").mkdir()
    code = """
        import json
        import paquo.jpype_backend
        seen = []
        def look(path, options):
            seen.append(str(path))
            raise FileNotFoundError
        paquo.jpype_backend.qupath_jvm_info_from_qupath_dir = look
        from her2bridge.errors import BackendUnavailable
        from her2bridge.qupath.via_paquo import jvm
        try:
            jvm.start()
        except BackendUnavailable as error:
            print(json.dumps([error.what, seen]))
    """
    (what, seen), _ = python(code, HOME=str(tmp_path), PAQUO_QUPATH_DIR="", PAQUO_QUPATH_SEARCH_CONDA="false")
    assert what == "No QuPath was found on this machine."
    assert str(tmp_path / "QuPath-0.0") in seen


class TestRunning:
    pytestmark = needs_qupath

    def test_standard_output_is_ours_alone(self) -> None:
        code = """
            import json, os
            from her2bridge.qupath.via_paquo import jvm
            qupath = jvm.start()
            system = qupath.java("java.lang.System")
            system.out.println("from Java")
            assert jvm.start() is qupath
            heap = qupath.java("java.lang.Runtime").getRuntime().maxMemory() // 2**20
            print(json.dumps([qupath.version, list(qupath.release), str(qupath.folder), int(heap)]))
        """
        (version, release, folder, heap), noise = python(code)
        assert version.startswith(".".join(map(str, release)))
        assert Path(folder).is_dir()
        assert "from Java" in noise
        assert heap >= 200
        page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
        assert heap <= page * pages // 2**20 // 4 + 16  # Java rounds up

    def test_a_heap_of_the_users_own(self) -> None:
        code = """
            import json
            from her2bridge.qupath.via_paquo import jvm
            print(json.dumps(int(jvm.start().java("java.lang.Runtime").getRuntime().maxMemory() // 2**20)))
        """
        heap, _ = python(code, PAQUO_JAVA_OPTS='["-Xmx300m"]')
        assert 250 <= heap <= 310

    def test_ctrl_c_stays_pythons(self) -> None:
        code = """
            import json, os, signal, time
            from her2bridge.qupath.via_paquo import jvm
            jvm.start()
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            except KeyboardInterrupt:
                print(json.dumps("interrupted"))
        """
        assert python(code)[0] == "interrupted"

    def test_a_qupath_that_we_do_not_know(self) -> None:
        code = """
            import json, sys
            from her2bridge.errors import BackendUnavailable
            from her2bridge.qupath.open import open_project
            from her2bridge.qupath.via_paquo import jvm
            jvm.NEWEST = (0, 4)
            try:
                open_project(sys.argv[1], "paquo")
            except BackendUnavailable as error:
                print(json.dumps([error.what, open_project(sys.argv[1]).backend]))
        """
        (what, fallen_back), _ = python(code, str(PROJECT))
        assert "works with 0.5 to 0.4" in what
        assert fallen_back.startswith("files (QuPath ")

    def test_ndjson_stays_clean(self, tmp_path: Path) -> None:
        """A whole run through QuPath, which logs: nothing of it on standard output."""
        folder = shutil.copytree(PROJECT, tmp_path / "project")
        told = subprocess.run(
            [sys.executable, "-m", "her2bridge", "run", str(folder), "--backend", "paquo", "--json", "--dry-run"],
            capture_output=True,
            text=True,
            check=False,
        )
        events = [json.loads(line) for line in told.stdout.splitlines()]
        assert events[0]["backend"].startswith("paquo ")
        assert events[-1]["type"] == "run_finished"

"""Where a project is opened, and by which backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from her2bridge.errors import BackendUnavailable, ProjectNotFound, UsageError
from her2bridge.qupath.seam import Project
from her2bridge.qupath.via_files.backend import FilesProject

BACKENDS = ("auto", "paquo", "files")

_SUFFIX = ".qpproj"


def open_project(path: Path | str, backend: str = "auto", *, relocations: Sequence[tuple[str, str]] = ()) -> Project:
    """Open a QuPath project.

    Args:
        path: the ``.qpproj`` or the folder that it lies in.
        backend: ``files`` reads and writes the project's own files; ``paquo`` goes through a QuPath on this machine;
            ``auto`` takes paquo where there is a QuPath that may write the project, else files.
        relocations: (old, new) beginnings of slide paths or URIs, for a QuPath that opens the slides too.

    Raises:
        ProjectNotFound: there is none.
        ProjectDamaged: it is not what QuPath writes.
        BackendUnavailable: the backend cannot run here.
        UsageError: no backend is called so, or the folder holds several projects.
    """
    if backend not in BACKENDS:
        raise UsageError(
            f"There is no backend called {backend!r}.", where="--backend", next_step=f"Give {', '.join(BACKENDS)}."
        )
    file = project_file(path)
    if backend == "files":
        return FilesProject(file)
    try:
        project = _through_paquo(file, relocations)
    except BackendUnavailable as error:
        if backend == "paquo":
            raise
        return FilesProject(file, why=error.what.rstrip("."))
    reason = project.read_only_reason
    if backend == "auto" and reason is not None and (files := FilesProject(file, why=reason)).read_only_reason is None:
        return files
    return project


def _through_paquo(file: Path, relocations: Sequence[tuple[str, str]]) -> Project:
    """Start QuPath, if it has not been, and open the project in it."""
    from her2bridge.qupath.via_paquo import jvm

    qupath = jvm.start()
    from her2bridge.qupath.via_paquo.backend import PaquoProject  # paquo wants a running JVM

    return PaquoProject(file, qupath, relocations)


def project_file(path: Path | str) -> Path:
    """The project file that a path means.

    Raises:
        ProjectNotFound: there is none.
        UsageError: the folder holds several.
    """
    path = Path(path).expanduser().absolute()
    if path.is_file():
        if path.suffix != _SUFFIX:
            raise ProjectNotFound(
                "This is not a QuPath project file.", where=str(path), next_step=f"Name the project's {_SUFFIX} file."
            )
        return path
    usual = path / f"project{_SUFFIX}"
    found = [usual] if usual.is_file() else sorted(one for one in path.glob(f"*{_SUFFIX}") if one.is_file())
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"The folder holds {len(found)} projects.",
            where=str(path),
            next_step=f"Name one of them: {', '.join(one.name for one in found)}.",
        )
    raise ProjectNotFound(
        "There is no QuPath project here." if path.is_dir() else "There is no such file or folder.",
        where=str(path),
        next_step=f"Name the project's {_SUFFIX} file, or the folder it lies in.",
    )

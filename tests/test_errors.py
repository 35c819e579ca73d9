"""The error tree: three parts each, exit codes, and a drawing that is true."""

from __future__ import annotations

import inspect
import re

import pytest

from her2bridge import errors
from her2bridge.errors import Her2BridgeError

ALL = [one for _, one in inspect.getmembers(errors, inspect.isclass) if one.__module__ == errors.__name__]


def drawn() -> dict[str, str | None]:
    """The drawing in the module's docstring: name -> name of the parent."""
    stack: list[tuple[int, str]] = []
    parents: dict[str, str | None] = {}
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        match = re.match(r"^( {4}[ │├└─]*)([A-Z]\w+)(?:$|  )", line)
        if match is None:
            continue
        depth = len(match[1])
        while stack and stack[-1][0] >= depth:
            stack.pop()
        parents[match[2]] = stack[-1][1] if stack else None
        stack.append((depth, match[2]))
    return parents


def test_the_drawing_is_the_tree() -> None:
    expected = {one.__name__: one.__bases__[0].__name__ for one in ALL}
    assert expected.pop("Her2BridgeError") == "Exception"
    assert drawn() == {"Her2BridgeError": None, **expected}


@pytest.mark.parametrize("error", ALL, ids=lambda one: one.__name__)
def test_each_says_what_where_and_what_next(error: type[Her2BridgeError]) -> None:
    raised = error("It broke.", where="slide 1", next_step="Mend it.")
    assert (raised.what, raised.where, raised.next_step) == ("It broke.", "slide 1", "Mend it.")
    assert str(raised) == "It broke.\n  where: slide 1\n  next:  Mend it."
    assert error.__doc__
    for missing in ({"where": "slide 1"}, {"next_step": "Mend it."}, {}):
        with pytest.raises(TypeError):
            error("It broke.", **missing)


def test_exit_codes() -> None:
    """2 where the command cannot be carried out as given, 130 after Ctrl-C, else 1."""
    others = {one.__name__: one.exit_code for one in ALL if one.exit_code != 1}
    assert others == {
        "UsageError": 2,
        "ProjectNotFound": 2,
        "BackendUnavailable": 2,
        "BundleNotFound": 2,
        "DatasetNotFound": 2,
        "DeviceUnavailable": 2,
        "Interrupted": 130,
    }


def test_the_module_is_a_leaf() -> None:
    assert not re.search(r"^\s*(from|import) her2bridge", inspect.getsource(errors), re.MULTILINE)

from __future__ import annotations

import os

import pytest

from actgrid.progress import held_back


def imported(problem: BaseException | None) -> None:
    with held_back():
        os.write(2, b"from C++\n")
        if problem is not None:
            raise problem


def test_what_an_import_writes_is_shown_only_where_it_fails(
    capfd: pytest.CaptureFixture[str],
) -> None:
    imported(None)
    assert capfd.readouterr().err == ""
    with pytest.raises(ImportError):
        imported(ImportError())
    assert capfd.readouterr().err == "from C++\n"
    # Whoever stops it wants to see none of it.
    with pytest.raises(KeyboardInterrupt):
        imported(KeyboardInterrupt())
    assert capfd.readouterr().err == ""
    os.write(2, b"as before\n")
    assert capfd.readouterr().err == "as before\n"

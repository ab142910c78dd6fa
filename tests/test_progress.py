from __future__ import annotations

import os

import pytest

from actgrid.progress import buffer_stderr


def imported(problem: BaseException | None) -> None:
    with buffer_stderr():
        os.write(2, b"from C++\n")
        if problem is not None:
            raise problem


def test_output_of_import_is_printed_only_after_failure(
    capfd: pytest.CaptureFixture[str],
) -> None:
    imported(None)
    assert capfd.readouterr().err == ""
    with pytest.raises(ImportError):
        imported(ImportError())
    assert capfd.readouterr().err == "from C++\n"
    # After an interruption the output is not printed.
    with pytest.raises(KeyboardInterrupt):
        imported(KeyboardInterrupt())
    assert capfd.readouterr().err == ""
    os.write(2, b"as before\n")
    assert capfd.readouterr().err == "as before\n"

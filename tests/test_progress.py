from __future__ import annotations

import os

import pytest

from actgrid.progress import buffer_stderr


def import_with_error(problem: BaseException | None) -> None:
    with buffer_stderr():
        os.write(2, b"from C++\n")
        if problem is not None:
            raise problem


def test_output_of_import_is_printed_only_after_failure(
    capfd: pytest.CaptureFixture[str],
) -> None:
    import_with_error(None)
    assert capfd.readouterr().err == ""
    with pytest.raises(ImportError):
        import_with_error(ImportError())
    assert capfd.readouterr().err == "from C++\n"
    # After an interruption the output is not printed.
    with pytest.raises(KeyboardInterrupt):
        import_with_error(KeyboardInterrupt())
    assert capfd.readouterr().err == ""
    os.write(2, b"as before\n")
    assert capfd.readouterr().err == "as before\n"

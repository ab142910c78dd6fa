from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from actgrid.bench import make_cases


@pytest.mark.parametrize("name", make_cases())
def test_every_case_and_yardstick_can_run_repeatedly(name: str) -> None:
    case = make_cases()[name]
    for prepare in (case.ours, case.yardstick):
        for _ in range(2):
            run = prepare()
            run()
            run()


def test_paint_case_paints_canvas(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, case in make_cases(quick=True).items():
        if name.startswith("paint"):
            paint = case.ours()
            paint()
            canvas = paint.args[3]  # type: ignore[attr-defined]
            assert 20 < np.std(canvas) < 80, name


def test_quick_cases_need_no_tensorflow() -> None:
    quick = make_cases(quick=True)
    assert set(quick) < set(make_cases())
    script = (
        "import sys; from actgrid.bench import make_cases\n"
        "for case in make_cases(quick=True).values(): case.ours()()\n"
        "print(sorted({'tensorflow', 'keras', 'ml_dtypes'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done

"""Read tables of numbers from .csv and .tsv files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.errors import FormatError
from actgrid.models.file_checks import raise_format_errors, read_text_file

__all__ = ["Table", "read_table"]

_EXPECTED = "rows of numbers separated by commas, semicolons or tabs, optionally below column names"


class Table(NamedTuple):
    """Record of a table of numbers and the names of its columns.

    Attributes
    ----------
    values
        (rows, columns) float64.
    columns
        Names of the columns; None if the file has no header row.
    """

    values: npt.NDArray[np.float64]
    columns: tuple[str, ...] | None


def read_table(path: Path) -> Table:
    """Read a table of numbers from a text file.

    The delimiter of a .tsv file is a tab. Otherwise it is the first of tab, semicolon and comma
    that the first row contains. A first row without numbers is the header row. Empty lines are
    skipped.

    Returns
    -------
    Table
        Values and column names.

    Raises
    ------
    FormatError
        If the file is no table, or a cell is empty or no finite number.
    """
    text = read_text_file(path, _EXPECTED)
    lines = text.splitlines()
    first_line = next((line for line in lines if line.strip()), "")
    delimiter = _find_delimiter(path, first_line)
    columns: tuple[str, ...] | None = None
    rows: list[npt.NDArray[np.float64]] = []
    with raise_format_errors(path, _EXPECTED):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        width = 0
        for cells in reader:
            if not any(cell.strip() for cell in cells) and len(cells) <= 1:
                continue
            if not width:
                width = len(cells)
                if not any(_is_number(cell) for cell in cells) and any(map(str.strip, cells)):
                    columns = tuple(cell.strip() for cell in cells)
                    continue
            if len(cells) != width:
                raise FormatError(
                    f"{path}, line {reader.line_num}: got {len(cells)} cells; expected {width}, as "
                    "in the first row"
                )
            rows.append(_parse_row(path, reader.line_num, cells, columns))
    if not rows:
        raise FormatError(f"{path} contains no rows of numbers: expected {_EXPECTED}")
    return Table(np.stack(rows), columns)


def _find_delimiter(path: Path, first_line: str) -> str:
    """Return the delimiter of a file from its suffix and its first row."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    for delimiter in "\t;":
        try:
            cells = next(csv.reader([first_line], delimiter=delimiter), [])
        except csv.Error:
            continue
        if len(cells) > 1:
            return delimiter
    return ","


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _parse_row(
    path: Path, line: int, cells: Sequence[str], columns: Sequence[str] | None
) -> npt.NDArray[np.float64]:
    """Convert the cells of a row to finite numbers."""
    try:
        values = np.array([float(cell) for cell in cells], np.float64)
    except ValueError:
        values = np.array([float(cell) if _is_number(cell) else math.nan for cell in cells])
    is_finite = np.isfinite(values)
    if not is_finite.all():
        position = int(is_finite.argmin())
        name = f" ({columns[position]!r})" if columns is not None else ""
        cell = cells[position]
        value = repr(cell) if cell.strip() else "an empty cell"
        raise FormatError(
            f"{path}, line {line}, column {position + 1}{name}: got {value}; expected a finite "
            "number such as 1.5"
        )
    return values

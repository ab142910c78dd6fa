"""Tests of option types: checking Python values and parsing text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actgrid.errors import OptionError
from actgrid.option_checks import read_normalize
from actgrid.option_types import (
    AnyOf,
    Baseline,
    ByteCount,
    Channels,
    Choice,
    Colormap,
    FileFormat,
    Flag,
    Integer,
    Normalize,
    Number,
    OptionType,
    Size,
    Text,
)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Choice(("a", "b")), "b", "b"),
        (Integer(0, 9), " 7 ", 7),
        (Integer(), "-3", -3),
        (Number(0, 1), "0.25", 0.25),
        (Flag(), "True", True),
        (Flag(), "false", False),
        (Text(), "a text", "a text"),
        (AnyOf(("all",), Integer(1)), "all", "all"),
        (AnyOf(("all",), Integer(1)), "3", 3),
        (Size(), "12x34", (12, 34)),
        (Size(), "12X34", (12, 34)),
        (Size(), "5", (5, 5)),
        (Normalize(), "percentile(1, 99)", "percentile(1, 99)"),
        (Channels(("index",)), "index", "index"),
        (Channels(), "3,0-2", [3, 0, 1, 2]),
        (Channels(takes_names=True), "tabby", "tabby"),
        (Colormap(), "viridis", "viridis"),
        (FileFormat(), "WEBP", "webp"),
        (ByteCount(), "100", 100),
        (ByteCount(), "2 KiB", 2048),
        (ByteCount(), "512MiB", 512 << 20),
        (Baseline(("mean",)), "mean", "mean"),
        (Baseline(), "0.5", 0.5),
        (Baseline(), "0,0.5,1", (0.0, 0.5, 1.0)),
    ],
    ids=str,
)
def test_text_is_parsed(kind: OptionType, text: str, value: Any) -> None:
    assert kind.read("name", text) == value


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (Choice(("fast", "none")), "fats", r"must be one of fast, none, not 'fats' \(did you mean"),
        (Integer(1, 9), "0", "name must be at least 1, not 0"),
        (Integer(1, 9), "10", "name must be at most 9, not 10"),
        (Integer(1), "x", "name must be an integer of at least 1, not 'x'"),
        (Integer(), "1.0", "name must be an integer, not '1.0'"),
        (Number(0, 1), "2", "name must be a number from 0 to 1"),
        (Number(), "nan", "name must be a number"),
        (Number(), "inf", "name must be a number"),
        (Number(0, 1, is_open=True), "1", "greater than 0 and less than 1, not 1.0"),
        (Flag(), "yes", "name must be true or false, not 'yes'"),
        (Text(), "", "name must be a non-empty text, not ''"),
        (AnyOf(("all",), Integer(1)), "0", "name must be all or an integer of at least 1, not '0'"),
        (Size(), "0x3", "name must be .height, width."),
        (Size(), "3x", "name must be HxW, such as 224x224"),
        (Size(), "-3", "name must be HxW"),
        (Normalize(), "percentile(99, 1)", "the first limit must be below the second"),
        (Normalize(), "percentile:1,99", "name must be one of standard"),
        (Normalize(), "standart", r"did you mean standard\?"),
        (Normalize(), "range", "range takes 2 numbers"),
        (Channels(("index",)), "indx", r"did you mean index\?"),
        (Channels(), "3,", "channels such as 3,0-2"),
        (Channels(), "2-1", "channels such as 3,0-2"),
        (Colormap(), "virids", r"no colormap is called 'virids' \(did you mean viridis"),
        (FileFormat(), "pngg", r"name must be an image format .* \(did you mean png"),
        (FileFormat(), ".png", "name must be an image format"),
        (ByteCount(), "0", "name must be at least 1"),
        (ByteCount(), "5 parsecs", "name must be a number of bytes"),
        (Baseline(("mean",)), "maen", r"did you mean mean\?"),
    ],
    ids=str,
)
def test_invalid_text_is_rejected(kind: OptionType, text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        kind.read("name", text)


@pytest.mark.parametrize(
    ("kind", "value", "checked"),
    [
        (Integer(), np.int16(4), 4),
        (Number(), np.float32(0.5), 0.5),
        (Flag(), np.bool_(True), True),
        (Size(), 7, (7, 7)),
        (Size(), np.int64(7), (7, 7)),
        (Size(), [3, np.int8(4)], (3, 4)),
        (Size(), np.array([3, 4]), (3, 4)),
        (Channels(), range(3), [0, 1, 2]),
        (Channels(), (2, 0), [2, 0]),
        (Channels(), np.array([1, 0]), [1, 0]),
        (Channels(takes_names=True), ["tabby", 3], ["tabby", 3]),
        (Normalize(), ("range", 0, 6), "range(0, 6)"),
        (Normalize(), "percentile(2,98.5)", "percentile(2, 98.5)"),
        (Size(), "3x4", (3, 4)),
        (ByteCount(), "1KiB", 1024),
        (Baseline(), "0,1", (0.0, 1.0)),
    ],
    ids=str,
)
def test_python_values_are_accepted(kind: OptionType, value: Any, checked: Any) -> None:
    found = kind.check("name", value)
    assert found == checked
    assert type(found) is type(checked)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Choice(("a",)), 1),
        (Integer(), 1.0),
        (Integer(), "1"),
        (Number(), "1"),
        (Number(), None),
        (Number(), math.inf),
        (Flag(), 1),
        (Flag(), "true"),
        (Size(), (1, 2, 3)),
        (Size(), "12x"),
        (Size(), 1.5),
        (Channels(), 3),
        (Channels(), []),
        (Channels(), [0.5]),
        (Channels(), [True]),
        (Colormap(), None),
        (FileFormat(), 3),
        (ByteCount(), 2.5),
        (Normalize(), None),
        (Normalize(), ()),
    ],
    ids=str,
)
def test_python_values_of_wrong_type_are_rejected(kind: OptionType, value: Any) -> None:
    with pytest.raises(OptionError, match="name"):
        kind.check("name", value)


def test_channels_of_an_iterator_are_read_once() -> None:
    assert Channels().check("order", iter([2, 0])) == [2, 0]


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6))
def test_normalization_limits_as_text_and_tuple_are_equal(low: float, width: float) -> None:
    high = low + width
    expected = ("range", (low, high))
    assert read_normalize(f"range({low!r}, {high!r})") == expected
    assert read_normalize(("range", low, high)) == expected


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_sizes_as_text_and_tuple_are_equal(height: int, width: int) -> None:
    assert Size().read("size", f"{height}x{width}") == Size().check("size", (height, width))

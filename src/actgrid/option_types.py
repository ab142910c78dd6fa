"""Types of option values: checking, parsing from text, and description."""

import itertools
import math
import operator
import os
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from actgrid.errors import OptionError, suggest
from actgrid.option_checks import (
    DEFAULT_LIMITS,
    NORMALIZATIONS,
    NORMALIZE_EXPECTED,
    check_integer,
    check_number,
    describe_bounds,
    find_colormap,
    list_writable_formats,
    read_normalize,
)

__all__ = [
    "AnyOf",
    "Baseline",
    "ByteCount",
    "Channels",
    "Choice",
    "Colormap",
    "FileFormat",
    "Flag",
    "Fractions",
    "Integer",
    "IntegerOrObject",
    "Lengths",
    "NameOrPosition",
    "Normalize",
    "Number",
    "Object",
    "OptionType",
    "Size",
    "Text",
]

# Limit of a channel range, larger than the number of channels of any layer.
_MAX_CHANNEL = 1 << 20
_MAX_TEXT = 200  # characters of a value in a URL
_BYTE_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


class OptionType(Protocol):
    """Protocol of the type of an option: it checks, parses and describes values."""

    @property
    def metavar(self) -> str:
        """Placeholder for a value of the option in the help of the command line."""

    @property
    def expected(self) -> str:
        """Description of the allowed values of the option, for error messages and tables."""

    @property
    def words(self) -> tuple[str, ...]:
        """Allowed values of the option that are fixed words, for completion and lists."""

    def check(self, name: str, value: Any) -> Any:
        """Check a Python value of the option, and return it in its standard form.

        Raises
        ------
        OptionError
            If the value is not allowed.
        """

    def read(self, name: str, text: str) -> Any:
        """Parse a value of the option in text form, from the command line or a URL.

        Raises
        ------
        OptionError
            If the text is not a valid value.
        """

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the text form of a value of the option."""


class _TextType:
    """Base class of types of options whose values may be given as text.

    Texts from the command line or a URL are checked like Python values.
    """

    def read(self: OptionType, name: str, text: str) -> Any:
        return self.check(name, text)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": _MAX_TEXT}


@dataclass(frozen=True)
class Choice(_TextType):
    """The type of options whose value is one of several words."""

    words: tuple[str, ...]

    @property
    def metavar(self) -> str:
        return "|".join(self.words)

    @property
    def expected(self) -> str:
        return f"one of {', '.join(self.words)}"

    def check(self, name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in self.words:
            hint = suggest(value, self.words) if isinstance(value, str) else ""
            raise _value_error(name, value, self, hint)
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True)
class Integer:
    """The type of options whose value is an integer from `minimum` to `maximum`."""

    minimum: int | None = None
    maximum: int | None = None
    metavar: ClassVar[str] = "INTEGER"
    words: ClassVar[tuple[str, ...]] = ()

    @property
    def expected(self) -> str:
        return f"an integer{describe_bounds(self.minimum, self.maximum)}"

    def check(self, name: str, value: Any) -> int:
        return check_integer(name, value, self.minimum, self.maximum)

    def read(self, name: str, text: str) -> int:
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,20}\s*", text):
            raise _value_error(name, text, self)
        return self.check(name, int(text))

    def schema(self) -> dict[str, Any]:
        bounds = {"minimum": self.minimum, "maximum": self.maximum}
        return {"type": "integer"} | {
            key: bound for key, bound in bounds.items() if bound is not None
        }


@dataclass(frozen=True)
class Number:
    """The type of options whose value is a finite number in an interval.

    The interval reaches from `minimum` to `maximum`; if `is_open`, these two are excluded.
    """

    minimum: float = 0
    maximum: float = math.inf
    is_open: bool = False
    metavar: ClassVar[str] = "NUMBER"
    words: ClassVar[tuple[str, ...]] = ()

    @property
    def expected(self) -> str:
        if self.is_open:
            upper = "" if math.isinf(self.maximum) else f" and less than {self.maximum}"
            return f"a number greater than {self.minimum}{upper}"
        return f"a number{describe_bounds(self.minimum, self.maximum)}"

    def check(self, name: str, value: Any) -> float:
        number = check_number(name, value, self.minimum, self.maximum)
        if self.is_open and number in (self.minimum, self.maximum):
            raise _value_error(name, value, self)
        return number

    def read(self, name: str, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            raise _value_error(name, text, self) from None
        return self.check(name, number)

    def schema(self) -> dict[str, Any]:
        bounds = {"minimum": self.minimum, "maximum": self.maximum}
        return {"type": "number"} | {
            key: bound for key, bound in bounds.items() if math.isfinite(bound)
        }


@dataclass(frozen=True)
class Flag:
    """The type of options that are true or false."""

    metavar: ClassVar[str] = ""
    expected: ClassVar[str] = "True or False"
    words: ClassVar[tuple[str, ...]] = ("true", "false")

    def check(self, name: str, value: Any) -> bool:
        if type(value).__name__ not in ("bool", "bool_"):  # of Python and of NumPy
            raise _value_error(name, value, self)
        return bool(value)

    def read(self, name: str, text: str) -> bool:
        if text.lower() not in self.words:
            raise OptionError(f"{name} must be true or false, not {text!r}")
        return text.lower() == "true"

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Text(_TextType):
    """The type of options whose value is a non-empty text or a path."""

    metavar: str = "TEXT"
    expected: str = "a non-empty text"
    words: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> Any:
        if not isinstance(value, (str, os.PathLike)) or not value:
            raise _value_error(name, value, self)
        return value


@dataclass(frozen=True)
class Object(_TextType):
    """The type of options whose value is any Python object."""

    expected: str
    metavar: str = "TEXT"
    words: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> Any:
        return value


@dataclass(frozen=True)
class NameOrPosition(_TextType):
    """The type of options whose value is a name or a position, such as of an input.

    The function that takes the option checks the value.
    """

    metavar: str
    expected: str
    words: ClassVar[tuple[str, ...]] = ()

    def check(self, name: str, value: Any) -> Any:
        return value

    def read(self, name: str, text: str) -> Any:
        return int(text) if re.fullmatch("[0-9]{1,9}", text) else text


@dataclass(frozen=True)
class IntegerOrObject(_TextType):
    """The type of options whose value is an integer or a Python object.

    The function that takes the option checks the value.
    """

    minimum: int
    object_description: str
    metavar: ClassVar[str] = "INTEGER"
    words: ClassVar[tuple[str, ...]] = ()

    @property
    def expected(self) -> str:
        return f"{Integer(self.minimum).expected}, or {self.object_description}"

    def check(self, name: str, value: Any) -> Any:
        return self.read(name, value) if isinstance(value, str) else value

    def read(self, name: str, text: str) -> int:
        return Integer(self.minimum).read(name, text)


@dataclass(frozen=True)
class AnyOf:
    """The type of options whose value is one of several words or has another type."""

    words: tuple[str, ...]
    other: OptionType

    @property
    def metavar(self) -> str:
        return "|".join([*self.words, self.other.metavar])

    @property
    def expected(self) -> str:
        return f"{', '.join(self.words)} or {self.other.expected}"

    def check(self, name: str, value: Any) -> Any:
        return self._check_with(self.other.check, name, value)

    def read(self, name: str, text: str) -> Any:
        return self._check_with(self.other.read, name, text)

    def _check_with(self, check: Any, name: str, value: Any) -> Any:
        if isinstance(value, str) and value in self.words:
            return value
        try:
            return check(name, value)
        except OptionError:
            hint = suggest(value, self.words) if isinstance(value, str) else ""
            raise _value_error(name, value, self, hint) from None

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "enum": list(self.words)}, self.other.schema()]}


@dataclass(frozen=True)
class Size:
    """The type of options whose value is a height and width, such as ``224x224``."""

    words: ClassVar[tuple[str, ...]] = ()
    metavar: ClassVar[str] = "HxW"
    expected: ClassVar[str] = "(height, width) or one number for both, each at least 1"

    def check(self, name: str, value: Any) -> tuple[int, int]:
        if isinstance(value, str):
            return self.read(name, value)
        try:
            try:
                sides = [operator.index(value)] * 2
            except TypeError:
                sides = [operator.index(side) for side in value]
            height, width = sides
        except (TypeError, ValueError):
            raise _value_error(name, value, self) from None
        if height < 1 or width < 1:
            raise _value_error(name, value, self)
        return height, width

    def read(self, name: str, text: str) -> tuple[int, int]:
        match = re.fullmatch(r"\s*([0-9]{1,9})(?:[xX]([0-9]{1,9}))?\s*", text)
        if not match:
            raise OptionError(
                f"{name} must be HxW, such as 224x224, or one number for both, not {text!r}"
            )
        return self.check(name, (int(match[1]), int(match[2] or match[1])))

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^[0-9]{1,9}(x[0-9]{1,9})?$"}


@dataclass(frozen=True)
class Lengths:
    """The type of options whose value is a length for each axis, such as ``4x16x16``.

    A single length is kept: it stands for all axes, whose number is not known here.
    """

    words: ClassVar[tuple[str, ...]] = ()
    metavar: ClassVar[str] = "LENGTHS"
    expected: ClassVar[str] = "a length for each axis or one number for all, each at least 1"

    def check(self, name: str, value: Any) -> int | tuple[int, ...]:
        if isinstance(value, str):
            return self.read(name, value)
        try:
            try:
                single = operator.index(value)
            except TypeError:
                lengths = tuple(operator.index(length) for length in value)
            else:
                return check_integer(name, single, 1)
        except (TypeError, ValueError):
            raise _value_error(name, value, self) from None
        if not lengths or min(lengths) < 1:
            raise _value_error(name, value, self)
        return lengths

    def read(self, name: str, text: str) -> int | tuple[int, ...]:
        if not re.fullmatch(r"\s*[0-9]{1,9}([xX][0-9]{1,9}){0,3}\s*", text):
            raise OptionError(
                f"{name} must be lengths such as 16x16, one for each axis, or one number for all, "
                f"not {text!r}"
            )
        lengths = tuple(map(int, text.lower().split("x")))
        return self.check(name, lengths if len(lengths) > 1 else lengths[0])

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^[0-9]{1,9}(x[0-9]{1,9}){0,3}$"}


@dataclass(frozen=True)
class Fractions(_TextType):
    """The type of options whose value is a list of increasing fractions, such as ``0.2,0.5``."""

    words: ClassVar[tuple[str, ...]] = ()
    metavar: ClassVar[str] = "FRACTIONS"
    expected: ClassVar[str] = "increasing numbers between 0 and 1, such as 0.2,0.5,0.8"

    def check(self, name: str, value: Any) -> tuple[float, ...]:
        if isinstance(value, str):
            return self.read(name, value)
        try:
            fractions = tuple(float(entry) for entry in value)
        except (TypeError, ValueError):
            raise _value_error(name, value, self) from None
        edges = 0.0, *fractions, 1.0
        if not fractions or any(low >= high for low, high in itertools.pairwise(edges)):
            raise _value_error(name, value, self)
        return fractions

    def read(self, name: str, text: str) -> tuple[float, ...]:
        try:
            return self.check(name, tuple(map(float, text.split(","))))
        except ValueError:
            raise _value_error(name, text, self) from None


@dataclass(frozen=True)
class Normalize(_TextType):
    """The type of options that name a normalization, such as ``"percentile(1, 99)"``.

    Attributes
    ----------
    limited
        Names of the normalizations that take two limits.
    """

    metavar: ClassVar[str] = "NAME"
    expected: ClassVar[str] = NORMALIZE_EXPECTED
    words: ClassVar[tuple[str, ...]] = tuple(
        f"{name}({', '.join(f'{limit:g}' for limit in DEFAULT_LIMITS[name])})"
        if name in DEFAULT_LIMITS
        else name
        for name, count in NORMALIZATIONS.items()
        if not count or name in DEFAULT_LIMITS
    )
    limited: ClassVar[tuple[str, ...]] = tuple(
        name for name, count in NORMALIZATIONS.items() if count
    )

    def check(self, name: str, value: Any) -> str:
        method, limits = read_normalize(value, name)
        # A resumed run compares its options with the earlier ones as texts.
        texts = [repr(limit).removesuffix(".0") for limit in limits]
        return f"{method}({', '.join(texts)})" if texts else method

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": 64}


@dataclass(frozen=True)
class Channels(_TextType):
    """The type of options that select channels: numbers or a word, ``3,0-2`` as text.

    Attributes
    ----------
    words
        Words that select channels.
    takes_names
        Whether any other text is accepted as a class name, which is looked up later.
    """

    words: tuple[str, ...] = ()
    takes_names: bool = False
    metavar: ClassVar[str] = "CHANNELS"

    @property
    def expected(self) -> str:
        words = [*self.words, *(["a class name"] if self.takes_names else [])]
        return " or ".join([*([", ".join(words)] if words else []), "channels such as 3,0-2"])

    def check(self, name: str, value: Any) -> Any:
        if not isinstance(value, str):
            return value if self.takes_names else self._check_numbers(name, value)
        if value in self.words:
            return value
        if not re.fullmatch(r"[0-9,\- ]+", value):
            if self.takes_names:
                return value
            raise _value_error(name, value, self, suggest(value, self.words))
        channels: list[int] = []
        for part in value.replace(" ", "").split(","):
            first, dash, last = part.partition("-")
            numbers = range(0)
            if first.isdecimal() and (last.isdecimal() if dash else True):
                numbers = range(int(first), min(int(last or first), _MAX_CHANNEL) + 1)
            if not numbers:
                raise _value_error(name, value, self)
            if len(channels) + len(numbers) > _MAX_CHANNEL:
                raise OptionError(f"{name} must be at most {_MAX_CHANNEL:,} channels")
            channels += numbers
        return channels

    def _check_numbers(self, name: str, value: Any) -> list[int]:
        try:
            channels = list(value)
            if not channels or any(isinstance(channel, bool) for channel in channels):
                raise TypeError
            return [operator.index(channel) for channel in channels]
        except TypeError:
            raise _value_error(name, value, self) from None


@dataclass(frozen=True)
class Colormap(_TextType):
    """The type of options that name a colormap of matplotlib or the package cmap."""

    words: ClassVar[tuple[str, ...]] = ()
    metavar: ClassVar[str] = "NAME"
    expected: ClassVar[str] = "the name of a colormap"

    def check(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise _value_error(name, value, self)
        find_colormap(value)
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": 64}


@dataclass(frozen=True)
class FileFormat(_TextType):
    """The type of options that name an image format of Pillow, such as ``png``."""

    metavar: ClassVar[str] = "NAME"
    expected: ClassVar[str] = "an image format that Pillow writes, such as png, webp, jpg or tiff"
    words: ClassVar[tuple[str, ...]] = ("png", "webp", "jpg", "tiff")

    def check(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise _value_error(name, value, self)
        formats = [suffix.lstrip(".") for suffix in list_writable_formats()]
        file_format = value.lower()
        if file_format not in formats:
            raise _value_error(name, value, self, suggest(file_format, formats))
        return file_format


@dataclass(frozen=True)
class ByteCount(_TextType):
    """The type of options whose value is a number of bytes, ``512MiB`` as text."""

    words: ClassVar[tuple[str, ...]] = ()
    metavar: ClassVar[str] = "BYTES"
    expected: ClassVar[str] = "a number of bytes of at least 1, such as 512MiB"

    def check(self, name: str, value: Any) -> int:
        return self.read(name, value) if isinstance(value, str) else check_integer(name, value, 1)

    def read(self, name: str, text: str) -> int:
        match = re.fullmatch(r"\s*([0-9]{1,15})\s*([A-Za-z]*)\s*", text)
        if not match or match[2].upper() not in _BYTE_UNITS:
            raise _value_error(name, text, self)
        return self.check(name, int(match[1]) * _BYTE_UNITS[match[2].upper()])


@dataclass(frozen=True)
class Baseline(_TextType):
    """The type of options whose value is a baseline: numbers, an image or a word."""

    words: tuple[str, ...] = ()
    metavar: ClassVar[str] = "VALUE"

    @property
    def expected(self) -> str:
        words = "".join(f"{word}, " for word in self.words)
        return f"{words}a number, a number for each channel such as 0,0.5,1, or an image"

    def check(self, name: str, value: Any) -> Any:
        return self.read(name, value) if isinstance(value, str) else value

    def read(self, name: str, text: str) -> Any:
        if text in self.words:
            return text
        try:
            numbers = tuple(map(float, text.split(",")))
        except ValueError:
            raise _value_error(name, text, self, suggest(text, self.words)) from None
        return numbers if len(numbers) > 1 else numbers[0]


def _value_error(name: str, value: Any, option_type: OptionType, hint: str = "") -> OptionError:
    return OptionError(f"{name} must be {option_type.expected}, not {value!r}{hint}")

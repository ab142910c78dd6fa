"""Grid of image patches that the tokens of a transformer form."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["TokenGrid"]


class TokenGrid(NamedTuple):  # numpydoc ignore=PR01
    """Arrangement of the tokens of an image: a grid of patches, and tokens before or after it.

    Parameters
    ----------
    height, width : int
        Number of patches in each direction. The patches are in row-major order.
    leading : int, default 0
        Number of tokens before the patches, such as class and register tokens.
    trailing : int, default 0
        Number of tokens after the patches.

    Examples
    --------
    >>> from actgrid.rendering import TokenGrid
    >>> TokenGrid(14, 14, leading=1).tokens
    197
    """

    height: int
    width: int
    leading: int = 0
    trailing: int = 0

    @property
    def tokens(self) -> int:
        """Number of all tokens."""
        return self.leading + self.height * self.width + self.trailing

    @property
    def patches(self) -> slice:
        """The positions of the patches among the tokens."""
        return slice(self.leading, self.leading + self.height * self.width)

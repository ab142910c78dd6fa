"""The command `actgrid`."""

from actgrid.cli.main import main

__all__ = ["main"]

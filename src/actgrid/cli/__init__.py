"""The command line of actgrid."""

from actgrid.cli.main import main

__all__ = ["main"]

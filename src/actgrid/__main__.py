"""Run the command `actgrid` as ``python -m actgrid``."""

import sys
from pathlib import Path

# Python puts the current folder first for `-m`: a file there, such as a download called h5py.py,
# would be imported instead of the library.
if not getattr(sys.flags, "safe_path", False) and sys.path and Path(sys.path[0]) == Path.cwd():
    del sys.path[0]

from actgrid.cli import main

main()

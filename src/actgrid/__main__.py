"""`python -m actgrid` is the command `actgrid`."""

import sys
from pathlib import Path

# Python puts the current folder first for `-m`: a file there, such as a download called h5py.py,
# would be imported in the place of a library.
if not getattr(sys.flags, "safe_path", False) and sys.path and Path(sys.path[0]) == Path.cwd():
    del sys.path[0]

from actgrid.cli import main

main()

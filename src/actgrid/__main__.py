"""`python -m actgrid` is the command `actgrid`."""

from actgrid.cli import main

main()

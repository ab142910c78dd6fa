"""The viewer: a page to look around inside a network, and the HTTP API behind it.

Raises
------
MissingDependencyError
    When imported without FastAPI, uvicorn or python-multipart. Also an ImportError.
"""

from actgrid.errors import MissingDependencyError

try:
    import fastapi as _fastapi  # noqa: F401
    import python_multipart as _python_multipart  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
except ImportError as error:
    raise MissingDependencyError(
        f"the viewer needs FastAPI, uvicorn and python-multipart ({error}); to get them, "
        "pip install 'actgrid[web]'"
    ) from error

from actgrid.web.export import export_site
from actgrid.web.serving import View, serve, view

__all__ = ["View", "export_site", "serve", "view"]

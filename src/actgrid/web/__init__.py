"""The viewer: a web page that shows the activations of a model, and its HTTP API.

Raises
------
MissingDependencyError
    If FastAPI, uvicorn or python-multipart is not installed. Also an ImportError.
"""

from actgrid.errors import MissingDependencyError

try:
    import fastapi as _fastapi  # noqa: F401
    import python_multipart as _python_multipart  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
except ImportError as error:
    raise MissingDependencyError(
        f"the viewer needs FastAPI, uvicorn and python-multipart ({error}); to install them, "
        "pip install 'actgrid[web]'"
    ) from error

from actgrid.web.export import export_site
from actgrid.web.notebook import View, view
from actgrid.web.serving import serve

__all__ = ["View", "export_site", "serve", "view"]

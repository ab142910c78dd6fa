"""Configuration of Sphinx, which builds the documentation: `nox -s docs`."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as get_version
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parent / "tests")]
# TensorFlow reads this when the pages about the packages import it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from pictures import scrape_picture  # type: ignore[import-not-found]  # noqa: E402
from reference import write_reference  # type: ignore[import-not-found]  # noqa: E402

project = "actgrid"
author = "The actgrid developers"
project_copyright = author
version = release = get_version("actgrid")

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_templates", "gallery"]
templates_path = ["_templates"]

# Single backticks in docstrings link to the name, if it is documented.
default_role = "autolink"
autosummary_generate = True
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints = "none"  # the sections of the docstrings describe the types
numpydoc_show_class_members = False
myst_heading_anchors = 3
smartquotes = False  # `--option` must stay as it is
suppress_warnings = ["config.cache"]  # functions of the configuration cannot be pickled

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "examples",
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": (scrape_picture,),
    "reset_modules": (),  # by default those of matplotlib, which no example needs
    "capture_repr": ("__repr__",),
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "abort_on_example_error": True,
    "min_reported_time": 1e6,
    "reference_url": {"actgrid": None},
}

html_theme = "pydata_sphinx_theme"
html_title = f"actgrid {release}"
html_theme_options: dict[str, Any] = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_sidebars: dict[str, list[str]] = {"installation": [], "tutorial": []}
html_show_sourcelink = False
html_copy_source = False


def setup(app: Sphinx) -> None:
    """Write the generated pages before Sphinx looks for sources."""
    app.connect("config-inited", lambda app, config: write_reference(FOLDER / "reference_pages"))

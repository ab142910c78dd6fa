"""Visualize what a Keras/TensorFlow network sees: every channel of every layer.

Importing this package imports neither TensorFlow nor numba nor matplotlib. Each public name is
imported at its first use. Rendering an array needs only NumPy and Pillow.

Examples
--------
>>> model = actgrid.load_model("demo")
>>> x = actgrid.load_images(actgrid.demo.photo(), model=model)
>>> grids = actgrid.render_model(model, x, layers="stem_conv")
>>> grids["stem_conv"]
<Grid 677 x 677, 32 tiles, viridis>
"""

from __future__ import annotations

import importlib
import logging
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actgrid.attribution import (
        Gradients,
        Maximization,
        explain,
        gradients,
        maximize,
        measure_channel_relevance,
    )
    from actgrid.concepts import (
        Concepts,
        ConceptSensitivity,
        find_concepts,
        measure_concept_sensitivity,
    )
    from actgrid.errors import ActgridError
    from actgrid.evaluation import (
        Agreement,
        Evaluation,
        MethodComparison,
        compare_methods,
        evaluate,
        measure_agreement,
    )
    from actgrid.figures import (
        compute_logit_lens,
        diagram,
        extract_attention,
        measure_residual_stream,
        render_model,
        render_weights,
    )
    from actgrid.interventions import (
        ActivationPatching,
        ChannelAblation,
        ablate_channels,
        patch,
        patch_activations,
    )
    from actgrid.models import Extractor, LayerInfo, list_layers, load_images, load_model
    from actgrid.rendering import (
        AttentionMap,
        Attribution,
        ChannelStats,
        Diagram,
        Grid,
        Heatmap,
        LogitLens,
        ResidualStream,
        render,
    )
    from actgrid.runs import compare_models, measure_images, render_comparison, render_images
    from actgrid.statistics import DatasetStats, ModelComparison
    from actgrid.web import export_site, serve, view

__all__ = [
    "ActgridError",
    "ActivationPatching",
    "Agreement",
    "AttentionMap",
    "Attribution",
    "ChannelAblation",
    "ChannelStats",
    "ConceptSensitivity",
    "Concepts",
    "DatasetStats",
    "Diagram",
    "Evaluation",
    "Extractor",
    "Gradients",
    "Grid",
    "Heatmap",
    "LayerInfo",
    "LogitLens",
    "Maximization",
    "MethodComparison",
    "ModelComparison",
    "ResidualStream",
    "ablate_channels",
    "compare_methods",
    "compare_models",
    "compute_logit_lens",
    "diagram",
    "evaluate",
    "explain",
    "export_site",
    "extract_attention",
    "find_concepts",
    "gradients",
    "list_layers",
    "load_images",
    "load_model",
    "maximize",
    "measure_agreement",
    "measure_channel_relevance",
    "measure_concept_sensitivity",
    "measure_images",
    "measure_residual_stream",
    "patch",
    "patch_activations",
    "render",
    "render_comparison",
    "render_images",
    "render_model",
    "render_weights",
    "serve",
    "view",
]

_ROOMS = {
    "ActgridError": "errors",
    "ActivationPatching": "interventions",
    "Agreement": "evaluation",
    "AttentionMap": "rendering",
    "Attribution": "rendering",
    "ChannelAblation": "interventions",
    "ChannelStats": "rendering",
    "ConceptSensitivity": "concepts",
    "Concepts": "concepts",
    "DatasetStats": "statistics",
    "Diagram": "rendering",
    "Evaluation": "evaluation",
    "Extractor": "models",
    "Gradients": "attribution",
    "Grid": "rendering",
    "Heatmap": "rendering",
    "LayerInfo": "models",
    "LogitLens": "rendering",
    "Maximization": "attribution",
    "MethodComparison": "evaluation",
    "ModelComparison": "statistics",
    "ResidualStream": "rendering",
    "ablate_channels": "interventions",
    "compare_methods": "evaluation",
    "compare_models": "runs",
    "compute_logit_lens": "figures",
    "diagram": "figures",
    "evaluate": "evaluation",
    "explain": "attribution",
    "export_site": "web",
    "extract_attention": "figures",
    "find_concepts": "concepts",
    "gradients": "attribution",
    "list_layers": "models",
    "load_images": "models",
    "load_model": "models",
    "maximize": "attribution",
    "measure_agreement": "evaluation",
    "measure_channel_relevance": "attribution",
    "measure_concept_sensitivity": "concepts",
    "measure_images": "runs",
    "measure_residual_stream": "figures",
    "patch": "interventions",
    "patch_activations": "interventions",
    "render": "rendering",
    "render_comparison": "runs",
    "render_images": "runs",
    "render_model": "figures",
    "render_weights": "figures",
    "serve": "web",
    "view": "web",
}
_SUBPACKAGES = (
    "attribution",
    "bench",
    "callbacks",
    "compat",
    "concepts",
    "demo",
    "encoding",
    "errors",
    "evaluation",
    "figures",
    "interventions",
    "models",
    "options",
    "rendering",
    "runs",
    "statistics",
    "targets",
    "web",
)


# A library leaves the display of its log messages to the program that uses it.
logging.getLogger("actgrid").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        value = getattr(importlib.import_module(f"actgrid.{_ROOMS[name]}"), name)
    elif name in _SUBPACKAGES:
        value = importlib.import_module(f"actgrid.{name}")
    elif name == "__version__":
        value = _version("actgrid")
    else:
        raise AttributeError(f"module 'actgrid' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBPACKAGES, "__version__"})

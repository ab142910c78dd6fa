"""A model and an input to activations: loading, listing, the compiled extractor, images."""

from actgrid.models.extraction import Extractor, list_layers
from actgrid.models.images import load_images
from actgrid.models.layers import LayerInfo
from actgrid.models.loading import load_model

__all__ = ["Extractor", "LayerInfo", "list_layers", "load_images", "load_model"]

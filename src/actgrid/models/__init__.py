"""A model and an input to activations: loading, listing, the compiled extractor, images."""

from actgrid.models.extraction import Extractor, list_layers
from actgrid.models.images import load_images
from actgrid.models.layers import LayerInfo
from actgrid.models.loading import load_model
from actgrid.models.network import InputInfo, Network
from actgrid.models.receptive_fields import ReceptiveField, receptive_fields

__all__ = [
    "Extractor",
    "InputInfo",
    "LayerInfo",
    "Network",
    "ReceptiveField",
    "list_layers",
    "load_images",
    "load_model",
    "receptive_fields",
]

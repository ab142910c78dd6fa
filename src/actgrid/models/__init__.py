"""Load models and images, list layers, and run models to get layer activations."""

from actgrid.models.extraction import Extractor, list_layers
from actgrid.models.images import load_images
from actgrid.models.layers import LayerInfo
from actgrid.models.loading import load_model
from actgrid.models.network import InputInfo, Network
from actgrid.models.receptive_fields import ReceptiveField, compute_receptive_fields

__all__ = [
    "Extractor",
    "InputInfo",
    "LayerInfo",
    "Network",
    "ReceptiveField",
    "compute_receptive_fields",
    "list_layers",
    "load_images",
    "load_model",
]

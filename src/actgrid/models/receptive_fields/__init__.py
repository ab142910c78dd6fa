"""Compute receptive fields of layer outputs in pixels of the model's input."""

from actgrid.models.receptive_fields.propagation import compute_receptive_fields
from actgrid.models.receptive_fields.result import Box, ReceptiveField

__all__ = ["Box", "ReceptiveField", "compute_receptive_fields"]

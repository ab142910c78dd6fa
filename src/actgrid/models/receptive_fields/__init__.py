"""Receptive fields: which pixels of a model's input each place of an activation sees."""

from actgrid.models.receptive_fields.result import Box, ReceptiveField
from actgrid.models.receptive_fields.walk import receptive_fields

__all__ = ["Box", "ReceptiveField", "receptive_fields"]

"""Concepts: find the concepts that a layer encodes, and measure their effect on a class."""

from actgrid.concepts.concept_sensitivity import ConceptSensitivity
from actgrid.concepts.concepts import Concepts
from actgrid.concepts.discovery import find_concepts
from actgrid.concepts.sensitivity import measure_concept_sensitivity

__all__ = ["ConceptSensitivity", "Concepts", "find_concepts", "measure_concept_sensitivity"]

"""Scores, with their names before version 0.6."""

from actgrid.compat.tf_keras_vis.utils.scores import (
    BinaryScore,
    CategoricalScore,
    InactiveScore,
    Score,
)

__all__ = ["BinaryLoss", "CategoricalLoss", "InactiveLoss", "Loss"]

BinaryLoss = BinaryScore
CategoricalLoss = CategoricalScore
InactiveLoss = InactiveScore
Loss = Score

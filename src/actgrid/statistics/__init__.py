"""Statistics of channels over many images: dead channels, top images, reports."""

from actgrid.statistics.comparison_report import make_comparison_report
from actgrid.statistics.dataset import DatasetStats
from actgrid.statistics.layer_stats import LayerStats, TopImage
from actgrid.statistics.model_comparison import LayerComparison, ModelComparison
from actgrid.statistics.report import make_report, save_report
from actgrid.statistics.top_images import TopImages, find_top_images

__all__ = [
    "DatasetStats",
    "LayerComparison",
    "LayerStats",
    "ModelComparison",
    "TopImage",
    "TopImages",
    "find_top_images",
    "make_comparison_report",
    "make_report",
    "save_report",
]

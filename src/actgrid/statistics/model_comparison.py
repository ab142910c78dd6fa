"""The class `actgrid.ModelComparison`: differences of the channels of two models."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actgrid.encoding import write_file
from actgrid.errors import FormatError, ShapeError
from actgrid.models.archives import check_zip
from actgrid.option_groups import check_option
from actgrid.options import SortOptions
from actgrid.rendering.bars import draw_bars
from actgrid.rendering.picture import Picture
from actgrid.rendering.stats import import_pandas
from actgrid.statistics.dataset import DatasetStats, stats_from_bytes, stats_to_bytes
from actgrid.statistics.kernel_alignment import compute_alignment
from actgrid.statistics.layer_stats import LayerStats, TopImage
from actgrid.statistics.model_pair import ALIGNMENT, DIFFERENCE, SIGNED_DIFFERENCE, A, B
from actgrid.statistics.storage import read_file, to_npz

if TYPE_CHECKING:
    import pandas

__all__ = ["COMPARISON", "LayerComparison", "ModelComparison"]

# File name of a comparison in the output of a run.
COMPARISON = "comparison.npz"
_FORMAT = "actgrid model comparison 1"

Floats = npt.NDArray[np.float64]

# Columns of a table of channels by which it can be sorted, and whether large values come first.
_SORT_COLUMNS = {
    "difference": True,
    "relative_difference": True,
    "max_difference": True,
    "correlation": False,
}
_LAYER_COLUMNS = ("difference", "relative_difference", "correlation")
_COLOURS = {"cka": (31, 119, 180), "relative_difference": (214, 96, 77)}


@dataclass(frozen=True, eq=False)
class LayerComparison:
    """Record of the differences of a layer's channels between two models, over many images.

    Arrays have an entry for each channel. They are NaN if the outputs of the layer differ in
    shape, except those of each model.

    Parameters
    ----------
    layer, other_layer : str
        Path of the layer in the first and in the second model.
    a, b : LayerStats
        Statistics of the channels in each model.
    difference : numpy.ndarray
        (channels,) float64: mean absolute difference of the values.
    rms_difference : numpy.ndarray
        (channels,) float64: root of the mean squared difference.
    max_difference : numpy.ndarray
        (channels,) float64: largest absolute difference.
    std_difference : numpy.ndarray
        (channels,) float64: standard deviation of the difference, which a constant shift of a
        channel does not change.
    cka : float
        Linear centered kernel alignment of the outputs of all channels: 1 for outputs that are
        equal up to rotation and scale. NaN for batches of fewer than four images.
    _top : LayerStats or None
        Statistics of the absolute difference; None if the outputs differ in shape.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.ReLU(name="relu")])
    >>> other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.ReLU(1, name="relu")])
    >>> x = np.full((4, 8, 8, 3), 3.0, np.float32)
    >>> layer = actgrid.compare_models(model, other, x).layers["relu"]
    >>> layer.difference, layer.a.mean
    (array([2., 2., 2.]), array([3., 3., 3.]))
    """

    layer: str
    other_layer: str
    a: LayerStats
    b: LayerStats
    difference: Floats
    rms_difference: Floats
    max_difference: Floats
    std_difference: Floats
    cka: float
    _top: LayerStats | None = None

    @property
    def relative_difference(self) -> Floats:
        """Root mean squared difference divided by the standard deviation of the channel.

        The standard deviation is the root mean square of those of both models. Where it is 0, the
        result is 0 for equal values, and otherwise infinite.
        """
        if len(self.a.std) != len(self.b.std):
            return np.full_like(self.rms_difference, np.nan)
        std = np.sqrt((self.a.std**2 + self.b.std**2) / 2)
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = self.rms_difference / std
        return np.where(self.rms_difference == 0, 0.0, relative)

    @property
    def correlation(self) -> Floats:
        """Correlation of the values of both models over all positions and images, -1 to 1.

        NaN for a channel that is constant in one of the models, or has values that are not finite.
        """
        if len(self.a.std) != len(self.b.std):
            return np.full_like(self.rms_difference, np.nan)
        # var(a - b) = var(a) + var(b) - 2 cov(a, b)
        covariance = (self.a.std**2 + self.b.std**2 - self.std_difference**2) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            correlation = np.clip(covariance / (self.a.std * self.b.std), -1, 1)
        is_known = (self.a.nonfinite == 0) & (self.b.nonfinite == 0)
        is_known &= ~self.a.dead & ~self.b.dead
        return np.where(is_known, correlation, np.nan)

    @property
    def died(self) -> npt.NDArray[np.bool_]:
        """Channels that are dead in the second model and not in the first, (channels,)."""
        return self._compare_dead(self.b.dead, self.a.dead)

    @property
    def revived(self) -> npt.NDArray[np.bool_]:
        """Channels that are dead in the first model and not in the second, (channels,)."""
        return self._compare_dead(self.a.dead, self.b.dead)

    def _compare_dead(
        self, dead: npt.NDArray[np.bool_], others: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        return dead & ~others if len(dead) == len(others) else np.zeros(len(self.difference), bool)

    def get_top_images(self, channel: int) -> list[TopImage]:
        """Return the images in which a channel differs most, largest difference first.

        Parameters
        ----------
        channel : int
            Index of the channel.

        Returns
        -------
        list of TopImage
            Empty if the outputs of the layer differ in shape.
        """
        return [] if self._top is None else self._top.get_top_images(channel)


class ModelComparison(Picture):  # numpydoc ignore=PR01
    """Differences of the channels of two models over many images: merged, saved and drawn.

    `actgrid.compare_models` returns a comparison. As a picture it shows the CKA and the median
    relative difference of each layer.

    Parameters
    ----------
    stats : DatasetStats
        Statistics of the outputs of both models and of their differences.
    names : tuple of str
        Names of the models.
    layer_paths : dict of str to str
        Path of each layer in the first model -> its path in the second model.

    Examples
    --------
    >>> import keras
    >>> keras.utils.set_random_seed(0)
    >>> layers = [keras.layers.Conv2D(4, 3, name="conv"), keras.layers.Flatten(name="flat")]
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    >>> other = keras.models.clone_model(model)
    >>> x = np.random.default_rng(0).random((8, 8, 8, 3), np.float32)
    >>> comparison = actgrid.compare_models(model, other, x, "conv")
    >>> comparison
    <ModelComparison 8 images, 1 layers, 4 channels>
    >>> comparison.to_frame().columns[:3].tolist()
    ['layer', 'channel', 'difference']
    """

    def __init__(
        self, stats: DatasetStats, names: Sequence[str], layer_paths: Mapping[str, str]
    ) -> None:
        self._stats = stats
        self.names = tuple(names)
        self.layer_paths = dict(layer_paths)

    def __repr__(self) -> str:
        layers = self.layers.values()
        channels = sum(len(layer.difference) for layer in layers)
        return f"<ModelComparison {self.images} images, {len(layers)} layers, {channels} channels>"

    @property
    def images(self) -> int:
        """Number of images that were compared."""
        return self._stats.images

    @property
    def layers(self) -> dict[str, LayerComparison]:
        """Comparison of each layer: path in the first model -> LayerComparison.

        The layers are in the order in which they run in the first model.
        """
        stats = self._stats.layers
        return {
            path: _compare_layer(path, other, stats)
            for path, other in self.layer_paths.items()
            if A + path in stats
        }

    def merge(self, other: ModelComparison) -> None:
        """Add the comparison of the same models over other images, in place.

        Parameters
        ----------
        other : ModelComparison
            Comparison of the same layers.

        Raises
        ------
        OptionError, ShapeError
            If the other comparison has different layers or another number of top images. Both are
            ValueErrors.
        """
        if not isinstance(other, ModelComparison) or other.layer_paths != self.layer_paths:
            raise ShapeError("comparisons of different layers cannot be merged")
        self._stats.merge(other._stats)

    def to_frame(self, sort_by: str = "difference") -> pandas.DataFrame:
        """Convert the comparison to a pandas DataFrame with a row for each channel, worst first.

        Parameters
        ----------
        sort_by : {"difference", "relative_difference", "max_difference", "correlation"}
            Column by which the rows are sorted: largest differences, or lowest correlations, first.

        Returns
        -------
        pandas.DataFrame
            Columns: ``layer``, ``channel``; ``difference``, ``relative_difference``,
            ``max_difference``, ``correlation``, see `LayerComparison`; ``mean_a``, ``mean_b``,
            ``std_a``, ``std_b``, ``zero_fraction_a``, ``zero_fraction_b``, ``dead_a``, ``dead_b``
            of each model; ``cka`` of the layer. Layers with different numbers of channels have no
            rows.

        Raises
        ------
        OptionError
            If `sort_by` is no such column. Also a ValueError.
        MissingDependencyError
            If pandas is not installed. Also an ImportError.
        """
        return import_pandas().DataFrame(self._collect_columns(sort_by))

    def list_channels(self, sort_by: str = "difference") -> list[dict[str, Any]]:
        """Return the rows of `to_frame` as dicts, without pandas.

        Parameters
        ----------
        sort_by : str
            As for `to_frame`.

        Returns
        -------
        list of dict
            A dict for each channel, worst first.
        """
        columns = self._collect_columns(sort_by)
        rows = zip(*(values.tolist() for values in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def _collect_columns(self, sort_by: str) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of `to_frame`."""
        sort_by = check_option(SortOptions, "sort_by", sort_by)
        parts: dict[str, list[npt.NDArray[Any]]] = {}
        for layer in self.layers.values():
            count = len(layer.a.mean)
            if count != len(layer.b.mean):
                continue
            columns: dict[str, npt.NDArray[Any]] = {
                "layer": np.full(count, layer.layer, object),
                "channel": np.arange(count),
                **{name: getattr(layer, name) for name in _SORT_COLUMNS},
            }
            for name in ("mean", "std", "zero_fraction", "dead"):
                columns[f"{name}_a"] = getattr(layer.a, name)
                columns[f"{name}_b"] = getattr(layer.b, name)
            columns["cka"] = np.full(count, layer.cka)
            for name, values in columns.items():
                parts.setdefault(name, []).append(values)
        joined = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        if not joined:
            return {name: np.zeros(0) for name in ("layer", "channel", *_SORT_COLUMNS)}
        keys = joined[sort_by] * (-1 if _SORT_COLUMNS[sort_by] else 1)
        order = np.argsort(keys, kind="stable")  # NaN last
        return {name: values[order] for name, values in joined.items()}

    def to_layer_frame(self) -> pandas.DataFrame:
        """Convert the comparison to a pandas DataFrame with a row for each layer.

        Returns
        -------
        pandas.DataFrame
            Columns: ``layer``, ``other_layer``, ``channels_a``, ``channels_b``, ``cka``; medians
            over the channels of ``difference``, ``relative_difference`` and ``correlation``;
            ``dead_a``, ``dead_b``, ``died``, ``revived``: numbers of channels. In the order of the
            layers.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed. Also an ImportError.
        """
        return import_pandas().DataFrame(self.summary()["layers"])

    def summary(self) -> dict[str, Any]:
        """Return the comparison of each layer, for JSON; NaN is None there.

        Returns
        -------
        dict
            ``images``, ``models`` (names) and ``layers``, a list of dicts with the columns of
            `to_layer_frame`.
        """
        layers = []
        for layer in self.layers.values():
            layers.append(
                {
                    "layer": layer.layer,
                    "other_layer": layer.other_layer,
                    "channels_a": len(layer.a.mean),
                    "channels_b": len(layer.b.mean),
                    "cka": layer.cka,
                    **{name: _compute_median(getattr(layer, name)) for name in _LAYER_COLUMNS},
                    "dead_a": int(layer.a.dead.sum()),
                    "dead_b": int(layer.b.dead.sum()),
                    "died": int(layer.died.sum()),
                    "revived": int(layer.revived.sum()),
                }
            )
        return {"images": self.images, "models": list(self.names), "layers": layers}

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Draw the CKA and the relative difference of each layer as bars.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.
        """
        layers = self.layers
        notes = {
            "cka": f"CKA of {' and '.join(self.names)}, {self.images:,} images: 1 for equal layers",
            "relative_difference": "median difference of a channel / its standard deviation",
        }
        panels = []
        for name, note in notes.items():
            values = np.array(
                [_compute_median(np.atleast_1d(getattr(layer, name))) for layer in layers.values()],
                np.float32,
            )
            colours = np.tile(np.array(_COLOURS[name], np.uint8), (len(values), 1))
            panels.append(draw_bars(list(layers), values, colours, note))
        return np.concatenate(panels, 1)

    def save(self, path: str | Path, *arguments: Any, **options: Any) -> None:
        """Write the comparison to a file: ``.npz`` with all statistics, or a picture.

        Parameters
        ----------
        path : str or pathlib.Path
            The file. The suffix ``.npz`` selects the statistics, which `load` reads; any other
            suffix the picture, see `Picture.save`.
        *arguments, **options : object
            Options of `Picture.save`.

        Raises
        ------
        OptionError
            If Pillow cannot write files with this suffix. Also a ValueError.
        OutputError
            If the file cannot be written. Also an OSError.
        """
        if Path(path).suffix == ".npz":
            write_file(path, self.to_bytes())
        else:
            super().save(path, *arguments, **options)

    def to_bytes(self) -> bytes:
        """Return the content of the ``.npz`` file that `save` writes.

        Returns
        -------
        bytes
            The file.
        """
        about = {"format": _FORMAT, "names": self.names, "layers": list(self.layer_paths.items())}
        members = {"about": json.dumps(about).encode("ascii"), "stats": stats_to_bytes(self._stats)}
        return to_npz({name: np.frombuffer(data, np.uint8) for name, data in members.items()})

    @classmethod
    def load(cls, path: str | Path) -> ModelComparison:
        """Read a comparison from a file that `save` wrote.

        Parameters
        ----------
        path : str or pathlib.Path
            The ``.npz`` file, or the output folder of `actgrid.compare_models`.

        Returns
        -------
        ModelComparison
            The comparison.

        Raises
        ------
        MissingFileError
            If the file does not exist. Also a FileNotFoundError.
        FormatError
            If the file is no comparison. Also a ValueError.
        """
        data = read_file(path, COMPARISON)
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                check_zip(archive, len(data))
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                about = json.loads(file["about"].tobytes())
                stats = file["stats"].tobytes()
            if about["format"] != _FORMAT:
                raise FormatError(f"format {about['format']!r}, expected {_FORMAT!r}")
            return cls(stats_from_bytes(stats), about["names"], dict(about["layers"]))
        except (KeyError, TypeError, ValueError, OSError, zipfile.BadZipFile) as error:
            raise FormatError(f"{path}: not a model comparison of this version: {error}") from error


def _compare_layer(path: str, other: str, stats: Mapping[str, LayerStats]) -> LayerComparison:
    a, b, top = stats[A + path], stats[B + path], stats.get(DIFFERENCE + path)
    alignment = stats[ALIGNMENT + path]
    unknown = np.full(len(a.mean), np.nan)
    return LayerComparison(
        path,
        other,
        a,
        b,
        unknown if top is None else top.mean,
        unknown if top is None else np.sqrt(top.std**2 + top.mean**2),
        unknown if top is None else top.max,
        unknown if top is None else stats[SIGNED_DIFFERENCE + path].std,
        compute_alignment(alignment.mean),
        top,
    )


def _compute_median(values: npt.NDArray[Any]) -> float:
    """Return the median of the values that are not NaN; NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else float("nan")

"""The class `actgrid.DatasetStats`: statistics of every channel over many images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.encoding import write_file
from actgrid.errors import FormatError, OptionError
from actgrid.figures.grids import get_batch_size
from actgrid.models import LayerInfo
from actgrid.option_checks import check_integer, resolve_thread_count
from actgrid.option_groups import takes_options
from actgrid.options import TopOptions
from actgrid.rendering.stats import import_pandas
from actgrid.statistics.accumulator import Accumulator
from actgrid.statistics.layer_stats import NEARLY_DEAD, LayerStats
from actgrid.statistics.measurements import MeasuredLayer, measure_batch
from actgrid.statistics.storage import deserialize, read_file, serialize

if TYPE_CHECKING:
    import pandas

__all__ = [
    "STATISTICS",
    "DatasetStats",
    "add_image",
    "get_top_thresholds",
    "stats_from_bytes",
    "stats_to_bytes",
]

Array = npt.NDArray[Any]

# File name of the statistics in the output of a run.
STATISTICS = "stats.npz"


@takes_options(TopOptions)
class DatasetStats:
    """Statistics of every channel over a dataset: updated, merged and saved.

    The result depends neither on the order of the images nor on their distribution over several
    objects that are merged, except for rounding of means and standard deviations (1e-6 relative).

    Parameters
    ----------
    **options
        See `actgrid.options.TopOptions`.

    Raises
    ------
    OptionError
        If `top` is not a positive integer. Also a ValueError.

    References
    ----------
    Chan, Golub and LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample
    Variances, 1979. The statistics are merged by their formula in float64.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.ReLU(name="relu")])
    >>> extractor = actgrid.Extractor(model)
    >>> stats = actgrid.DatasetStats()
    >>> for value in (-1, 1, 2):
    ...     stats.update(extractor(np.full((5, 8, 8, 3), value)), extractor.layers)
    >>> stats
    <DatasetStats 15 images, 1 layers, 3 channels>
    >>> stats.layers["relu"].mean
    array([1., 1., 1.])
    >>> stats.save("stats.npz")
    >>> actgrid.DatasetStats.load("stats.npz").images
    15
    """

    def __init__(self, **options: Unpack[TopOptions]) -> None:
        self._accumulator = Accumulator(options["top"])

    @classmethod
    def _from_accumulator(cls, accumulator: Accumulator) -> DatasetStats:
        stats = cls(top=accumulator.top)
        stats._accumulator = accumulator
        return stats

    def __repr__(self) -> str:
        accumulator = self._accumulator
        return (
            f"<DatasetStats {self.images} images, {len(accumulator.infos)} layers, "
            f"{len(accumulator.maxima)} channels>"
        )

    @property
    def images(self) -> int:
        """Number of images that the statistics cover."""
        return self._accumulator.images

    @property
    def top(self) -> int:
        """Number of top images that are kept for each channel."""
        return self._accumulator.top

    @property
    def layers(self) -> dict[str, LayerStats]:
        """Statistics of each layer: layer path -> LayerStats, in the order of execution."""
        accumulator = self._accumulator
        return {path: accumulator.compute_layer_stats(path) for path in accumulator.infos}

    def update(
        self,
        activations: Mapping[str, Array],
        layers: Mapping[str, LayerInfo],
        names: Sequence[str] | None = None,
        *,
        start: int | None = None,
        threads: int | None = 1,
        backend: str = "auto",
    ) -> None:
        """Add the activations of a batch of images to the statistics.

        Parameters
        ----------
        activations : dict
            Layer path -> array (N, ...) of numbers, as `Extractor` returns them.
        layers : dict
            Layer path -> LayerInfo, such as `Extractor.layers`.
        names : sequence of str or None
            Names of the N images; None: their indices, such as ``"000017"``.
        start : int or None
            Index of the first image; None: the images follow those already added.
        threads : int or None
            Maximum number of threads; None: one thread per processor.
        backend : {"auto", "native", "numba", "numpy"}
            Implementation that measures, see `actgrid.render`.

        Raises
        ------
        OptionError
            If the number of names differs from the number of images. Also a ValueError.
        ShapeError
            If the layers differ from those of earlier images. Also a ValueError.
        """
        batch = get_batch_size(activations) if names is None else len(names)
        first = self.images if start is None else check_integer("start", start, 0)
        if names is None:
            names = [f"{first + sample:06}" for sample in range(batch)]
        elif batch != get_batch_size(activations):
            raise OptionError(
                f"the number of names must equal the number of images: got {batch} names for "
                f"{get_batch_size(activations)} images"
            )
        thresholds = self._accumulator.thresholds(first)
        measured = [
            measure_batch(
                layers[path],
                activation,
                batch=batch,
                threshold=thresholds.get(path),
                threads=resolve_thread_count(threads),
                backend=backend,
            )
            for path, activation in activations.items()
        ]
        for sample, image_layers in enumerate(zip(*measured, strict=True)):
            self._accumulator.add(first + sample, names[sample], image_layers)

    def merge(self, other: DatasetStats) -> None:
        """Add the statistics of other images to these statistics, in place.

        Parameters
        ----------
        other : DatasetStats
            Statistics of the same layers over other images.

        Raises
        ------
        OptionError
            If the other statistics have a different `top`. Also a ValueError.
        ShapeError
            If the other statistics have different layers. Also a ValueError.
        """
        self._accumulator.merge(other._accumulator)

    def summary(self, nearly_dead_fraction: float = NEARLY_DEAD) -> dict[str, Any]:
        """Return the dead, nearly dead and non-finite channels of each layer, for JSON.

        Parameters
        ----------
        nearly_dead_fraction : float
            A channel is nearly dead if less than this fraction of the images activates it, 0 to 1.

        Returns
        -------
        dict
            ``images`` (number of images), ``top`` (top images of each channel),
            ``nearly_dead_fraction``, ``totals`` and ``layers``. ``layers`` is a list of dicts with
            ``path``, ``type``, ``channels``, ``dead``, ``nearly_dead``, ``nonfinite`` (numbers),
            ``dead_channels`` and ``nearly_dead_channels`` (indices). ``totals`` has the sums of the
            numbers, and the number of ``layers``.
        """
        layers: list[dict[str, Any]] = []
        for path, layer in self.layers.items():
            dead = np.flatnonzero(layer.dead)
            nearly_dead = np.flatnonzero(layer.find_nearly_dead(nearly_dead_fraction))
            layers.append(
                {
                    "path": path,
                    "type": layer.info.type,
                    "channels": layer.count.size,
                    "dead": dead.size,
                    "nearly_dead": nearly_dead.size,
                    "nonfinite": int(layer.nonfinite.sum()),
                    "dead_channels": dead.tolist(),
                    "nearly_dead_channels": nearly_dead.tolist(),
                }
            )
        totals = {
            name: sum(layer[name] for layer in layers)
            for name in ("channels", "dead", "nearly_dead", "nonfinite")
        }
        return {
            "images": self.images,
            "top": self.top,
            "nearly_dead_fraction": nearly_dead_fraction,
            "totals": {"layers": len(layers)} | totals,
            "layers": layers,
        }

    def to_frame(self) -> pandas.DataFrame:
        """Convert the statistics to a pandas DataFrame with a row for each channel.

        Returns
        -------
        pandas.DataFrame
            Columns: those of `LayerStats.to_frame`. Index: ``(layer, channel)``.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed. Also an ImportError.
        """
        frames = {path: layer.to_frame() for path, layer in self.layers.items()}
        if not frames:
            return import_pandas().DataFrame()
        return import_pandas().concat(frames, names=["layer"])

    def save(self, path: str | Path) -> None:
        """Write the statistics to a NumPy ``.npz`` file, atomically.

        `numpy.load` can also read the file. It contains the arrays `count`, `mean`, `m2` (sum of
        squared deviations from the mean), `min`, `max`, `zeros` (number of zeros), `nonfinite`,
        `activating_images`, `top_max`, `top_index` and `top_position` over the concatenated
        channels of all layers, and `about`, the layers and image names as JSON. Equal statistics
        give equal files.

        Parameters
        ----------
        path : str or pathlib.Path
            The file.

        Raises
        ------
        OutputError
            If the file cannot be written. Also an OSError.
        """
        write_file(path, serialize(self._accumulator))

    @classmethod
    def load(cls, path: str | Path) -> DatasetStats:
        """Read statistics from a file that `save` wrote.

        Parameters
        ----------
        path : str or pathlib.Path
            The file, or the output folder of a run.

        Returns
        -------
        DatasetStats
            The statistics.

        Raises
        ------
        MissingFileError
            If the file does not exist. Also a FileNotFoundError.
        FormatError
            If the file has another format or format version. Also a ValueError.
        """
        data = read_file(path, STATISTICS)
        try:
            return cls._from_accumulator(deserialize(data))
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error


def add_image(stats: DatasetStats, index: int, name: str, layers: Sequence[MeasuredLayer]) -> None:
    """Add the measurements of one image to dataset statistics.

    The arguments are those of `Accumulator.add`.
    """
    stats._accumulator.add(index, name, layers)


def get_top_thresholds(stats: DatasetStats, index: int = 0) -> dict[str, npt.NDArray[np.float64]]:
    """Return the smallest maximum that still enters the top images of each channel.

    The arguments and the result are those of `Accumulator.thresholds`.
    """
    return stats._accumulator.thresholds(index)


def stats_to_bytes(stats: DatasetStats) -> bytes:
    """Convert dataset statistics to the bytes that `DatasetStats.save` writes (.npz)."""
    return serialize(stats._accumulator)


def stats_from_bytes(data: bytes) -> DatasetStats:
    """Restore dataset statistics from the bytes of `stats_to_bytes`.

    Returns
    -------
    DatasetStats
        The statistics.

    Raises
    ------
    FormatError
        If `data` has another format. Also a ValueError.
    """
    return DatasetStats._from_accumulator(deserialize(data))
